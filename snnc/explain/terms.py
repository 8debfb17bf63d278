"""The error of one neuron layer, taken apart into terms that add up, and summed over samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snnc.ir.neurons import BipolarIF, Neuron

OWN = ("clipping", "quantisation", "unevenness")
TERMS = ("inherited", *OWN)


@dataclass(frozen=True)
class Split:
    """What one layer did to some samples. Tensors `[B, ...]`, float64 where they are errors.

    Attributes:
        terms: the error of the mean output, by cause; their sum is `phi - a`.
        excess: spikes, or units of graded ones, too many (above 0) or too few (below).
        clipped: where the mean current asked for more than the neuron can emit.
    """

    terms: dict[str, Tensor]
    excess: Tensor
    clipped: Tensor

    @property
    def own(self) -> Tensor:
        """The error that the layer itself makes with the current that it gets."""
        return self.terms["clipping"] + self.terms["quantisation"] + self.terms["unevenness"]

    @property
    def total(self) -> Tensor:
        """The error of the mean output, `phi - a`."""
        return self.own + self.terms["inherited"]


def split(neuron: Neuron, activation: nn.Module, current: Tensor, emitted: Tensor, a: Tensor, steps: int) -> Split:
    """The error of a neuron layer against the activation that it replaces.

    With S the sum of the currents over the T steps, zbar = S / T, f the activation of the ANN, `top` the largest output
    of one step, and N* = clip(floor((v0 + S) / theta), 0, T top / theta) the count of an evenly driven neuron:

        phi - a  =  phi - theta N* / T                       unevenness
                  + theta N* / T - min(f(zbar), top)         quantisation
                  + min(f(zbar), top) - f(zbar)              clipping
                  + f(zbar) - a                              inherited

    The first three errors are those of QCFS (Bu et al., ICLR 2022, section 4), each taken at the layer's own current;
    the fourth is what arrived in that current. For a ReLU, min(f(zbar), top) = clip(zbar, 0, top). An encoder of values
    of either sign has f(z) = z, counts of either sign, and clips at -top too.

    Args:
        neuron: theta, the nominal v0 and the largest output of a step, `binary()`.
        activation: of the ANN, at the same place.
        current: sum of the currents, S, `[B, ...]`.
        emitted: sum of the outputs, T phi.
        a: activation of the ANN.
        steps: T, those that are summed.
    """
    theta, v0, top = (v.double() for v in (neuron.theta, neuron.v0, neuron.binary()[0]))
    current, emitted = current.double(), emitted.double()
    most = torch.round(top / theta) * steps
    both = isinstance(neuron, BipolarIF) and not neuron.rectified
    least = -most if both else torch.zeros_like(most)
    even = torch.minimum(torch.maximum(torch.floor((v0 + current) / theta), least), most)
    # Counts are whole numbers. A graded spike k theta is rounded to float32, and that is no unevenness.
    excess = torch.round(emitted / theta) - even
    uneven = excess * theta
    drive = activation(current / steps)
    reached = torch.minimum(drive, top)
    reached = torch.maximum(reached, -top) if both else reached
    terms = {
        "inherited": drive - a.double(),
        "clipping": reached - drive,
        "quantisation": (emitted - uneven) / steps - reached,
        "unevenness": uneven / steps,
    }
    return Split(terms, excess, reached != drive)


@dataclass
class Tally:
    """Sums over samples, float64, for one layer. Their size does not grow with the number of samples.

    Attributes:
        values: neurons x samples.
        means, squares, products: for each term and for "own" and "total": sum, sum of squares, and sum of products with
            the total error.
        activation: sum of squares of the ANN's activation.
        counts: "over", "under", "clipped" neurons and "spikes", over all samples.
        fired, wanted: for each neuron, whether it ever fired, and whether the ANN's activation was ever above 0.
    """

    values: int = 0
    samples: int = 0
    means: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    products: dict[str, float] = field(default_factory=dict)
    activation: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    fired: Any = None
    wanted: Any = None

    def add(self, found: Split, spikes: Tensor, a: Tensor) -> None:
        """Some more samples: their errors, their spikes `[B, ...]` (how many), and the ANN's activation."""
        total = found.total
        for name, error in {**found.terms, "own": found.own, "total": total}.items():
            _sum(self.means, name, float(error.sum()))
            _sum(self.squares, name, float(error.square().sum()))
            _sum(self.products, name, float((error * total).sum()))
        self.values += total.numel()
        self.samples += len(total)
        self.activation += float(a.double().square().sum())
        for name, count in (
            ("over", found.excess > 0),
            ("under", found.excess < 0),
            ("clipped", found.clipped),
            ("spikes", spikes),
        ):
            self.counts[name] = self.counts.get(name, 0) + int(count.sum())
        fired, wanted = (spikes > 0).any(0), (a > 0).any(0)
        self.fired = fired if self.fired is None else self.fired | fired
        self.wanted = wanted if self.wanted is None else self.wanted | wanted


def _sum(into: dict[str, float], name: str, value: float) -> None:
    into[name] = into.get(name, 0.0) + value
