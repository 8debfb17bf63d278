"""Layers with 8-bit weights on spikes in bytes, on NVIDIA's GPUs, together with the neurons behind them.

A layer of a fixed-point network and its neurons are one kernel: a block of sums stays in registers, goes through the
neurons there, and leaves as bytes. Currents, four times as large as all else together, are never stored.
"""

from __future__ import annotations

import copy
import math
from functools import cache

import torch
from torch import Tensor, nn

from snnc.runtime.cpu.integer import narrowed
from snnc.runtime.cpu.scan import Scan

PLACES = (128, 64, 32, 16)  # of one program, most first
STAGES = 3  # of loads under way


class GpuLayer:
    """A convolution or linear layer of bytes `0 .. 127`, called as those of `snnc.runtime.cpu.integer` are.

    Attributes:
        module: the layer.
        counts: its output is bytes, and float32 otherwise.
        scan: the neurons behind it that it runs too, if any.
    """

    def __init__(self, module: nn.Conv2d | nn.Linear, narrow: Tensor, unit: Tensor, counts: bool) -> None:
        self.module, self.counts = module, counts
        device = module.weight.device
        outputs = len(narrow)
        self.each = isinstance(module, nn.Conv2d) and module.groups > 1
        self.block_n = min(128, max(16, _power(outputs)))
        if self.each:
            self.block_k, weight = 32, narrow.reshape(outputs, -1).t()
        else:
            # The channels of neighbouring places lie side by side: a line of a kernel is one run of bytes.
            lines = narrow.permute(0, 2, 3, 1).flatten(2) if narrow.dim() == 4 else narrow[:, None]
            self.block_k = _block_k(lines.shape[2])
            weight = nn.functional.pad(lines, (0, -lines.shape[2] % self.block_k))
        self.weight = weight.contiguous().to(device)
        self.unit = unit.to(device)
        self.bias = torch.zeros_like(self.unit) if module.bias is None else module.bias.detach().clone()
        self.scan: Scan | None = None
        self.patterns = (*[self.unit] * 4, self.unit[None])  # which nobody reads

    def firing(self, scan: Scan) -> GpuLayer | None:
        """This layer with the neurons behind it, which `scan` describes, and with what is added in front of them.

        None if their values are for something else than the outputs, as behind a linear layer on maps.
        """
        one, neuron, outputs = copy.copy(self), scan.neuron, len(self.unit)
        own = (neuron.theta, neuron.v0, *(p for p in (scan.factor,) if p is not None))
        own = (*own, *(() if scan.shift is None else scan.shift[:1]))
        if any(p.numel() not in (1, outputs) or (p.dim() > 2 and p.shape[-3] != p.numel()) for p in own):
            return None
        one.scan = scan
        factor = neuron.theta if scan.factor is None else scan.factor
        every = (p.to(self.unit) for p in (factor, neuron.theta, neuron.height, neuron.v0))
        shift = neuron.theta[None] if scan.shift is None else scan.shift
        flat = shift.reshape(len(shift), -1).expand(len(shift), outputs).contiguous()
        one.patterns = (*(p.reshape(-1).expand(outputs).contiguous() for p in every), flat)
        return one

    def __call__(self, x: Tensor) -> Tensor:
        """Currents `[rows, ...]` of bytes `[rows, ...]`."""
        if isinstance(self.module, nn.Linear) and x.dim() > 2:
            return self(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return self._run(None, None, 1, 0, x, None)[1]

    def takes(self, x: Tensor, joined: Tensor | None = None) -> bool:
        """Whether one kernel serves for the layer and its neurons.

        Not for a linear layer on maps `[rows, ..., features]`, whose outputs are no channels as neurons count them, or
        for an addition that repeats a value.
        """
        if isinstance(self.module, nn.Linear) and x.dim() > 2:
            return False
        return joined is None or joined.shape == (len(x), len(self.unit), *self._size(x))

    def fills(self, x: Tensor, steps: int) -> bool:
        """Whether one kernel for all steps has work for the whole GPU; if not, steps had better run side by side."""
        places = len(x) // steps * math.prod(self._size(x))
        return self._programs(places, PLACES[1]) >= _multiprocessors(self.unit.device)

    def fire(
        self, state: Tensor | None, steps: int, begin: int, x: Tensor, joined: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs `steps` steps of a layer that is `firing`.

        Args:
            state: potentials of an earlier call, or None.
            steps: how many.
            begin: the first of them, which selects the currents of single steps.
            x: bytes `[steps * B, ...]`.
            joined: what is added to the current, `[steps * B, ...]`, laid out in memory as it.

        Returns:
            The state, and bytes or floats `[steps * B, ...]`.
        """
        return self._run(self.scan, state, steps, begin, x, joined)

    def _run(
        self, scan: Scan | None, state: Tensor | None, steps: int, begin: int, x: Tensor, joined: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        from snnc.runtime.gpu.kernels import layer  # here: Triton is not everywhere

        module, rows = self.module, len(x) // steps
        out = self._room(x, self.counts if scan is None else scan.counts)
        size, room = x.shape[2:] or (1, 1), out.shape[2:] or (1, 1)
        if isinstance(module, nn.Conv2d):
            x = x.contiguous(memory_format=torch.channels_last)
            kernel, geometry = module.kernel_size, (*module.stride, *module.padding, *module.dilation)
        else:
            x, kernel, geometry = x.contiguous(), (1, 1), (1, 1, 0, 0, 1, 1)
        places, outputs = rows * room[0] * room[1], len(self.unit)
        factor, theta, height, v0, shift = self.patterns
        first = state is None
        if state is None:
            state = torch.empty(places * outputs if scan else 0, dtype=torch.float32, device=x.device)
        block_m = self._block(places)
        warps = 8 if block_m * self.block_n > 128 * 64 or self.block_n == 32 else 4  # as measured on an H200
        with torch.cuda.device_of(x):
            layer[-(-places // block_m), -(-outputs // self.block_n)](
                x.view(torch.int8),
                self.weight,
                self.unit,
                self.bias,
                x if joined is None else joined,
                factor,
                shift[begin:] if len(shift) > 1 else shift,
                theta,
                height,
                v0,
                state,
                out,
                places,
                steps,
                x.numel() // steps,
                places * outputs,
                outputs if len(shift) > 1 else 0,
                *size,
                *room,
                channels=x.shape[1],
                outputs=outputs,
                room=self.weight.shape[-1],
                tall=kernel[0],
                wide=kernel[1],
                down=geometry[0],
                along=geometry[1],
                above=geometry[2],
                before=geometry[3],
                apart_down=geometry[4],
                apart_along=geometry[5],
                each=self.each,
                fires=scan is not None,
                first=first,
                joined=joined is not None,
                scaled=scan is not None and scan.factor is not None,
                shifted=scan is not None and scan.shift is not None,
                block_m=block_m,
                block_n=self.block_n,
                block_k=self.block_k,
                num_warps=warps,
                num_stages=STAGES,
                enable_fp_fusion=False,
            )
        return state, out

    def _room(self, x: Tensor, counts: bool) -> Tensor:
        """Memory for the output."""
        module, kind = self.module, torch.uint8 if counts else torch.float32
        if isinstance(module, nn.Linear):
            return torch.empty(len(x), module.out_features, dtype=kind, device=x.device)
        shape = (len(x), module.out_channels, *self._size(x))
        return torch.empty(shape, dtype=kind, device=x.device, memory_format=torch.channels_last)

    def _size(self, x: Tensor) -> list[int]:
        """Lines and columns of the output."""
        module = self.module
        if isinstance(module, nn.Linear):
            return []
        padding = [int(p) for p in module.padding]
        each = zip(x.shape[2:], module.kernel_size, module.stride, padding, module.dilation, strict=True)
        return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each]

    def _block(self, places: int) -> int:
        """Places of one program: many, for fewer reads of weights, and still a program for every multiprocessor."""
        enough = _multiprocessors(self.unit.device)
        return next((size for size in PLACES if self._programs(places, size) >= enough), PLACES[-1])

    def _programs(self, places: int, size: int) -> int:
        return -(-places // size) * -(-len(self.unit) // self.block_n)


def packed(module: nn.Module, counts: bool = False) -> GpuLayer | None:
    """A layer that takes bytes `0 .. 127`, or None where this layer has none."""
    found = narrowed(module)
    if found is None or not isinstance(module, nn.Conv2d | nn.Linear):
        return None
    if isinstance(module, nn.Conv2d) and module.groups > 1 and set(module.weight.shape[:2]) != {module.groups, 1}:
        return None
    return GpuLayer(module, *found, counts)


def _block_k(length: int) -> int:
    """Bytes of a line of a kernel that are multiplied at once: few rounds, of little padding."""
    sizes = [size for size in (128, 64, 32) if size < 2 * length] or [32]
    return min(sizes, key=lambda size: -(-length // size) * (size + 32))


def _power(n: int) -> int:
    """The power of two from n up."""
    return 1 << max(0, n - 1).bit_length()


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
