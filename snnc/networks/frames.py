"""Running frame by frame: what a network carries from one frame to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnc.errors import DataError, SnncError
from snnc.structure import Samples, changed, each, of, shapes_of

FRAMES_HINT = "compile with --frames mean, sum or each (frames= in Python)"


@dataclass(frozen=True)
class State:
    """Where a run over frames stands. It is never changed: a step gives another one, and may be taken twice.

    Attributes:
        batch: samples, or None before the first frame where the caller has not told.
        step: frames that were seen.
        kept: potentials, sums and all else that the network itself carries on; None before the first frame.
    """

    batch: int | None = None
    step: int = 0
    kept: Any = None


def told_frames(info: Mapping[str, Any]) -> str:
    """What the original network did with frames: "mean", "sum" or "each"; empty where input is constant in time."""
    found = info.get("frames")
    return str(found["of"]) if isinstance(found, dict) else ""


def of_one_frame(info: Mapping[str, Any], inputs: int) -> dict[str, Any]:
    """A history whose shape is that of one frame, for input that comes frame by frame."""
    shapes = [one and one[1:] for one in shapes_of(info.get("input_shape") or None, inputs)]
    rank = info.get("input_rank")
    known = None if None in shapes else shapes if inputs > 1 else shapes[0]
    return {**info, "frames": None, "input_shape": known, "input_rank": rank and rank - 1}


def advanced(state: State, x: Samples, T: int) -> State:
    """The state after one more frame, which is checked against it.

    Raises:
        SnncError: all frames were seen.
        DataError: another number of samples.
    """
    if not isinstance(state, State):
        raise SnncError(f"A {type(state).__name__} is no state.", "state = net.start(), then net.step(frame, state)")
    if state.step >= T:
        raise SnncError(f"All {T} frames have been seen, and the readout is done.", "net.start() for the next sample")
    if state.batch not in (None, len(x)):
        raise DataError(
            f"The frame is of {len(x)} samples, and the state of {state.batch}.", "frames of the samples that it is of"
        )
    return State(len(x), state.step + 1, state.kept)


def seen(state: State, x: Samples, T: int) -> tuple[Samples, State]:
    """All frames so far and blank ones after them, for a program that runs T steps at once; and the next state."""
    past = [] if state.kept is None else [state.kept]
    frame = changed(lambda one: one[:, None], x)
    rows = [torch.cat(values, 1) for values in zip(*map(each, [*past, frame]), strict=True)]
    so_far = of(rows, getattr(x, "names", ()))
    blank = changed(lambda one: torch.cat([one, _blank(one, T)], 1), so_far)
    return blank, State(state.batch, state.step, so_far)


def _blank(one: Tensor, T: int) -> Tensor:
    return one.new_zeros((len(one), T - one.shape[1], *one.shape[2:]))


def fault(shape: Sequence[int], x: Tensor, framed: bool) -> tuple[str, str] | None:
    """What is wrong with the frames of input `[B, ...]`, as the end of a sentence, and a hint; None where nothing is.

    Args:
        shape: of one sample, which has its T frames in front if it is `framed`.
        x: the input, of another shape.
        framed: whether the network takes frames.
    """
    size, sizes = tuple(shape), tuple(x.shape)
    if not framed:
        if x.dim() == len(size) + 2 and sizes[2:] == size:
            return (
                f"holds {sizes[1]} frames a sample, and this network takes input that is constant in time",
                f"x.mean(1), or {FRAMES_HINT}",
            )
        return None
    T = size[0]
    if sizes[1:] == size[1:]:
        ones = ", ".join(["-1", str(T), *["-1"] * (len(size) - 1)])
        return (
            f"holds no frames, and the network takes {T} a sample",
            f"x[:, None].expand({ones}), the same at each step",
        )
    if x.dim() == len(size) + 1 and sizes[2:] == size[1:]:
        if sizes[0] == T:
            return (
                f"has its {T} frames in front, and the network takes samples first",
                "x.transpose(0, 1), or --time-first",
            )
        return (
            f"holds {sizes[1]} frames a sample, and the network takes {T}",
            f"{T} frames, or compile with --T {sizes[1]} on data of {sizes[1]} frames",
        )
    return None
