"""A reader that needs no simulator."""

import torch

from snnc.readers.foreign import Foreign
from tests.nir_reader import Reader


class Plain(Foreign):
    """The reader of the tests in the place of a simulator: neurons are modules, and a state is passed on."""

    simulator, package = "the tests' own reader", "none"

    def imported(self):
        self.reader = Reader(self.path)
        net = torch.nn.ModuleDict({name: torch.nn.Identity() for name in self.nodes})
        net.add_module("dot", torch.nn.Identity())
        return net

    def adjusted(self, name, module):
        return module

    def begin(self, batch):
        return 0

    def advance(self, x, state):
        if state == 0:
            self.outputs = self.reader.run(x)
        for name, module in self.neurons.items():
            module(self.reader.spikes[name][state])
        return self.outputs[state], state + 1
