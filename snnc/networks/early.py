"""Early exit: each sample is read out as soon as its readout is sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnc.errors import DataError, RecipeError, SnncError

ROUNDS = 40  # halvings of a range of temperatures, far below what samples can tell


@dataclass(frozen=True)
class Exit:
    """What samples gave when they were sure.

    Attributes:
        output: readout of each sample at its own step, `[B, classes]`.
        steps: steps from the input of each sample to that readout, `[B]`; all of the latency where it never is sure.
        confidence: of each sample's class at that step, 0 to 1, `[B]`.
    """

    output: Tensor
    steps: Tensor
    confidence: Tensor


def certainty(by_step: Tensor, info: Mapping[str, Any], probabilities: bool) -> Tensor:
    """Confidence in the largest class after each step, `[T, B]`: its softmax at the temperature of the step.

    Args:
        by_step: readout after each step, `[T, B, classes]`.
        info: history of the network; "exit" holds temperatures where they were calibrated, and 1 is taken elsewhere.
        probabilities: whether the readout is one of probabilities already.

    Raises:
        DataError: an output that is no class scores.
        SnncError: temperatures that cannot be.
    """
    if by_step.dim() != 3 or by_step.shape[-1] < 2:
        raise DataError(f"The output has shape {tuple(by_step.shape[1:])} per step, not [B, classes].", "a classifier")
    if probabilities:
        return by_step.amax(-1)
    given = info.get("exit") or {"temperatures": [1.0] * len(by_step)}
    found = given.get("temperatures") if isinstance(given, Mapping) else None
    if not (isinstance(found, list) and len(found) == len(by_step) and all(map(_fits, found))):
        raise SnncError("The temperatures of the network's readouts are not one number above 0 for each step.")
    heat = torch.tensor(found, dtype=torch.float64, device=by_step.device)[:, None, None]
    return (by_step.double() / heat).softmax(-1).amax(-1)


def _fits(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < math.inf


def temperatures(by_step: Tensor, classes: Tensor) -> list[float]:
    """For each step the temperature at which the mean confidence is the share of samples that have the right class.

    Args:
        by_step: readout after each step, `[T, B, classes]`, of samples that did not calibrate the network.
        classes: the ANN's, `[B]`.
    """
    found = []
    for one in by_step.double():
        # One more sample that is wrong: no class is ever quite sure because a few samples were right.
        share = float((one.argmax(-1) == classes).sum()) / (len(one) + 1)
        scale = float(one.std().clamp_min(1e-12))
        low, high = -12.0, 12.0  # of the logarithm of the temperature, in units of the outputs' spread
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            mean = float((one / (scale * math.exp(middle))).softmax(-1).amax(-1).mean())
            low, high = (middle, high) if mean > share else (low, middle)
        found.append(scale * math.exp(high))
    return found


def gone(by_step: Tensor, sure: Tensor, confidence: float, before: int) -> Exit:
    """The results of samples that leave at the first step at which their class is sure enough, or else at the last.

    Args:
        by_step: readout after each step, `[T, B, classes]`.
        sure: confidence in the largest class, `[T, B]`; see `certainty`.
        confidence: what is enough, above 0, 1 at most.
        before: steps that have passed before the first one that is read out.

    Raises:
        RecipeError: a confidence that cannot be.
    """
    if not 0 < confidence <= 1:
        raise RecipeError(f"The confidence is {confidence!r}.", "a number above 0, 1 at most, such as 0.9")
    enough = (sure >= confidence).to(torch.uint8)
    enough[-1] = 1
    at, samples = enough.argmax(0), torch.arange(sure.shape[1], device=sure.device)  # the first of equals
    return Exit(by_step[at, samples], at + 1 + before, sure[at, samples])
