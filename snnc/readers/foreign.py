"""A network of another simulator, run as snnc runs its own."""

from __future__ import annotations

import abc
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnc.errors import DataError, LoadError, SnncError, Unsupported
from snnc.files.vectors import Vectors, write_vectors


class Foreign(nn.Module, abc.ABC):
    """A NIR file as another simulator reads it, with the settings that give snnc's spikes.

    It is a pure function, as snnc's networks are: every call starts from the potentials of the file.

    Args:
        path: a NIR file that snnc wrote, best with `--target` for this simulator.

    Raises:
        LoadError: there is no such file, somebody else wrote it, or it was written for a target whose output is a sum.
        Unsupported: the simulator cannot run it; everything that keeps it from that.
        SnncError: the simulator is not installed; how to install it.

    Attributes:
        net: the simulator's own network.
        T: steps of a run.
        late: steps that the readout leaves out.
        framed: whether a sample is T frames `[T, ...]`, one for each step.
        neurons: the simulator's module of each layer of neurons, by its name in the file.
        start: potential before the first step, one number a neuron, by the same names.
    """

    simulator: str
    package: str

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path, self.graph = Path(path), opened(path)
        require_fit(self.graph, self.path, self.package)
        said = self.graph.metadata
        self.T, self.late, self.framed = int(said["T"]), int(said["late"]), told(said["input"]).startswith("frame")
        self.nodes = {name: node for name, node in self.graph.nodes.items() if type(node).__name__ == "IF"}
        self.start = {name: torch.from_numpy(node.metadata["v0"]) for name, node in self.nodes.items()}
        self.net = self.imported()
        modules = dict(self.net.named_modules())
        self.neurons: dict[str, Any] = {name: self.adjusted(name, modules[name]) for name in self.nodes}
        channels = int(self.graph.nodes["input"].input_type["input"][0])
        for module in self.net.modules():  # with one channel both orders are one, and torch keeps to the plain one
            if channels > 1 and isinstance(module, nn.Conv2d | nn.AvgPool2d | nn.LPPool2d):
                module.register_forward_pre_hook(lambda _, given: (near(given[0]),))
        self.spikes: dict[str, list[Tensor]] = {}
        for name, module in self.neurons.items():
            module.register_forward_hook(lambda _, given, gave, name=name: self._see(name, gave))
        self.eval()

    @abc.abstractmethod
    def imported(self) -> nn.Module:
        """The file as the simulator's own importer reads it."""

    @abc.abstractmethod
    def adjusted(self, name: str, module: Any) -> Any:
        """The neurons of a layer with the settings that NIR has no field for; the module that gives their spikes."""

    @abc.abstractmethod
    def begin(self, batch: int) -> Any:
        """Puts potentials to where they start, for so many samples; gives what `advance` takes as its first state."""

    def advance(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step."""
        output, state = self.net(x, state)
        return output, state

    def thresholds(self, name: str) -> Tensor:
        """Threshold of each neuron of a layer."""
        return torch.from_numpy(self.nodes[name].v_threshold)

    def potentials(self, name: str, batch: int) -> Tensor:
        """Where the neurons of a layer start, for so many samples."""
        start = self.start[name]
        return start.expand(batch, *start.shape).clone()

    def _see(self, name: str, gave: Any) -> None:
        self.spikes.setdefault(name, []).append((gave[0] if isinstance(gave, tuple) else gave).detach())

    @torch.no_grad()
    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """All steps.

        Args:
            x: input `[B, ...]`, the same at every step; or, where the network is `framed`, `[B, T, ...]`.

        Returns:
            The output of each step `[T, B, ...]`, and the spikes of each layer of neurons `[T, B, ...]`.

        Raises:
            DataError: the file holds another shape of sample.
        """
        shape = tuple(int(size) for size in self.graph.nodes["input"].input_type["input"])
        shape = (self.T, *shape) if self.framed else shape
        if tuple(x.shape[1:]) != shape:
            raise DataError(
                f"The samples have shape {tuple(x.shape[1:])}, and the file takes {shape}.", "samples of its shape"
            )
        x, self.spikes = self._rounded(x), {}
        outputs = self.steps(x)
        return outputs, {name: self.by_step(torch.cat(parts), len(x)) for name, parts in self.spikes.items()}

    def steps(self, x: Tensor) -> Tensor:
        """The output of each step `[T, B, ...]`."""
        state, outputs = self.begin(len(x)), []
        for t in range(self.T):
            output, state = self.advance(x[:, t] if self.framed else x, state)
            outputs.append(output)
        return torch.stack(outputs)

    def rows(self, x: Tensor) -> Tensor:
        """The input of every step `[B * T, ...]`, those of a sample in a row."""
        return x.flatten(0, 1) if self.framed else x.repeat_interleave(self.T, 0)

    def by_step(self, train: Tensor, batch: int) -> Tensor:
        """What a layer gave, one step after the other, as `[T, B, ...]`."""
        return train.reshape(self.T, batch, *train.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """The readout `[B, ...]`: the mean of the output over the steps that count."""
        return self.run(x)[0][self.late :].mean(0)

    def record(self, path: str | Path, x: Tensor, batch: int = 50) -> Path:
        """Writes the input and the spikes of every neuron at every step, for `snnc verify NET.snn PATH`.

        Args:
            path: an `.npz` file.
            x: input `[N, ...]`.
            batch: samples at a time.
        """
        parts = [self.run(one) for one in x.split(batch)]
        spikes = {name: torch.cat([found[name] for _, found in parts], 1).bool().numpy() for name in self.nodes}
        outputs = torch.cat([self.running(output) for output, _ in parts], 1).numpy()
        return write_vectors(path, Vectors(x.numpy(), spikes, outputs, f"{self.simulator}, read by snnc.readers"))

    def running(self, outputs: Tensor) -> Tensor:
        """The readout after each step `[T, B, ...]`: the mean so far, of late steps alone once there are any."""
        means = []
        for part in (outputs[: self.late], outputs[self.late :]):
            count = torch.arange(1, len(part) + 1, dtype=part.dtype).reshape(-1, *[1] * (part.dim() - 1))
            means.append(part.cumsum(0) / count)
        return torch.cat(means)

    def _rounded(self, x: Tensor) -> Tensor:
        """The input on the grid of a fixed-point network, as the metadata say."""
        told = self.graph.metadata
        if "input_scale" not in told:
            return x
        return torch.round(x * torch.from_numpy(told["input_scale"])).clamp(
            int(told["input_low"]), int(told["input_high"])
        )


def near(x: Tensor) -> Tensor:
    """Maps with their channels closest together in memory, as in snnc: torch adds up in another order elsewhere."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def library(module: str, package: str) -> Any:
    """A simulator's module, imported as it is needed.

    Raises:
        SnncError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        lacks = missing.name or module
        raise SnncError(
            f"This needs the package '{package}', and '{lacks}' is not installed.",
            f"pip install {' '.join(dict.fromkeys((package, 'nirtorch', 'nir')))}",
        ) from missing


def opened(path: str | Path) -> Any:
    """A NIR file that snnc wrote.

    Raises:
        LoadError: there is none, somebody else wrote it, or it was written for a target whose output is a sum.
        SnncError: the package nir is not installed.
    """
    nir = library("nir", "nir")
    if not Path(path).is_file():
        raise LoadError(f"There is no file '{path}'.", "the name of a NIR file that is there")
    try:
        graph = nir.read(path)
    except Exception as error:
        raise LoadError(f"'{path}' is no NIR file ({type(error).__name__}).", "a file that snnc wrote") from error
    if not str(told(graph.metadata.get("generator", ""))).startswith("snnc"):
        raise LoadError(
            f"'{path}' was not written by snnc, so it does not say where potentials start.",
            "the simulator's own importer",
        )
    if "total" in graph.metadata:
        raise LoadError(
            f"'{path}' was written for {told(graph.metadata['target'])}: its output is the sum of the readout so far.",
            "a file that was written with --target for this simulator",
        )
    return graph


def require_fit(graph: Any, path: Path, simulator: str) -> None:
    """Refuses a file that the simulator cannot run, since importers stop at it with errors of their own.

    Raises:
        Unsupported: everything that keeps the simulator from running it.
    """
    from snnc.backends.nir.fit import fit
    from snnc.backends.nir.targets import TARGETS

    row = TARGETS.get(simulator)
    found = [] if row is None else [one.blocker for one in fit(graph, row).misfits if one.level == "unsupported"]
    if found:
        more = f" And {len(found) - 1} more." if found[1:] else ""
        hint = f"the network written with --target {simulator}, which says what to change"
        raise Unsupported(f"'{simulator}' cannot run '{path}': {found[0]}{more}", hint, tuple(found))


def told(value: Any) -> Any:
    """Text of metadata, which older versions of nir give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
