"""The options of `snnc.tune`."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, fields
from typing import Any, Literal

from snnc.checks import check_option, one_of
from snnc.errors import RecipeError

MOST_PIXELS = 2**12  # of a border, or of a square


@dataclass(frozen=True)
class TuneOptions:
    """How a network is trained.

    Attributes:
        kind: "spiking": through the spiking network itself, started from its conversion; "quantised": through the
            clip-quantised network, with L = T levels, to be compiled afterwards.
        gradient: of kind "spiking". "rate": that of the mean over time, at the cost of about T + 3 passes; "time":
            surrogate gradients through every step, 3 T passes.
        surrogate: shape of a jump's derivative, of kind "spiking"; see `snnc.tune.surrogate`.
        norms: batch normalisation behind each layer that feeds neurons, folded at the end. "original": started so that
            each layer's output has the mean and deviation that it has in the original network; "own": those that it
            has in the conversion, which changes nothing at first; "none".
        loss: "distil": the original network's outputs, no labels; "labels": cross-entropy; "both".
        temperature: of the distillation.
        alpha: share of distillation in loss "both".
        match: weight of the error of every neuron's rate against the original network's activation, see
            `snnc.tune.match.mismatch`; not with loss "labels".
        optimiser: "adam" (AdamW) or "sgd" (with momentum 0.9, Nesterov).
        lr: highest learning rate; a cosine leads from it to 0.
        bound_lr: factor of the learning rate of bounds, thresholds and potentials.
        weight_decay: of weights; never of biases and normalisations.
        decay_bounds: of bounds, thresholds and potentials too.
        batch: samples a step.
        shards: parts that a batch is cut into, which processes share: each has the loss of its samples and the batch
            statistics of its own ("ghost batch normalisation"), so that results depend on it, and not on the number of
            processes.
        epochs: passes over the training data, where `minutes` is not given.
        minutes: time budget instead; the cosine follows the clock. Counts training and its checks on held-out
            samples, and neither the compilation before it nor the final table.
        crop: pixels that an image is shifted by at most, over a border of zeros.
        flip: mirror half of the images left to right.
        cutout: side of the square that is zeroed, in pixels; 0 for none.
        held_out: share of the data that is kept from training, for the tables.
        amp: bfloat16 where torch's autocast allows it; weights stay float32.
        device: where training runs.
        seed: of data order, augmentation and split.
        save_seconds: seconds between two checkpoints within an epoch, where there is a checkpoint file.

    Raises:
        RecipeError: a value of the wrong type or size.
    """

    kind: Literal["spiking", "quantised"] = "spiking"
    gradient: Literal["rate", "time"] = "rate"
    surrogate: Literal["triangle", "rectangle"] = "triangle"
    norms: Literal["original", "own", "none"] = "original"
    loss: Literal["distil", "labels", "both"] = "distil"
    temperature: float = 2.0
    alpha: float = 0.5
    match: float = 1.0
    optimiser: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    bound_lr: float = 1.0
    weight_decay: float = 0.0
    decay_bounds: bool = False
    batch: int = 64
    shards: int = 1
    epochs: int = 3
    minutes: float | None = None
    crop: int = 4
    flip: bool = True
    cutout: int = 0
    held_out: float = 0.02
    amp: bool = False
    device: str = "cpu"
    seed: int = 0
    save_seconds: float = 60.0

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for option in fields(self):
            check_option("tune", option.name, hints[option.name], getattr(self, option.name))
        for name in ("temperature", "lr", "bound_lr"):
            self._require(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        self._require("minutes", self.minutes is None or 0 < self.minutes < math.inf, "a number above 0")
        for name in ("match", "weight_decay", "save_seconds"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("batch", "epochs", "shards"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("crop", "cutout"):
            self._require(name, 0 <= getattr(self, name) <= MOST_PIXELS, f"0 to {MOST_PIXELS}")
        self._require("seed", self.seed >= 0, "0 or more")
        self._require("shards", self.shards <= self.batch, f"as many as a batch has samples ({self.batch}) at most")
        self._require("alpha", 0 <= self.alpha <= 1, "a share from 0 to 1")
        self._require("held_out", 0 <= self.held_out < 1, "a share from 0, and below 1")
        self._require("device", _there(self.device), "cpu, or cuda where torch finds a GPU")

    def _require(self, option: str, fits: bool, wanted: str) -> None:
        if not fits:
            raise RecipeError(f"Option '{option}' of 'tune' is {getattr(self, option)!r}.", wanted)


def tune_options(given: dict[str, Any]) -> TuneOptions:
    """Options by name.

    Raises:
        RecipeError: no such option, or a value that does not fit.
    """
    for name in given:
        one_of(name, TuneOptions.__dataclass_fields__, "option of 'tune'")
    return TuneOptions(**given)


def _there(device: str) -> bool:
    try:
        import torch  # here: the command line reads the options above before it needs torch

        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # torch built without CUDA asserts
        return False
    return True
