"""One output of an emitted network that gives several."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from snnc.networks.base import SpikingNetwork, Trains
from snnc.networks.inputs import Input
from snnc.runtime.runner import Observer
from snnc.structure import Samples, named


class OneOutput(SpikingNetwork):
    """Runs a whole network, and gives one of its outputs.

    Attributes:
        whole: that network.
        name: of the output.
    """

    def __init__(self, whole: SpikingNetwork, name: str) -> None:
        super().__init__()
        self.whole, self.name = whole, name
        self.info = {key: value for key, value in whole.info.items() if key != "outputs"}
        self.stage, self.chunk = whole.stage, whole.chunk

    @property
    def form(self) -> str:  # type: ignore[override]
        """What the whole is."""
        return self.whole.form

    def forward(self, *x: Input, **more: Input) -> Tensor:
        """See `SpikingNetwork`."""
        found: Tensor = named(self.whole(*x, **more))[self.name]
        return found

    def readout(self, *x: Input, observe: Observer | None = None, **more: Input) -> Any:
        return named(self.whole.readout(*x, observe=observe, **more))[self.name]

    def emitted(self, x: Samples, stream: bool = False) -> tuple[Tensor, Trains | None]:
        tree, trains = self.whole.emitted(x, stream)
        return named(tree)[self.name], trains

    def heights(self) -> Trains:
        return self.whole.heights()
