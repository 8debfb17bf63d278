"""How far rounding drives the outputs of a graph: it is run in single and in double precision on the same batch."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import calls, module_of
from snnc.structure import Samples, changed, each, named

MOST = 16


class Runs:
    """A graph on one batch: in single precision, and in double precision where that is asked for.

    Args:
        graph: without time.
        x: the batch.
        precision: what the network rounds to, relative.
        halves: whether its sigmoids are off by a rounding of one half, however small they are.
    """

    def __init__(self, graph: fx.GraphModule, x: Samples, precision: float, halves: bool = False) -> None:
        self.graph, self.x, self.precision, self.halves = graph, x, precision, halves
        self.single = _Traced(graph)
        self.have = named(self.single.run(*each(x)))
        self.layers = sum(1 for _ in calls(graph))

    @cached_property
    def exact(self) -> tuple[dict[str, Tensor], Tensor]:
        """The outputs in double precision, and which samples `[B]` stand on the edge of a level."""
        double = _Traced(self.graph, torch.float64)
        found = named(double.run(*each(self.x.double())))
        edge = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        for node, module in calls(self.graph, ClipQuant):
            edge |= _on_edge(module, self.single.inputs[node], double.inputs[node])
        return found, edge

    @cached_property
    def shaken(self) -> dict[str, Tensor]:
        """The outputs in double precision where every sigmoid is off as `halves` says."""
        run = _Traced(self.graph, torch.float64, self.precision / 4)
        return named(run.run(*each(self.x.double())))

    def apart(self, name: str, want: Tensor) -> tuple[float, float, bool]:
        """Of one output the largest difference, the bound, both relative to its largest value; and if it is beyond."""
        have = self.have[name]
        if len(self.x) == 1 and have.numel() == want.numel():
            want = want.reshape(have.shape)  # `x.squeeze()` takes out a batch of one as well
        if have.shape != want.shape or have.shape[:1] != (len(self.x),):
            return math.inf, 0.0, True
        want = want.double()
        finite = torch.isfinite(want)
        if (
            not torch.allclose(have.double()[~finite], want[~finite], equal_nan=True)
            or not have[finite].isfinite().all()
        ):
            return math.inf, 0.0, True
        have, want = (torch.where(finite, value, 0) for value in (have, want))
        off = _off(have, want)
        scale = float(want.abs().max().clamp_min(torch.finfo(torch.float32).tiny)) if want.numel() else 1.0
        bound = self.precision * (8 + self.layers) * scale
        if not off.numel() or off.max() <= bound:  # one rounding a layer: nothing has to be measured
            return float(off.max()) / scale if off.numel() else 0.0, bound / scale, False
        double, edge = self.exact
        double = {name: torch.where(finite, double[name], 0)}
        noise = _off(have, double[name])
        if self.halves:
            noise = torch.maximum(noise, _off(torch.where(finite, self.shaken[name], 0), double[name]))
        calm = ~edge if (~edge).any() else edge
        bound += MOST * float(noise[calm].max())
        beyond = off.amax(1) > bound
        # A value on the edge of a level may jump over it, and a whole level is more than rounding.
        parts = bool((beyond & ~edge).any()) or bool(beyond.all() and not self._jumps(name, off, bound))
        return float(off[calm].max()) / scale, bound / scale, parts

    def _jumps(self, name: str, off: Tensor, bound: float) -> bool:
        """Whether the graph itself differs as much where its input is shaken by a few roundings.

        Asked where no sample is free of values on the edge of a level, as in wide networks.
        """
        shaker = torch.Generator(self.x.device).manual_seed(1)
        shaken = torch.zeros_like(off)

        def shake(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x
            noise = torch.randn(x.shape, generator=shaker, device=x.device, dtype=x.dtype)
            return x + x.abs().max() * MOST * torch.finfo(torch.float32).eps * noise

        for _ in range(4):
            moved = named(self.graph(*each(changed(shake, self.x))))[name]
            shaken = torch.maximum(
                shaken, _off(moved, self.have[name]).nan_to_num(0.0, 0.0)
            )  # what is infinite in both
        return bool(off.norm() <= 2 * shaken.norm() + bound)


def _off(a: Tensor, b: Tensor) -> Tensor:
    """How far two outputs are apart, `[B, ...]` to `[B, values]`."""
    return (a.double() - b.double()).abs().reshape(len(a), -1)


def _on_edge(module: ClipQuant, single: Tensor, double: Tensor) -> Tensor:
    """The samples `[B]` in which a value stands so near the edge of a level that rounding may carry it over."""
    lam = module.lam.double()
    level = double * module.L / lam + module.shift
    near = torch.floor(level + 0.5)
    noise = ((single.double() - double).abs() * module.L / lam).flatten().median()
    slack = MOST * (noise + torch.finfo(torch.float32).eps * near.clamp(1, module.L))
    return (((level - near).abs() <= slack) & (near >= 1) & (near <= module.L)).reshape(len(near), -1).any(1)


class _Traced(fx.Interpreter):
    """Runs a graph in one precision, a layer at a time, and keeps what reaches its quantisers.

    Args:
        graph: to run.
        dtype: precision; None is the graph's own.
        shake: by how much, up or down at random, each sigmoid is off.
    """

    def __init__(self, graph: fx.GraphModule, dtype: torch.dtype | None = None, shake: float = 0.0) -> None:
        super().__init__(graph)
        self.graph_module, self.dtype, self.shake = graph, dtype, shake
        self.signs = torch.Generator().manual_seed(2)
        self.inputs: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module" and isinstance(module_of(self.graph_module, n), ClipQuant):
            self.inputs[n] = self.env[n.all_input_nodes[0]]
        return super().run_node(n)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if self.dtype is None:
            return module(*args)
        state = {k: v.to(self.dtype) for k, v in module.state_dict().items() if v.is_floating_point()}
        y = torch.func.functional_call(module, state, args)
        if not self.shake or not isinstance(module, (nn.Sigmoid, nn.SiLU)):
            return y
        sign = torch.randint(2, y.shape, generator=self.signs).to(y) * 2 - 1
        return y + self.shake * sign * (args[0] if isinstance(module, nn.SiLU) else 1.0)
