"""What comes in and what goes out: the files that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snnc import api
from snnc.capture import Captured, misframed, one_frame, told_inputs, told_shape
from snnc.capture import captured as capture
from snnc.cli import show
from snnc.data import Dataset
from snnc.errors import DataError, LoadError, Unsupported
from snnc.files import load_model, load_torch, sniff
from snnc.files.emitted import is_emitted_file
from snnc.ir.graph import Stage
from snnc.ir.graphfile import FORMAT
from snnc.networks.base import SpikingNetwork
from snnc.networks.exported import has_history
from snnc.networks.staged import staged
from snnc.structure import Shape


def uncompiled(
    model: Path | None,
    factory: str | None,
    allow: tuple[str, ...] = (),
    key: str | None = None,
    leftover: bool = False,
) -> Any:
    """The user's network, not yet compiled; says which names of a checkpoint were taken for which."""
    if model is None and factory is None:
        raise click.UsageError("Give MODEL, or --factory for one that builds the whole network.")
    emitted = model is not None and model.is_file() and _has_history(model)
    told: list[str] = []
    with show.busy(f"loading {model or factory}"):
        how: dict[str, Any] = {"factory": factory, "allow": allow, "key": key, "leftover": leftover}
        found = {} if emitted else load_model(model, **how, say=told.append)
    for one in told:
        show.note(one)
    if isinstance(found, dict) and found.get("stage") in (Stage.ANN, Stage.FOLDED, Stage.QUANTIZED):
        return staged(found, f"'{model}'")
    if isinstance(found, dict):
        raise LoadError(
            f"'{model}' is a spiking network already.", f"snnc inspect {model}, or the network it was made from"
        )
    return found


def captured(network: Any, data: Dataset | None, input_shape: Shape | None) -> Captured:
    """The network as a graph, compared with it on some of the data where there are any.

    The input's shape comes from the data, from the user, or from both if they agree. Of several inputs the data tell
    also which they are.
    """
    if data is not None:
        data = data.taking(*told_inputs(network))
    told: Any = data.frame_shape if data else None
    shown = next(data.limit(3).batches(3))[0] if data else None
    if data is not None and data.frames and shown is not None:
        shown = one_frame(shown)
    if data and input_shape and told != input_shape:
        shapes = f"{show.shape(told)}, not {show.shape(input_shape)} as --input-shape says"
        raise DataError(f"The samples of {data.source} have shape {shapes}.", "leave --input-shape out")
    own, shape = told_shape(network), input_shape or told
    if data is not None and data.takes and not input_shape:
        shape = dict(zip(data.takes, told, strict=True))
    try:
        with show.busy("reading the network"):
            found = capture(network, shape, shown)
    except Unsupported:
        if data and not input_shape and (wrong := misframed(network, data.input_shape, data.frames)):
            raise wrong from None
        if data and told:
            show.note(
                f"The input's shape comes from the data: the samples of {data.source} have shape {show.shape(told)}."
            )
        raise
    if own and shape and own != shape and not (data is not None and data.takes):
        show.note(f"The network takes samples of shape {show.shape(own)}: those of {show.shape(shape)} are rearranged.")
    return found


def compiled(file: Path | None) -> SpikingNetwork | None:
    """The spiking network in a file, or None where it holds something else."""
    if file is None or str(file) == "-":
        return None
    return api.load(file) if _has_history(file) or _is_graph_file(file) else None


def _has_history(file: Path) -> bool:
    """Whether this is an exported program or an ONNX file that snnc wrote, or a NIR file."""
    kind = sniff(file)
    return kind == "hdf5" or (kind == "pt2" and has_history(file)) or (kind == "onnx" and is_emitted_file(file))


def _is_graph_file(file: Path) -> bool:
    """Whether this is a graph file of a spiking network, or a broken one."""
    try:
        content = load_torch(file)
    except LoadError:
        return False
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    return content.get("stage") not in (Stage.ANN, Stage.FOLDED, Stage.QUANTIZED)
