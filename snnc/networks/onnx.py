"""A spiking network that was written as ONNX, run by onnxruntime.

Inputs and outputs are bound to the memory of torch tensors, so on a GPU they stay there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from snnc.defaults import CHUNK
from snnc.errors import DataError, LoadError, SnncError
from snnc.files.emitted import BATCH, COUNTING, DOMAIN, by_step, neuron_of, output_names, read_emitted
from snnc.ir.graph import Stage
from snnc.ir.neurons import NEURONS
from snnc.networks.base import SpikingNetwork, Trains, counted
from snnc.networks.chosen import OneOutput
from snnc.networks.inputs import Input, bound, checked
from snnc.runtime.runner import Observer
from snnc.steady import exact
from snnc.structure import Samples, Tree, built, each, mapped

if TYPE_CHECKING:  # both are slow to import, and few files get here
    import onnx
    import onnxruntime

_QUIET = 4  # onnxruntime's log: what goes wrong is raised, and told in one sentence
_IN_FLOATS = "a file that was written in floats: snnc.save(net, OUT, snnc.backends.OnnxModel(integers=False))"
_NEURONS = tuple(cls.__name__ for cls in NEURONS)


class OnnxNetwork(SpikingNetwork):
    """Runs an emitted `.onnx`.

    There is no graph to edit and no streaming; `spikes` shows what every neuron layer emits.

    Attributes:
        device: where it runs.
    """

    form = "An ONNX file"

    def __init__(
        self,
        model: onnx.ModelProto,
        info: dict[str, Any],
        chunk: int = CHUNK,
        device: str | torch.device = "cpu",
        options: onnxruntime.SessionOptions | None = None,
    ) -> None:
        """`options` of the session; by default as many threads as torch has.

        Raises:
            SnncError: no such device here.
            LoadError: onnxruntime does not take the model.
        """
        super().__init__()
        self.model = model
        self.info = info
        self._simulated = self.latency.simulated  # read once here: a history that lacks it is refused
        self.stage = Stage(info["stage"])
        self.chunk = counted(chunk)
        self.device = named(device)
        self.options = options or quiet_options()
        if self.device.type == "cuda" and any(_counts(node) for node in self._neurons()):
            raise SnncError(
                "This file computes with 8-bit integers, which onnxruntime does on the CPU only.",
                _IN_FLOATS,
            )
        self.written = [output.name for output in model.graph.output]
        self.session = self._session(model)
        self._seen: onnxruntime.InferenceSession | None = None

    @exact()
    @torch.no_grad()
    def forward(self, *x: Input, **named: Input) -> Any:
        """Output after T steps: `[B, ...]` to `[B, classes]`, on the device of `x`; of several outputs each.

        Raises:
            DataError: an input that does not fit.
        """
        return self._read(self._parts(x, named), self._names(), 0)

    @exact()
    @torch.no_grad()
    def readout(self, *x: Input, observe: Observer | None = None, **named: Input) -> Any:
        if observe is not None:
            self.require_inside()
        names = [by_step(name) for name in self._names()]
        if not set(names) <= set(self.written):
            raise SnncError(
                "This file has the readout after the last step only.",
                "a file that was written with it: compile without --single-output",
            )
        return self._read(self._parts(x, named), names, 1)

    def _alone(self, name: str) -> SpikingNetwork:
        return OneOutput(self, name)

    def _names(self) -> list[str]:
        """What the file calls the outputs."""
        return output_names(self.outputs, self.inputs)

    def _read(self, parts: list[Samples], names: list[str], dim: int) -> Tree:
        """Some outputs, one for each that the network has, in its containers."""
        rounds = [self._run(self.session, part, names) for part in parts]
        whole = [torch.cat(values, dim).to(parts[0].device) for values in zip(*rounds, strict=True)]
        return built(self.structure, dict(zip(self.outputs, whole, strict=True)).__getitem__)

    @exact()
    def emitted(self, x: Samples, stream: bool = False) -> tuple[Tree, Trains]:
        if stream:
            self.stream(x)
        trains = {name: train.unflatten(0, (-1, len(x))) for name, train in self.spikes(x).items()}
        anytime = set(map(by_step, self._names())) <= set(self.written)
        return self.readout(x) if anytime else mapped(lambda one: one[None], self(x)), trains

    @torch.no_grad()
    def spikes(self, *x: Input, **named: Input) -> dict[str, Tensor]:
        """What every neuron layer emits, by its name: `[T * B, ...]`, step after step, each spike as high as it is.

        All of the batch is in memory at once.
        """
        layers = self.layers()
        if self._seen is None:
            looking = type(self.model)()
            looking.CopyFrom(self.model)
            for value in layers.values():
                looking.graph.output.add(name=value)
            self._seen = self._session(looking)
        given = checked(self.entries, bound(self.entries, x, named), self.info)
        found = zip(self._neurons(), self._run(self._seen, given, list(layers.values())), strict=True)
        trains = {node.name: self._by_step(value) if _counts(node) else value for node, value in found}
        return {name: value.to(given.device) for name, value in trains.items()}

    def _by_step(self, counts: Tensor) -> Tensor:
        """Spikes `[T * B, ...]` of what was counted up to each step, images with their channels last."""
        steps = counts.float().unflatten(0, (self._simulated, -1))
        spikes = torch.cat([steps[:1], steps[1:] - steps[:-1]]).flatten(0, 1)
        return spikes.permute(0, 3, 1, 2).contiguous() if spikes.dim() == 4 else spikes

    def layers(self) -> dict[str, str]:
        """Names of neuron layers, and of the values that they give, in order."""
        return {node.name: node.output[0] for node in self._neurons()}

    def heights(self) -> Trains:
        """See `SpikingNetwork`.

        Raises:
            LoadError: thresholds that are no numbers of the file.
        """
        from onnx import numpy_helper

        numbers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        found: dict[str, Tensor] = {}
        for node in self._neurons():
            found_as = neuron_of(node.op_type, _NEURONS)
            if found_as and found_as[1]:  # a spike is a number
                found[node.name] = torch.ones(())
                continue
            if (theta := numbers.get(node.input[1])) is None:
                raise LoadError(f"The thresholds of '{node.name}' are no numbers of the file.", "compile again")
            found[node.name] = torch.from_numpy(numpy_helper.to_array(theta).copy())
        return found

    def _neurons(self) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if node.domain == DOMAIN and neuron_of(node.op_type, _NEURONS)]

    def _parts(self, x: Any, named: Any) -> list[Samples]:
        given = checked(self.entries, bound(self.entries, x, named), self.info)
        return list(given.split(max(1, counted(self.chunk) // self._simulated)))

    def _session(self, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), self.options, providers=providers(self.device, self.stage is Stage.FIXED)
            )
        except SnncError:
            raise
        except Exception as error:  # onnxruntime's errors share no base
            hint = _IN_FLOATS if any(_counts(node) for node in self._neurons()) else "compile again"  # before 1.24
            raise LoadError(f"onnxruntime does not take the model: {_first_line(error)}.", hint) from error
        if self.device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise SnncError(
                "onnxruntime could not start CUDA, so it would run on the CPU.",
                "the CUDA and cuDNN that this onnxruntime-gpu was built for",
            )
        return session

    def _run(self, session: onnxruntime.InferenceSession, x: Samples, names: list[str]) -> list[Tensor]:
        """One round: some outputs, on the device of the session where torch has that, else on the CPU."""
        here = self.device if self.device.type == "cpu" or torch.cuda.is_available() else torch.device("cpu")
        values = [one.to(here).contiguous() for one in each(x)]
        binding, index = session.io_binding(), here.index or 0
        for entry, one in zip(session.get_inputs(), values, strict=True):
            kind = np.float32 if one.is_floating_point() else np.int64
            binding.bind_input(entry.name, here.type, index, kind, tuple(one.shape), one.data_ptr())
        shapes = {output.name: output.shape for output in session.get_outputs()}
        made: dict[str, Tensor] = {}
        for name in names:
            shape = [len(values[0]) if size == BATCH else size for size in shapes[name] or [None]]
            if all(isinstance(size, int) for size in shape):
                made[name] = torch.empty(shape, dtype=torch.float32, device=here)
                binding.bind_output(name, here.type, index, np.float32, shape, made[name].data_ptr())
            else:  # a shape that only the run tells
                binding.bind_output(name, "cpu")
        try:
            if here.type == "cuda":
                torch.cuda.current_stream(here).synchronize()  # the input may still be on its way
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:  # onnxruntime's errors share no base
            raise DataError(
                f"An input of shape {' and '.join(str(tuple(one.shape)) for one in values)} does not go through the "
                f"network: {_first_line(error)}.",
                "samples of the shape that the network was trained on",
            ) from error
        free = [name for name in names if name not in made]
        if free:
            given = dict(zip(names, binding.get_outputs(), strict=True))
            made.update({name: torch.from_numpy(given[name].numpy()) for name in free})
        result = [made[name] for name in names]
        if not all(torch.isfinite(value).all() for value in result):
            raise DataError("The network's output is NaN or infinite.", "input in the range that it was trained on")
        return result


def quiet_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Options of a session that logs nothing and has `threads` threads, by default as many as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or torch.get_num_threads()
    return options


def named(device: str | torch.device) -> torch.device:
    """A device by its name.

    Raises:
        SnncError: no such name.
    """
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise SnncError(f"'{device}' is no device.", "cpu, cuda or cuda:1") from error


def providers(device: torch.device, integers: bool = False) -> list[Any]:
    """What onnxruntime should run on.

    Args:
        device: cpu or cuda.
        integers: sums of integers are to be exact.

    Raises:
        SnncError: a device that it does not have.
    """
    import onnxruntime

    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if device.type != "cuda":
        raise SnncError(f"ONNX files run on cpu or cuda, not on '{device}'.", "--device cpu or --device cuda")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise SnncError(
            "This onnxruntime runs on the CPU only.",
            "pip uninstall onnxruntime, then pip install 'snnc[gpu]'; the two packages overwrite each other",
        )
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: CUDA and cuDNN of torch's own packages
        onnxruntime.preload_dlls()
    # TF32 rounds weights and inputs: floats would spike differently, fixed-point networks of 8 bits would not.
    cuda: dict[str, Any] = {"device_id": device.index or 0, "use_tf32": 0}
    if integers:  # the fastest convolution may add other numbers than the products; cuDNN's default does not
        cuda["cudnn_conv_algo_search"] = "DEFAULT"
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _counts(node: onnx.NodeProto) -> bool:
    """Whether a layer of neurons gives counts."""
    found = neuron_of(node.op_type, _NEURONS)
    return found is not None and found[1] in COUNTING


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


def load_emitted(
    path: Path,
    chunk: int = CHUNK,
    device: str | torch.device = "cpu",
    options: onnxruntime.SessionOptions | None = None,
) -> OnnxNetwork:
    """An emitted `.onnx`.

    Raises:
        LoadError: not one that snnc wrote, damaged, or refused.
        SnncError: no such device here.
    """
    model, info = read_emitted(path)
    return OnnxNetwork(model, info, chunk, device, options)
