"""Sums over samples of what differs between two networks. Several outputs are compared as one row of numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from snnc.differences.report import Differences, LayerDifference
from snnc.errors import DataError, SnncError
from snnc.networks.base import Trains
from snnc.structure import Tree, alike, leaves, named


def _row(tree: Tree) -> Tensor:
    """Outputs after each step, several as one row of numbers for each sample."""
    return tree if isinstance(tree, Tensor) else torch.cat([one.flatten(2) for one in leaves(tree)], 2)


@dataclass
class _Layer:
    differ: int = 0
    places: int = 0
    spikes: int = 0
    step: int | None = None


@dataclass
class Count:
    """The sums.

    Attributes:
        exact: nothing may differ.
        rounded: a softmax stands behind the readout.
        a_heights, b_heights: height of one spike of every layer that can be looked into.
    """

    exact: bool
    rounded: bool
    a_heights: Trains
    b_heights: Trains
    samples: int = 0
    layers: dict[str, _Layer] | None = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    touched: int = 0
    outputs: Tensor | None = None
    logits: float = 0.0
    predictions: Tensor | None = None
    right: list[int] = field(default_factory=lambda: [0, 0, 0])
    apart: list[int] = field(default_factory=lambda: [0, 0])
    labelled: int = 0
    ann: bool = False
    classes: tuple[Tensor, Tensor] | None = None

    def add(self, a: tuple[Tree, Trains | None], b: tuple[Tree, Trains | None], y: Tensor | None) -> None:
        """Some more samples: the outputs after each step, and what every neuron layer emits."""
        if not alike(a[0], b[0]):
            raise SnncError(
                f"The two networks return different outputs: {', '.join(named(a[0]))} and {', '.join(named(b[0]))}.",
                "two forms of one network, or two networks for one task",
            )
        shapes = [[tuple(one.shape[2:]) for one in leaves(tree)] for tree, _ in (a, b)]
        if len(shapes[0]) > 1 and shapes[0] != shapes[1]:
            raise SnncError(
                f"The two networks give outputs of shapes {shapes[0]} and {shapes[1]}, which cannot be compared.",
                "two forms of one network, or two networks for one task",
            )
        mine, yours = self._aligned(_row(a[0]), _row(b[0]))
        n = mine.shape[1]
        self.samples += n
        differ = (mine != yours).flatten(1).sum(1)
        self.outputs = differ if self.outputs is None else self.outputs + differ
        self.logits = max(self.logits, float((mine.double() - yours.double()).abs().max()))
        other_class = torch.zeros(n, dtype=torch.bool)
        if isinstance(a[0], Tensor) and mine.dim() == 3 and mine.shape[-1] > 1:
            guesses = mine.argmax(-1), yours.argmax(-1)
            apart = guesses[0] != guesses[1]
            other, other_class = apart.sum(1), apart.any(0)
            self.predictions = other if self.predictions is None else self.predictions + other
            self.classes = guesses[0][-1], guesses[1][-1]
            if y is not None:
                self._score(y, mine.shape[-1])
        touched = self._compare(a[1], b[1], n)
        if touched is None or (self.exact and not self.rounded):
            output = (mine != yours).movedim(1, 0).flatten(1).any(1)
            touched = output if touched is None else touched | output
        self.touched += int((touched | other_class).sum())

    def _aligned(self, mine: Tensor, yours: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs after the same steps."""
        if mine.shape[1:] != yours.shape[1:]:
            shapes = f"{tuple(mine.shape[2:])} and {tuple(yours.shape[2:])}"
            raise SnncError(
                f"The two networks give outputs of shapes {shapes}, which cannot be compared.",
                "two forms of one network, or two networks for one task",
            )
        if len(mine) != len(yours):
            self._note(f"One is read out after {len(mine)} steps and the other after {len(yours)}: only the last "
                       "outputs are compared.")  # fmt: skip
            return mine[-1:], yours[-1:]
        return mine, yours

    def _score(self, y: Tensor, classes: int) -> None:
        if int(y.max()) >= classes:
            raise DataError(
                f"A label is {int(y.max())}, and the networks have {classes} classes.", "labels from 0 to classes - 1"
            )
        self.labelled += len(y)
        for index, guess in enumerate(self.classes or ()):
            self.right[index] += int((guess == y).sum())

    def beside(self, wanted: Tensor, y: Tensor | None) -> None:
        """What the original network says of the samples that came last."""
        if self.classes is None:
            return
        self.ann = True
        for index, guess in enumerate(self.classes):
            self.apart[index] += int((guess != wanted).sum())
        if y is not None:
            self.right[2] += int((wanted == y).sum())

    def _compare(self, a: Trains | None, b: Trains | None, samples: int) -> Tensor | None:
        """Counts spikes; gives the samples in which any differs, or None where they cannot be compared."""
        if self.layers is None:
            return None
        if a is None or b is None:
            self.layers = None
            which = " and ".join(name for name, trains in (("A", a), ("B", b)) if trains is None)
            self._note(
                f"{which} cannot be looked into (an exported program, .pt2), so no spikes were counted; outputs were "
                "compared to the bit, after every step."
            )
            return None
        if set(a) != set(b) or any(a[name].shape != b[name].shape for name in a):
            self.exact = False
            self.layers = None
            self._note("The two have other neuron layers, so they are different networks: only outputs were compared.")
            return None
        touched = torch.zeros(samples, dtype=torch.bool)
        for name, mine in a.items():
            apart = self._apart(name, mine, b[name])
            layer = self.layers.setdefault(name, _Layer())
            layer.places += mine.numel()
            layer.spikes += int(torch.count_nonzero(mine))
            if not apart.any():
                continue
            layer.differ += int(apart.sum())
            touched |= apart.movedim(1, 0).flatten(1).any(1)
            step = 1 + int(apart.flatten(1).any(1).int().argmax())
            layer.step = step if layer.step is None else min(layer.step, step)
        return touched

    def _apart(self, name: str, mine: Tensor, yours: Tensor) -> Tensor:
        """Where two layers emit another number of spikes. Heights may differ: thresholds can stand in the weights."""
        return torch.round(mine / self.a_heights[name]) != torch.round(yours / self.b_heights[name])

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def report(self, doubts: list[str]) -> Differences:
        """All sums as figures, and what makes them doubtful."""
        layers = self.layers
        found = None if layers is None else [LayerDifference(name, **vars(one)) for name, one in layers.items()]
        parted = [one for one in found or [] if one.step is not None]
        first = min(parted, key=lambda one: one.step or 0, default=None)
        scored = self.predictions is not None and self.labelled == self.samples
        share = [100 * right / self.samples for right in self.right]
        return Differences(
            samples=self.samples,
            exact=self.exact,
            rounded=self.rounded,
            layers=found,
            spikes=None if found is None else sum(one.differ for one in found),
            places=None if found is None else sum(one.places for one in found),
            first=None if first is None or first.step is None else (first.name, first.step),
            touched=self.touched,
            outputs=[] if self.outputs is None else self.outputs.tolist(),
            logits=self.logits,
            predictions=None if self.predictions is None else self.predictions.tolist(),
            accuracy=(share[0], share[1]) if scored else None,
            ann_accuracy=share[2] if scored and self.ann else None,
            ann_predictions=(self.apart[0], self.apart[1]) if self.ann else None,
            notes=doubts + self.notes,
        )
