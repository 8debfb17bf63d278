"""What to change against an error: options that the network's own recipe has, and recipes that do better."""

from __future__ import annotations

from collections.abc import Collection

from snnc.ir.neurons import GradedIF, Neuron, OffsetIF, ResidualMaskIF, WaitingIF

STEPS = "--T"
# What neurons of a kind do already against unevenness: how far it goes is an option of the pass that made them.
OPTIONS: dict[type[Neuron], str] = {
    OffsetIF: "calibrate-offset.rho",
    WaitingIF: "wait-for-input.wait",
    ResidualMaskIF: "mask-residual.tau",
}
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
    if cause == "unevenness" and not any(isinstance(neuron, kind) for kind in (*OPTIONS, GradedIF)):
        return STEPS if "calibrate-offset" in passes else WAITS
    wanted = {
        "clipping": "scale-thresholds.factor",
        "quantisation": "use-graded-neurons.bits" if isinstance(neuron, GradedIF) else "",
        "unevenness": OPTIONS.get(type(neuron), ""),
    }[cause]
    return wanted if wanted.partition(".")[0] in passes else STEPS


def cure(cause: str, passes: Collection[str]) -> str:
    """The same as a clause, for all layers at once."""
    if cause == "clipping":
        larger = "larger thresholds (--set scale-thresholds.factor=1.2, or --set scale-thresholds.rule=max)"
        return larger if "scale-thresholds" in passes else f"more time steps ({STEPS})"
    if cause == "quantisation":
        graded = "use-graded-neurons" in passes
        finer = "more bits a spike (--set use-graded-neurons.bits=4)" if graded else "graded spikes (--recipe graded)"
        return f"more time steps ({STEPS}), or {finer}"
    longer = next((option for option in OPTIONS.values() if option.partition(".")[0] in passes), None)
    if longer:
        return f"a longer look at the input before neurons fire (--set {longer}=8), or more time steps ({STEPS})"
    return f"neurons that wait for their input, at the price of latency ({WAITS}), or more time steps ({STEPS})"
