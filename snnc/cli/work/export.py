"""What `snnc export` does, and how a network comes into one or several files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from snnc import api
from snnc.backends import BACKENDS, NirFile, OnnxModel
from snnc.cli import show
from snnc.cli.targets import Form, destinations
from snnc.errors import DataError, SnncError
from snnc.measure.suits import known
from snnc.networks.network import Network
from snnc.structure import Inputs, shapes_of


def run(
    net: Path,
    input_shape: tuple[int, ...] | None,
    backend: str | None,
    single_output: bool,
    out: tuple[Path, ...],
    as_json: bool,
) -> None:
    """See the command."""
    forms = destinations(out, backend, net, None, named=True)
    require_onnx(single_output, forms)
    with show.busy(f"loading {net}"):
        network = api.load(net)
    network.require_inside()
    assert isinstance(network, Network)
    if input_shape:
        network.info["input_shape"] = _shape(network, input_shape)
    write(network, forms, single_output)
    if as_json:
        return show.as_json({"net": str(net), **written(forms)})
    for path, _ in forms:
        show.wrote(path)
    if known := next((path for path, name in forms if BACKENDS[name].loads), None):
        show.say(f"To compare them: snnc verify {net} {known} --data DATA", "dim")
    return None


def require_onnx(single_output: bool, forms: Sequence[Form]) -> None:
    """Refuses `--single-output` where no ONNX file is to be written."""
    if single_output and all(backend != OnnxModel.name for _, backend in forms):
        raise click.UsageError(f"--single-output is for ONNX files, and '{forms[0][0]}' is to be another.")


def require_nir(target: str | None, forms: Sequence[Form]) -> None:
    """Refuses `--target` where there is no such target, or no NIR file is to be written."""
    if target and known(target) and all(backend != NirFile.name for _, backend in forms):
        raise click.UsageError(f"--target is for NIR files, and '{forms[0][0]}' is to be another: -o NAME.nir.")


def write(net: Network, forms: Sequence[Form], single_output: bool, target: str | None = None) -> None:
    """Writes a network in every form; where one fails, says which files are there."""
    done: list[str] = []
    for out, backend in forms:
        options: Any = OnnxModel(anytime=False) if single_output and backend == OnnxModel.name else backend
        options = NirFile(target) if target and backend == NirFile.name else options
        try:
            with show.busy(f"writing {out}"):
                api.save(net, out, options)
        except SnncError:
            if done:
                show.note(f"Written before this failed: {', '.join(done)}.")
            raise
        done.append(str(out))


def written(forms: Sequence[Form]) -> dict[str, Any]:
    """The files as JSON: the first, and all."""
    files = [{"out": str(out), "backend": backend} for out, backend in forms]
    return {**files[0], "files": files}


def _shape(network: Network, given: tuple[Any, ...]) -> list[Any]:
    """The shape of one sample of a network that does not know its own.

    Raises:
        DataError: it knows another, or takes no such sample.
    """
    known = network.info.get("input_shape")
    if known and show.shape(known) != show.shape(given):
        told = f"{show.shape(known)}, not {show.shape(given)} as --input-shape says"
        raise DataError(f"The network takes samples of shape {told}.", "leave --input-shape out")
    network(Inputs([torch.zeros(1, *(one or ())) for one in shapes_of(given, len(network.inputs))]))
    return [list(one) if isinstance(one, tuple) else one for one in given]
