"""What to change against an error: options that the network's own recipe has, and recipes that do better."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from snnc.ir.neurons import GradedIF, Neuron
from snnc.passes import CalibrateOffset, MaskResidual, ScaleThresholds, UseGradedNeurons, UseSignedNeurons, WaitForInput
from snnc.passes.pipeline import Pass

STEPS = "--T"
# What neurons of a kind do already against unevenness: how far it goes is an option of the pass that made them.
LOOKS: dict[type[Pass], str] = {CalibrateOffset: "rho", WaitForInput: "wait", MaskResidual: "tau"}
OPTIONS = {one.neuron: f"{one.name}.{option}" for one, option in LOOKS.items()}
FACTOR, RULE = f"{ScaleThresholds.name}.factor", f"{ScaleThresholds.name}.rule"
BITS = f"{UseGradedNeurons.name}.bits"
WAITS = "--recipe cos"  # its neurons see all of their input before they fire
TAKES_BACK = "--recipe best-signed"  # which needs no wait, and so goes with frames


def advice(cause: str, neuron: Neuron, passes: Collection[str], frames: str = "") -> str:
    """The option to change against a cause, in few words: it stands in a table. `cure` says more.

    Args:
        cause: a term of the error, or "none".
        neuron: of the layer.
        passes: those that made the network, by name. No other pass has an option to change.
        frames: what the ANN was trained on, where input changes in time: then nothing can wait for it.
    """
    if cause == "none":
        return "-"
    graded = isinstance(neuron, GradedIF)
    if cause == "unevenness" and not graded and type(neuron) not in OPTIONS:
        done, other = (UseSignedNeurons.name, TAKES_BACK) if frames else (CalibrateOffset.name, WAITS)
        return STEPS if done in passes else other
    wanted = {
        "clipping": FACTOR,
        "quantisation": BITS if graded else "",
        "unevenness": OPTIONS.get(type(neuron), ""),
    }[cause]
    return wanted if wanted.partition(".")[0] in passes else STEPS


def cure(cause: str, passes: Collection[str], T: int, frames: str = "") -> str:
    """The same as a clause, for all layers at once: options as they are typed, those to try first in front."""
    more = f"more frames a sample ({STEPS} {2 * T}, with data of as many)" if frames else ""
    more = more or f"more time steps ({STEPS} {2 * T})"
    if cause == "clipping":
        larger = f"larger thresholds (--set {FACTOR}=1.2, or --set {RULE}=max)"
        return larger if ScaleThresholds.name in passes else more
    if cause == "quantisation":
        graded = UseGradedNeurons.name in passes
        finer = f"more bits a spike (--set {BITS}=4)" if graded else "graded spikes (--recipe best-graded)"
        return f"{more}, or {finer}"
    longer = next((option for option in OPTIONS.values() if option.partition(".")[0] in passes), None)
    if longer:
        return f"a longer look at the input before neurons fire (--set {longer}=8), or {more}"
    if frames:
        signed = f"spikes that take back what came too early ({TAKES_BACK}), or "
        return signed * (UseSignedNeurons.name not in passes) + more
    return f"neurons that wait for their input, at the price of latency ({WAITS}), or {more}"


def command(info: Mapping[str, Any], told: str) -> str:
    """The command that compiles a network anew with the first option of a `cure`."""
    name, bits = str(info.get("recipe")), ""
    if fixed := re.fullmatch(r"(.+), (\d+) bits", name):
        name, bits = fixed[1], f" --fixed-point {fixed[2]}"
    options = {"--recipe": name if re.fullmatch(r"[\w-]+", name) and name != "custom" else "RECIPE.toml"}
    options[STEPS] = str(info.get("T"))
    kind, value = (re.findall(r"(--[\w-]+) ([\w.=-]+)", told) or [(STEPS, options[STEPS])])[0]
    options[kind] = value
    if isinstance(frames := info.get("frames"), Mapping):
        options["--frames"] = str(frames.get("of"))
    data = " --calib DATA" if info.get("calibration_samples") or kind == "--recipe" else ""
    return f"snnc compile MODEL{data} {' '.join(f'{key} {one}' for key, one in options.items())}{bits}"
