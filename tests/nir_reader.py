"""A reader of NIR files, by the definitions of NIR and what snnc says in metadata. Knows nothing of snnc.

The file is read by the official library, with its type check, and each node is computed with torch's functions. An `IF`
adds its input to its potential at each step, fires where the threshold is reached, and is reset as its metadata says.
"""

from graphlib import TopologicalSorter

import nir
import torch
import torch.nn.functional as F


def pair(value):
    return tuple(int(v) for v in value) if getattr(value, "ndim", 0) else int(value)


def given(values, x):
    """An array of the file, in the precision of `x`."""
    return torch.from_numpy(values).to(x.dtype)


def convolve(node, x):
    function = F.conv2d if isinstance(node, nir.Conv2d) else F.conv1d
    weight, bias = given(node.weight, x), given(node.bias, x)
    return function(x, weight, bias, pair(node.stride), pair(node.padding), pair(node.dilation), int(node.groups))


STATELESS = {
    nir.Affine: lambda node, x: x @ given(node.weight, x).T + given(node.bias, x),
    nir.Conv1d: convolve,
    nir.Conv2d: convolve,
    nir.AvgPool2d: lambda node, x: F.avg_pool2d(x, pair(node.kernel_size), pair(node.stride), pair(node.padding)),
    nir.SumPool2d: lambda node, x: F.avg_pool2d(
        x, pair(node.kernel_size), pair(node.stride), pair(node.padding), divisor_override=1
    ),
    nir.Flatten: lambda node, x: x.flatten(int(node.start_dim) + 1),
    nir.Output: lambda node, x: x,
}


class Reader:
    """One network; `run` gives outputs `[T, B, ...]` and leaves the spikes of each `IF`, `[T, B, ...]`, in `spikes`."""

    def __init__(self, path, **changes):
        self.graph = nir.read(path)
        self.told = {**self.graph.metadata, **changes}
        self.fed = {name: [a for a, b in self.graph.edges if b == name] for name in self.graph.nodes}
        self.order = list(TopologicalSorter(self.fed).static_order())

    def run(self, x, frames=False):
        """Outputs for samples, or over `frames` `[B, T, ...]`, one a step."""
        potential, self.spikes = {}, {}
        if "input_scale" in self.told:
            x = torch.round(x * given(self.told["input_scale"], x))
            x = x.clamp(int(self.told["input_low"]), int(self.told["input_high"]))
        outputs = []
        for t in range(int(self.told["T"])):
            values = {}
            for name in self.order:
                node = self.graph.nodes[name]
                if isinstance(node, nir.Input):
                    values[name] = x[:, t] if frames else x
                    continue
                current = sum(values[source] for source in self.fed[name])
                if isinstance(node, nir.IF):
                    values[name], potential[name] = self.fire(node, current, potential.get(name))
                    self.spikes.setdefault(name, []).append(values[name])
                else:
                    values[name] = STATELESS[type(node)](node, current)
                assert tuple(values[name].shape[1:]) == tuple(node.output_type["output"]), name
            (last,) = (values[name] for name, node in self.graph.nodes.items() if isinstance(node, nir.Output))
            outputs.append(last)
        self.spikes = {name: torch.stack(trains) for name, trains in self.spikes.items()}
        return torch.stack(outputs)

    def fire(self, node, current, potential):
        threshold = given(node.v_threshold, current)
        assert node.metadata["reset"] == b"subtract" or node.metadata["reset"] == "subtract"
        if potential is None:
            potential = given(node.metadata["v0"], current).expand(current.shape)
        u = potential + given(node.r, current) * current
        spike = (u >= threshold).to(u.dtype)
        return spike, u - spike * threshold

    def logits(self, x):
        return self.run(x)[int(self.told["late"]) :].mean(0)
