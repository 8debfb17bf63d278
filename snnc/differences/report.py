"""What was found where two networks were compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerDifference:
    """One neuron layer, over all samples and steps.

    Attributes:
        name: of the layer.
        differ: places (neurons x steps x samples) where the two do not emit the same.
        places: how many there are.
        spikes: places where the first network emits something.
        step: the first step, from 1, at which they differ in some sample, or None.
    """

    name: str
    differ: int
    places: int
    spikes: int
    step: int | None


@dataclass(frozen=True)
class Differences:
    """What differs between two networks on the same input. Lists run over the steps that are read out.

    Attributes:
        samples: how many were compared.
        exact: both are fixed-point forms of one network, so that nothing may differ.
        rounded: a softmax follows the readout; it rounds even if everything before it is exact.
        layers: every neuron layer in order; None if spikes cannot be compared.
        spikes: places where a spike differs, over all layers, or None.
        places: places that were compared, or None.
        first: layer and step at which they first differ: the earliest step, and the first layer at it; or None.
        touched: samples in which a spike or a prediction differs; or an output, if only outputs can be compared or
            nothing may differ.
        outputs: numbers of the output that differ in any bit, after each step.
        logits: largest difference of an output, at any step.
        predictions: samples whose class differs, after each step; None where outputs are no classes.
        accuracy: top-1 of the two after the last step, or None without labels.
        ann_accuracy: top-1 of the original network, or None.
        ann_predictions: samples on which each differs from the original network, after the last step, or None.
        notes: what makes the figures doubtful; what could not be compared, and why.
    """

    samples: int
    exact: bool
    rounded: bool
    layers: list[LayerDifference] | None
    spikes: int | None
    places: int | None
    first: tuple[str, int] | None
    touched: int
    outputs: list[int]
    logits: float
    predictions: list[int] | None
    accuracy: tuple[float, float] | None
    ann_accuracy: float | None
    ann_predictions: tuple[int, int] | None
    notes: list[str]

    @property
    def same(self) -> bool:
        """Whether no spike and no prediction differs; in fixed point, or without spikes, no bit of an output either.

        Outputs of a float network may differ where spikes do not: a readout is the mean of spikes through float
        weights, and rounds.
        """
        if self.spikes or any(self.predictions or ()):
            return False
        return not any(self.outputs) or (self.spikes is not None and (self.rounded or not self.exact))

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {**asdict(self), "same": self.same}
