"""Quantised activations, recognised in the arithmetic that their authors wrote.

Training code spells a quantised activation as a chain of elementwise operations around a rounding, such as
`floor(clamp(x, 0, 1) * T) / T` (CQ: Yan, Zhou and Wong, AAAI 2021) or
`floor(clamp(x / lam, 0, 1) * L + 0.5) / L * lam` (QCFS: Bu et al., ICLR 2022). Any such chain reduces to

    y = offset + step * clip(floor(gain * x + shift), low, high)

since a clip commutes with scaling and with rounding. Where `offset + step * low` is zero, that is a `ClipQuant` with
`lam = (high - low) / gain` and `L = high - low`, times `gain * step`, which is 1 as a rule. A chain without a clip is
bounded where everything upstream of it is. What was found is then compared with the chain on a dense grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture.bounds import CLIPS, ROUNDINGS, Clamp, Intervals, Round, double, ends
from snnc.capture.values import author_line
from snnc.errors import Blocker
from snnc.ir import curved, dialect
from snnc.ir.graph import calls, insert, module_of, remove, replace

GRID = 4096
NEAR_TIE = 1e-5
REACH = 8  # elementwise nodes on either side of a rounding; authors write five


class Misfit(Exception):
    """A chain is no quantised activation; the message says why."""


@dataclass
class Chain:
    """`offset + step * clip(floor(gain * x + shift), low, high)`; before the rounding, without the floor."""

    gain: Tensor
    shift: Tensor
    low: Tensor
    high: Tensor
    step: Tensor = field(default_factory=lambda: torch.tensor(1.0, dtype=torch.float64))
    offset: Tensor = field(default_factory=lambda: torch.tensor(0.0, dtype=torch.float64))
    rounded: bool = False

    def scale(self, scale: Tensor, shift: Tensor) -> None:
        if not (scale > 0).all():
            raise Misfit("it scales by a number that is not positive")
        if self.rounded:
            self.step, self.offset = self.step * scale, self.offset * scale + shift
        else:
            self.gain, self.shift = self.gain * scale, self.shift * scale + shift
            self.low, self.high = self.low * scale + shift, self.high * scale + shift

    def clip(self, low: Tensor, high: Tensor) -> None:
        low, high = (low - self.offset) / self.step, (high - self.offset) / self.step
        self.low = torch.minimum(torch.maximum(self.low, low), high)
        self.high = torch.minimum(torch.maximum(self.high, low), high)

    def round(self, half: bool) -> None:
        if self.rounded:
            raise Misfit("it rounds twice")
        if half:
            self.shift, self.low, self.high = self.shift + 0.5, self.low + 0.5, self.high + 0.5
        # A clip bound such as 8 * 0.1 * 10 is an integer but for rounding; floor must not lose a level to that.
        self.low, self.high = (torch.floor(torch.where(_near_integers(b), b.round(), b)) for b in (self.low, self.high))
        self.rounded = True


def _near_integers(value: Tensor) -> Tensor:
    return (value - value.round()).abs() < 1e-4


def fit(chain: Sequence[nn.Module], low: float, high: float) -> tuple[dialect.ClipQuant, Tensor, Tensor]:
    """The `ClipQuant` that a chain is, and the scale and shift that come after it (1 and 0 as a rule).

    Args:
        chain: elementwise modules, in order.
        low: least value of the chain's input.
        high: greatest value of the chain's input.

    Raises:
        Misfit: the chain is no quantised activation.
    """
    one, zero = double(1.0), double(0.0)
    form = Chain(one, zero, double(low), double(high))
    for module in chain:
        if isinstance(module, dialect.Affine):
            form.scale(double(module.scale), double(module.shift))
        elif isinstance(module, ROUNDINGS):
            form.round(isinstance(module, Round))
        else:
            form.clip(*ends(module))
    levels, shift = form.high - form.low, form.shift - form.low
    if not torch.isfinite(levels).all():
        raise Misfit("nothing bounds it, so it has no number of levels")
    if not (
        _near_integers(levels).all() and (levels.round() == levels.round().flatten()[0]).all() and (levels > 0.5).all()
    ):
        raise Misfit("its number of levels is not one positive integer")
    if not ((shift > -1e-6) & (shift < 1)).all():
        raise Misfit(f"it rounds with a shift of {shift.min().item():.4g}, outside 0 to 1")
    shift = shift.clamp(min=0.0)
    if (shift - shift.flatten()[0]).abs().max() > 1e-6:
        raise Misfit("its shift differs between channels")
    count = int(levels.round().flatten()[0])
    lam = (count / form.gain).float()
    quant = dialect.ClipQuant(lam, count, round(float(shift.flatten()[0]), 6))
    scale, rest = form.gain * form.step, form.offset + form.step * form.low
    scale = torch.where((scale - 1).abs() < 1e-5, one, scale)
    rest = torch.where(rest.abs() < 1e-6 * (1 + form.step.abs() * count), zero, rest)
    _compare(chain, quant, scale, rest, low, high)
    return quant, scale.float(), rest.float()


def _compare(
    chain: Sequence[nn.Module], quant: dialect.ClipQuant, scale: Tensor, rest: Tensor, low: float, high: float
) -> None:
    """Checks a fit on a grid; points next to a rounding tie may go either way."""
    ticks = torch.linspace(-0.5, 1.5, GRID, dtype=torch.float64)
    # One point for each tick and channel: the last dimensions are those of the bound.
    x = ticks.reshape(-1, *[1] * max(quant.lam.dim(), 1)) * double(quant.lam)
    x = x.clamp(low, high).float()
    with torch.no_grad():
        want: Tensor = x
        for module in chain:
            want = module(want)
        have = quant(x) * scale.float() + rest.float()
        level = x.double() * quant.L / double(quant.lam) + quant.shift
    tie = (level - level.round()).abs() <= NEAR_TIE * level.abs().clamp(min=1.0)
    off = (want - have).abs() > 1e-4 * (want.abs() + double(quant.lam / quant.L).float() * scale.float())
    if (off & ~tie).any():
        raise Misfit("on a grid of values it differs from the quantised activation that it resembles")


def recognise(graph: fx.GraphModule) -> list[Blocker]:
    """Puts a `ClipQuant` in the place of every chain around a rounding, a ReLU or `Hardtanh` in that of other clips.

    Returns:
        Those that are neither.
    """
    _straight_through(graph)
    blockers: list[Blocker] = []
    seen: set[fx.Node] = set()
    known = Intervals(graph)
    for node, module in list(calls(graph, *ROUNDINGS)):
        if graph._modules.get(str(node.target)) is not module:
            continue  # it was part of an earlier chain
        try:
            _replace_chain(graph, *_best(graph, node, known))
        except Misfit as misfit:
            why = f"rounds, but is no quantised activation: {misfit}"
            hint = "clip and round as in floor(clamp(x / lam, 0, 1) * L + 0.5) / L * lam, or snnc.ir.dialect.ClipQuant"
            blockers.append(Blocker(node.name, type(module).__name__.lower(), why, hint, author_line(node)))
            seen.update(*_reach(graph, node))
    for node, _ in list(calls(graph, Clamp)):
        if node not in seen:
            _settle(graph, node, known)
    return blockers


Found = tuple[list[fx.Node], dialect.ClipQuant, Tensor, Tensor]


def _best(graph: fx.GraphModule, rounding: fx.Node, known: Intervals) -> Found:
    """The chain around a rounding that makes the best `ClipQuant`.

    That is one with no clip left beside it, no arithmetic after it, a shift that papers use, and then the longest.

    Raises:
        Misfit: there is none; says what is wrong with the longest.
    """
    before, after = _reach(graph, rounding)
    reason = Misfit("it stands alone")
    found: list[tuple[tuple[Any, ...], Found]] = []
    ends = [(i, j) for i in range(len(before) + 1) for j in range(len(after) + 1)]
    for i, j in sorted(ends, key=lambda end: end[1] - end[0]):
        chain = [*before[i:], rounding, *after[:j]]
        try:
            quant, scale, rest = fit([module_of(graph, n) for n in chain], *known[chain[0].all_input_nodes[0]])
        except Misfit as misfit:
            reason = misfit
            continue
        clips = sum(isinstance(module_of(graph, n), CLIPS) for n in (*before[:i], *after[j:]))
        more = bool((scale != 1).any() or (rest != 0).any())
        found.append(((clips, more, quant.shift not in (0.0, 0.5), -len(chain)), (chain, quant, scale, rest)))
    if not found:
        raise reason
    return min(found, key=lambda candidate: candidate[0])[1]


def _reach(graph: fx.GraphModule, rounding: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """The elementwise nodes right before and right after a rounding that nothing else reads.

    At most `REACH` on either side, and up to the next rounding: what rounds twice is no quantised activation.
    """

    def joins(node: fx.Node, chain: list[fx.Node]) -> bool:
        if len(chain) == REACH or node.op != "call_module":
            return False
        fits = isinstance(module_of(graph, node), (*CLIPS, *ROUNDINGS, dialect.Affine))
        return fits and not (chain and isinstance(module_of(graph, chain[-1]), ROUNDINGS))

    before: list[fx.Node] = []
    node = rounding.all_input_nodes[0]
    while joins(node, before) and len(node.users) == 1:
        before.append(node)
        node = node.all_input_nodes[0]
    after: list[fx.Node] = []
    node = rounding
    while len(node.users) == 1 and joins(user := next(iter(node.users)), after):
        after.append(user)
        node = user
    return before[::-1], after


def _replace_chain(
    graph: fx.GraphModule, chain: list[fx.Node], quant: dialect.ClipQuant, scale: Tensor, rest: Tensor
) -> None:
    last, source = chain[-1], chain[0].all_input_nodes[0]
    words = zip(*(n.name.split("_") for n in chain), strict=False)
    name = "_".join(w[0] for w in itertools.takewhile(lambda w: len(set(w)) == 1, words)) or "clipquant"
    new = insert(graph, name, quant, last)
    new.meta.update(last.meta)
    new.args = (source,)
    result = new
    if not ((scale == 1).all() and (rest == 0).all()):
        scale, rest = (v.clone() for v in torch.broadcast_tensors(scale, rest))
        result = insert(graph, f"{name}_scale", dialect.Affine(scale, rest), new)
    last.replace_all_uses_with(result)
    for node in reversed(chain):
        graph.graph.erase_node(node)
        delattr(graph, str(node.target))


def _settle(graph: fx.GraphModule, node: fx.Node, known: Intervals) -> None:
    """Turns a `Clamp` that clips at zero into a ReLU or a `Hardtanh`, and any other into a `Clip`."""
    clamp = module_of(graph, node)
    low, high = ends(clamp)
    low = low.clamp(min=known[node.all_input_nodes[0]][0])
    if torch.isinf(low).all() and torch.isinf(high).all():
        remove(graph, node)
    elif not (low == 0).all() or not (high > 0).all():
        replace(graph, node, curved.Clip(*(None if b is None else torch.as_tensor(b) for b in (clamp.low, clamp.high))))
    elif high.dim():
        _unit_clip(graph, node, torch.as_tensor(clamp.high).detach())
    else:
        replace(graph, node, nn.ReLU() if torch.isinf(high) else nn.Hardtanh(0.0, float(high)))


def merge_clips(graph: fx.GraphModule) -> None:
    """Takes out a ReLU whose value only another clip at zero reads: two neurons in a row would be one too many."""
    for node, _ in list(calls(graph, nn.ReLU, nn.Hardtanh)):
        source = node.all_input_nodes[0]
        if source.op == "call_module" and isinstance(module_of(graph, source), nn.ReLU) and len(source.users) == 1:
            remove(graph, source)


def _unit_clip(graph: fx.GraphModule, node: fx.Node, high: Tensor) -> None:
    """A clip with one bound for each channel: scaled to 1, clipped there, and scaled back."""
    source = node.all_input_nodes[0]
    if isinstance(graph._modules.get(str(source.target)), nn.ReLU) and len(source.users) == 1:
        remove(graph, source)
        source = node.all_input_nodes[0]
    node.args = (insert(graph, f"{node.name}_unit", dialect.Affine(1 / high, torch.zeros_like(high)), source),)
    after = insert(graph, f"{node.name}_scale", dialect.Affine(high.clone(), torch.zeros_like(high)), node)
    node.replace_all_uses_with(after, delete_user_cb=lambda user: bool(user is not after))
    replace(graph, node, nn.Hardtanh(0.0, 1.0))


def _straight_through(graph: fx.GraphModule) -> None:
    """`(q(x) - x).detach() + x` is `q(x)`: that is how a gradient is led around a rounding."""
    for node, _ in list(calls(graph, dialect.Add)):
        for difference, other in (node.args, node.args[::-1]):
            assert isinstance(difference, fx.Node)
            if difference.op != "call_module" or not isinstance(module_of(graph, difference), dialect.Sub):
                continue
            rounded, base = difference.args
            if base is other and isinstance(rounded, fx.Node) and _rounds(graph, rounded, base):
                node.replace_all_uses_with(rounded)
                for gone in (node, difference):
                    if not gone.users:
                        graph.graph.erase_node(gone)
                        delattr(graph, str(gone.target))
                break


def _rounds(graph: fx.GraphModule, node: fx.Node, source: Any) -> bool:
    """Whether a chain from `source` to `node` holds a rounding."""
    for _ in range(REACH):
        if node is source or node.op != "call_module" or len(node.all_input_nodes) != 1:
            return False
        module = module_of(graph, node)
        if isinstance(module, ROUNDINGS):
            return True
        if not isinstance(module, (*CLIPS, dialect.Affine)):
            return False
        node = node.all_input_nodes[0]
    return False
