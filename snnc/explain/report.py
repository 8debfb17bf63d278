"""What an explanation says, as plain data and as sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from snnc.explain.cures import command, cure
from snnc.explain.terms import OWN, TERMS, Tally
from snnc.networks.frames import told_frames

KEPT = "Nothing is lost: every sample keeps its class, so there is nothing to change."


@dataclass(frozen=True)
class Term:
    """One part of a layer's error.

    Attributes:
        mean: signed, in the unit of the activation. The means of the terms add up to that of the total.
        rms: root mean square, likewise. These do not add up: terms are correlated, and may cancel.
        relative: `rms` in % of the root mean square of the ANN's activation; None where that is 0.
        share: in % of the layer's mean square error: the product with the total error over its square. These add up
            to 100 again; one is negative where a term makes up for others.
    """

    mean: float
    rms: float
    relative: float | None
    share: float


@dataclass(frozen=True)
class LayerError:
    """Where the error of one neuron layer comes from. Percentages are 0..100.

    Attributes:
        name: of the neurons, and of the activation in the ANN.
        neuron: class of the neurons.
        neurons: how many there are.
        activation: root mean square of the ANN's activation.
        terms: "inherited", "clipping", "quantisation", "unevenness"; see `snnc.explain.terms.split`.
        own: the last three together.
        total: all four together, `phi - a`.
        rate: spikes per neuron and step.
        over, under: share of the neurons (over all samples) with more, or fewer, spikes than an even current gives.
        clipped: share of them whose mean current asks for more than they can emit.
        dead: share of the neurons that never fired on this data.
        silenced: share of them that never fired though the ANN's activation did.
        logit_share: what the layer's own error, put into the ANN at this place alone, explains of the error of the
            output, in % of its square. The shares add up to 100 as far as the network is linear in these errors.
            None where layers were calibrated: each makes up for errors before it, and its error alone says nothing.
        agreement: share of the samples whose class the ANN keeps with that error; None where there are no classes.
        cause: the largest of the layer's own terms, "none" where it makes no error.
        source: the earlier layer to look at first, where more of the error is inherited than the layer's own.
        change: the option to change against `cause`.
    """

    name: str
    neuron: str
    neurons: int
    activation: float
    terms: dict[str, Term]
    own: Term
    total: Term
    rate: float
    over: float
    under: float
    clipped: float
    dead: float
    silenced: float
    logit_share: float | None
    agreement: float | None
    cause: str
    source: str | None
    change: str


@dataclass(frozen=True)
class Cause:
    """One kind of error in all layers at once, put into the ANN.

    Attributes:
        logit_share: what it explains of the error of the output, in % of its square.
        agreement: share of the samples whose class the ANN keeps; None where there are no classes.
    """

    logit_share: float
    agreement: float | None


@dataclass(frozen=True)
class Explanation:
    """Where the error of a spiking network comes from. Percentages are 0..100.

    Attributes:
        samples: how many were looked at.
        T: steps that were read out.
        ann_accuracy, accuracy: top-1 of the ANN and of the spiking network; None without labels.
        agreement: share of the samples on which both predict the same class; None where there are no classes.
        logit_error: root mean square error of the output, in % of the root mean square of the ANN's output. What all
            classes of a sample have in common is left out of both, here and in the shares: it changes no class.
        calibrated: whether layers were calibrated one after the other against the ANN.
        causes: "clipping", "quantisation" and "unevenness" of all layers at once; empty where they were calibrated.
        layers: in the order of the network.
        summary: which kind of error does most, what to change against it, and where most error enters.
        notes: what keeps these numbers from meaning more.
    """

    samples: int
    T: int
    ann_accuracy: float | None
    accuracy: float | None
    agreement: float | None
    logit_error: float
    calibrated: bool
    causes: dict[str, Cause]
    layers: list[LayerError]
    summary: str
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


def term(tally: Tally, name: str) -> Term:
    """One sum of a tally as a `Term`."""
    rms = (tally.squares[name] / tally.values) ** 0.5
    size = (tally.activation / tally.values) ** 0.5
    return Term(
        mean=tally.means[name] / tally.values,
        rms=rms,
        relative=100 * rms / size if size else None,
        share=percent(tally.products[name], tally.squares["total"]),
    )


def percent(part: float, whole: float) -> float:
    """`part` in % of `whole`; 0 of nothing is 0."""
    return 100 * part / whole if whole else 0.0


def parts(tally: Tally, steps: int) -> dict[str, Any]:
    """Those fields of a `LayerError` that a tally alone gives."""
    counts = {name: percent(tally.counts[name], tally.values) for name in ("over", "under", "clipped")}
    terms = {name: term(tally, name) for name in TERMS}
    largest = max(OWN, key=lambda name: terms[name].rms)
    return {
        "neurons": tally.values // tally.samples,
        "activation": (tally.activation / tally.values) ** 0.5,
        "terms": terms,
        "own": term(tally, "own"),
        "total": term(tally, "total"),
        "rate": tally.counts["spikes"] / (tally.values * steps),
        **counts,
        "dead": 100 * float((~tally.fired).double().mean()),
        "silenced": 100 * float((tally.wanted & ~tally.fired).double().mean()),
        "cause": largest if terms[largest].rms else "none",
    }


def summary(
    layers: list[LayerError], causes: dict[str, Cause], error: float, passes: Collection[str], info: Mapping[str, Any]
) -> str:
    """The kind of error that does most, what to change in a network that `passes` made, and where most error enters."""
    if not error:
        return "The output is that of the ANN: there is no error to explain."
    cause = max(causes, key=lambda name: causes[name].logit_share)
    worst = max(layers, key=lambda layer: layer.logit_share or 0.0)
    if min(causes[cause].logit_share, worst.logit_share or 0.0) <= 0:
        return "No kind of error explains the output's by itself: a calibration has set them off against each other."
    told = cure(cause, passes, int(info.get("T", 1)), told_frames(info))
    return (
        f"Of the three kinds of error {cause} does most: that of all layers explains {_effect(causes[cause])}. Try "
        f"{told}: {command(info, told)}. Most error enters at '{worst.name}', mainly by {worst.cause}: alone it "
        f"explains {_effect(worst)}."
    )


def calibrated(layers: list[LayerError], passes: Collection[str], info: Mapping[str, Any], lost: bool) -> str:
    """The same of a network whose layers were calibrated: each layer against the activation that it was to reach."""
    worst = max(layers, key=lambda layer: layer.total.relative or 0.0)
    found = (
        f"Against the ANN's activations, which calibration aimed at, '{worst.name}' is off the furthest: by "
        f"{worst.total.relative or 0.0:.1f} % of its activation"
    )
    if worst.cause == "none":
        return f"{found}, which it inherits."
    found += f", of its own errors mainly by {worst.cause}."
    told = cure(worst.cause, passes, int(info.get("T", 1)), told_frames(info))
    return f"{found} Try {told}: {command(info, told)}" if lost else f"{found} {KEPT}"


def _effect(one: Cause | LayerError) -> str:
    assert one.logit_share is not None
    share = f"{one.logit_share:.0f} % of the output's square error"
    changed = None if one.agreement is None else f" and changes the class of {100 - one.agreement:.1f} % of the samples"
    return share + (changed or "")
