"""What to change against an error: options that the network's own recipe has, and recipes that do better."""

from __future__ import annotations

from collections.abc import Collection

from snnc.ir.neurons import GradedIF, Neuron
from snnc.passes import CalibrateOffset, MaskResidual, ScaleThresholds, UseGradedNeurons, WaitForInput
from snnc.passes.pipeline import Pass

STEPS = "--T"
# What neurons of a kind do already against unevenness: how far it goes is an option of the pass that made them.
LOOKS: dict[type[Pass], str] = {CalibrateOffset: "rho", WaitForInput: "wait", MaskResidual: "tau"}
OPTIONS = {one.neuron: f"{one.name}.{option}" for one, option in LOOKS.items()}
FACTOR, RULE = f"{ScaleThresholds.name}.factor", f"{ScaleThresholds.name}.rule"
BITS = f"{UseGradedNeurons.name}.bits"
WAITS = "--recipe cos"  # its neurons see all of their input before they fire


def advice(cause: str, neuron: Neuron, passes: Collection[str]) -> str:
    """The option to change against a cause, in few words: it stands in a table. `cure` says more.

    Args:
        cause: a term of the error, or "none".
        neuron: of the layer.
        passes: those that made the network, by name. No other pass has an option to change.
    """
    if cause == "none":
        return "-"
    graded = isinstance(neuron, GradedIF)
    if cause == "unevenness" and not graded and type(neuron) not in OPTIONS:
        return STEPS if CalibrateOffset.name in passes else WAITS
    wanted = {
        "clipping": FACTOR,
        "quantisation": BITS if graded else "",
        "unevenness": OPTIONS.get(type(neuron), ""),
    }[cause]
    return wanted if wanted.partition(".")[0] in passes else STEPS


def cure(cause: str, passes: Collection[str]) -> str:
    """The same as a clause, for all layers at once."""
    if cause == "clipping":
        larger = f"larger thresholds (--set {FACTOR}=1.2, or --set {RULE}=max)"
        return larger if ScaleThresholds.name in passes else f"more time steps ({STEPS})"
    if cause == "quantisation":
        graded = UseGradedNeurons.name in passes
        finer = f"more bits a spike (--set {BITS}=4)" if graded else "graded spikes (--recipe graded)"
        return f"more time steps ({STEPS}), or {finer}"
    longer = next((option for option in OPTIONS.values() if option.partition(".")[0] in passes), None)
    if longer:
        return f"a longer look at the input before neurons fire (--set {longer}=8), or more time steps ({STEPS})"
    return f"neurons that wait for their input, at the price of latency ({WAITS}), or more time steps ({STEPS})"
