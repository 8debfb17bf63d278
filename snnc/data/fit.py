"""Whether samples were prepared as those that a network was calibrated with.

Data that are read without their `--mean` and `--std`, or 255 times too large, go through a network as others do, and
only the accuracy says that something is wrong. So a network's file keeps how its calibration data were read, and what
came out of it (`info["calibration"]`), and whatever measures a network compares.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor

from snnc.data.dataset import Dataset, ReadBatches
from snnc.data.events import Binning
from snnc.structure import Samples, changed, each, joined, shape_of

Batch = TypeVar("Batch")
MOST = 512  # samples that are looked at
APART, WIDER = 0.5, 1.6  # how far means may lie apart, in deviations; how much wider one may be spread than the other
FEW = 4.0  # of n samples both may be 1 + FEW / sqrt(n) times as large
ENOUGH = 10  # samples of several classes, too many for one predicted class to be chance
DECIMALS = 6  # significant ones, in files
STATISTICS = ("low", "high", "mean", "std")


class PreparationWarning(UserWarning):
    """Data look unlike those that a network was calibrated with, or one class was predicted for everything."""


# What a file keeps


def described(data: Any, x: Samples, frames: bool = False) -> dict[str, Any]:
    """How calibration data `[N, ...]` were read, and their range, mean and deviation for each channel; plain data.

    Of `frames` `[N, T, ...]` the channels are those of a frame.
    """
    layout = [list(one) if isinstance(one, tuple) else one for one in shape_of(x)]
    return {**read_as(data), "layout": layout, "channels": statistics(by_frame(x) if frames else x)}


def by_frame(x: Samples) -> Samples:
    """Every frame of samples `[N, T, ...]` as a sample of its own."""
    return changed(lambda one: one.flatten(0, 1), x)


def read_as(data: Any) -> dict[str, Any]:
    """How data were read: type as stored, and what was done to it. Of tensors and loaders snnc knows nothing.

    "raw" tells whether 8-bit values stayed 0..255; it is None where there are none.
    """
    data = data.dataset if isinstance(data, ReadBatches) else data
    if not isinstance(data, Dataset):
        return {"dtype": None, "raw": None, "mean": None, "std": None}
    mean, std = (None if v is None else list(v) for v in (data.mean, data.std))
    if data.binning is not None:
        return {"dtype": "events", "raw": None, "mean": mean, "std": std, "binning": dict(data.binning)}
    eight = data.x.dtype.name == "uint8"
    return {"dtype": data.x.dtype.name, "raw": data.scale == 1 if eight else None, "mean": mean, "std": std}


def statistics(x: Samples) -> dict[str, list[float]]:
    """Range, mean and deviation of each channel of `[N, C, ...]`; of all numbers alike where these are vectors.

    Of several inputs the channels of one after those of the other; whole numbers are places and have none.
    """
    found = [_statistics(one) for one in each(x) if one.is_floating_point()]
    return {name: [value for one in found for value in one[name]] for name in STATISTICS}


def _statistics(x: Tensor) -> dict[str, list[float]]:
    by_channel = (x.transpose(0, 1).flatten(1) if x.dim() > 2 else x.reshape(1, -1)).double()
    low, high = by_channel.aminmax(dim=1)
    found = (low, high, by_channel.mean(1), by_channel.std(1, correction=0))
    return {
        name: [float(f"{v:.{DECIMALS}g}") for v in values.tolist()]
        for name, values in zip(STATISTICS, found, strict=True)
    }


def eight_bits(data: Dataset) -> str | None:
    """What was done to 8-bit data, as a sentence; None where there are none."""
    if data.x.dtype.name != "uint8":
        return None
    scaled = "stay 0 to 255 (--raw)" if data.scale == 1 else f"are divided by {data.scale:g}"
    normalised = _spelt({"mean": data.mean, "std": data.std})
    more = f", then normalised with {normalised}" if normalised else ", and nothing is subtracted (no --mean, no --std)"
    return f"{data.source}: 8-bit values {scaled}{more}."


# What a measurement compares


class Fit:
    """Looks at the samples that pass on their way to a network.

    Args:
        info: history of the network.
        data: where the samples come from, if that tells how they were read.
    """

    def __init__(self, info: Mapping[str, Any], data: Any) -> None:
        self.known, self.read, self.frames = info.get("calibration"), read_as(data), bool(info.get("frames"))
        self.seen: list[Samples] = []
        self.guesses: Counter[int] = Counter()
        self.labels: Counter[int] = Counter()

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Passes batches on, `(x, y)` or `x` each."""
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple) else batch
            left = MOST - sum(map(len, self.seen))
            if left > 0 and isinstance(x, Samples):
                self.seen.append(x[:left].detach().cpu())
            yield batch

    def classes(self, guesses: Tensor, labels: Tensor | None) -> None:
        """Counts classes `[B]` that were predicted, and those that were right."""
        self.guesses.update(guesses.tolist())
        self.labels.update([] if labels is None else labels.tolist())

    def notes(self) -> list[str]:
        """What the user should know, a sentence each; also given as a `PreparationWarning`."""
        found = [self._misfit(joined(self.seen)) if self.seen else None, self._one_class()]
        notes = [one for one in found if one]
        for one in notes:
            warnings.warn(one, PreparationWarning, stacklevel=3)
        return notes

    def _misfit(self, x: Samples) -> str | None:
        return misfit(self.known, self.read, by_frame(x) if self.frames else x)

    def _one_class(self) -> str | None:
        n = sum(self.guesses.values())
        if n < ENOUGH or len(self.guesses) > 1 or len(self.labels) < 2:
            return None
        (one,) = self.guesses
        return (
            f"Class {one} is predicted for all {n} samples, and the labels have {len(self.labels)} classes: look "
            "whether the data are prepared as in training."
        )


def misfit(known: Any, read: Mapping[str, Any], x: Samples) -> str | None:
    """How data differ from those that calibrated a network, as a sentence; None where they do not, or nothing is known.

    Args:
        known: `info["calibration"]` of the network, which may come from a file.
        read: how the data were read.
        x: some of them, as they are given to the network `[N, ...]`.
    """
    if not _is_known(known):
        return None
    then, now = _spelt(known), _spelt(read)
    both = known["dtype"] == "uint8" == read["dtype"]
    if (rule := _binned_otherwise(known, read)) is not None:
        return rule
    if both and then != now:
        ask = f"pass {then}" if then else f"leave {now} out"
        return f"The calibration data were read with {then or 'no option'}, these data with {now or 'none'}: {ask}."
    before, here = known["channels"], statistics(x)
    if len(before["mean"]) != len(here["mean"]) or (place := _apart(before, here, len(x))) is None:
        return None
    what = "The data" if len(before["mean"]) == 1 else f"Channel {place} of the data"
    lie = [
        f"{one['low'][place]:.3g} to {one['high'][place]:.3g} (mean {one['mean'][place]:.3g}, deviation "
        f"{one['std'][place]:.3g})"
        for one in (here, before)
    ]
    return f"{what} are {lie[0]}, and those of the calibration were {lie[1]}: {_advice(known, before, here, place)}."


def _binned_otherwise(known: Mapping[str, Any], read: Mapping[str, Any]) -> str | None:
    """How events were binned another way than those of the calibration, as a sentence."""
    then, now = (Binning.of(one.get("binning")) for one in (known, read))
    if then is None or now is None or then == now:
        return None
    options = [f"--bins {then.rule}"] if then.rule != now.rule else []
    if then.sensor and then.sensor != now.sensor:
        options.append("--sensor {},{}".format(*then.sensor))
    ask = f": pass {' '.join(options)}, or nothing, which bins as the network's file says" if options else ""
    return f"The events of the calibration were binned to {then}, and these to {now}{ask}."


def _apart(before: Mapping[str, list[float]], here: Mapping[str, list[float]], n: int) -> int | None:
    """The first channel whose difference is more than chance."""
    slack = 1 + FEW / math.sqrt(n)
    least = 0.05 * max(before["std"])  # a channel that hardly changes is judged by the others
    for place, (mean, std) in enumerate(zip(before["mean"], before["std"], strict=True)):
        spread, now = max(std, least), max(here["std"][place], least)
        far = abs(here["mean"][place] - mean) > APART * slack * max(spread, 1e-12)
        wide = max(spread, now) > WIDER * slack * max(min(spread, now), 1e-12)
        if far or wide:
            return place
    return None


def _advice(known: Mapping[str, Any], before: Mapping[str, Any], here: Mapping[str, Any], place: int) -> str:
    if then := _spelt(known):
        return f"these were read with {then}, so pass the same, or normalise alike in Python"
    times = here["std"][place] / before["std"][place] if before["std"][place] else 1.0
    if 100 < times < 600:
        return "leave out --raw, or divide by 255 in Python"
    if 1 / 600 < times < 1 / 100:
        return "pass --raw, or multiply by 255 in Python"
    return "give --mean and --std as training had them, or normalise alike in Python"


def _spelt(read: Mapping[str, Any]) -> str:
    """The options that data were read with."""
    numbers = [
        f"--{name} {','.join(f'{v:g}' for v in read[name])}" for name in ("mean", "std") if read.get(name) is not None
    ]
    return " ".join((["--raw"] if read.get("raw") else []) + numbers)


def _is_known(known: Any) -> bool:
    """Whether this is what `described` gives. Files of earlier versions have nothing, and others may hold anything."""

    def numbers(value: Any) -> bool:
        return isinstance(value, list) and all(type(v) in (int, float) and math.isfinite(v) for v in value)

    if not isinstance(known, dict) or not isinstance(known.get("channels"), dict):
        return False
    rows = [known["channels"].get(name) for name in STATISTICS]
    options = [known.get(name) for name in ("mean", "std")]
    return (
        all(numbers(row) and len(row) == len(rows[0]) > 0 for row in rows)
        and all(value is None or numbers(value) for value in options)
        and (known.get("dtype") is None or isinstance(known["dtype"], str))
        and known.get("raw") in (None, True, False)
    )
