"""Checkpoints of an unfinished training: plain data and tensors, written whole or not at all.

Data order and augmentation depend on the seed, the epoch and the step alone, and training draws nothing else, so no
generator has a state to store: parameters, the optimiser's state and the position say all.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from snnc.data import Dataset, stored
from snnc.errors import LoadError
from snnc.files import atomic_buffer, load_torch
from snnc.processes import from_all, rank
from snnc.tune.options import TuneOptions

FORMAT, VERSION = "snnc-tune", 2
FREE = ("save_seconds",)  # options that may differ between a run and its continuation


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        epoch: current epoch, from 0.
        step: steps of it that are done.
        seconds: spent so far, over all runs.
        loss: running mean of the loss, or None before the first step.
        rows: what was found on held-out samples after each epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    loss: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def identity(graph: fx.GraphModule, options: TuneOptions, data: Dataset, teacher: nn.Module | None) -> dict[str, Any]:
    """What a checkpoint must agree with: the network before training, teacher, training data and options."""
    kept = {name: value for name, value in asdict(options).items() if name not in FREE}
    taught = None if teacher is None else _digest(teacher)
    return {"network": _digest(graph), "teacher": taught, "samples": len(data), "data": stored(data), "options": kept}


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def write(
    path: Path, told: dict[str, Any], graph: fx.GraphModule, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Writes a checkpoint.

    Raises:
        WriteError: the file cannot be written; what was there before is untouched.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": told,
        "network": graph.state_dict(),
        "optimiser": optimiser.state_dict()["state"],
        "progress": asdict(progress),
    }
    with atomic_buffer(path) as buffer:
        torch.save(content, buffer)


def restore(path: Path, told: dict[str, Any], graph: fx.GraphModule, optimiser: torch.optim.Optimizer) -> Progress:
    """Puts network and optimiser where a checkpoint left them. In place.

    Raises:
        LoadError: no checkpoint, or one of another network, other data or other options; names what differs.
    """
    content = from_all(load_torch(path) if rank() == 0 else None)[0]  # only the first needs to have the file
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise LoadError(f"'{path}' is not a checkpoint of this snnc's tune.", "the file that 'snnc tune' wrote")
    try:
        if differing := _differing(content["fingerprint"], told):
            raise LoadError(f"'{path}' is of a run with {differing}.", "what that run was given, or start anew")
        graph.load_state_dict(content["network"])
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": content["optimiser"], "param_groups": groups})
        return Progress(**content["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise LoadError(f"'{path}' is damaged: {type(error).__name__}: {reason}.", "start anew") from error


def _differing(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What two fingerprints disagree in, in words; "" where they agree. Ours may leave the network open, as None."""
    if theirs["samples"] != ours["samples"]:
        return f"{theirs['samples']} training samples, not {ours['samples']}"
    if theirs["data"] != ours["data"]:  # before the network, which is calibrated on them
        return "other training data"
    if theirs["teacher"] != ours["teacher"]:
        return "another network to distil from"
    if ours["network"] not in (None, theirs["network"]):
        return "another network, or one compiled otherwise"
    names = [n for n, value in ours["options"].items() if theirs["options"].get(n, value) != value]
    return ", ".join(f"{n} = {theirs['options'][n]!r}, not {ours['options'][n]!r}" for n in names)
