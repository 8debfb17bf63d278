"""`.pt2` archives: exported programs, rebuilt from what is known to be data before torch reads them.

`torch.export.load` is not safe by itself. An archive can run code through pickles (weights, constants, sample
inputs, custom objects), compiled libraries, size expressions and guards (both evaluated as Python), functions
reached by name, modules that a tree specification imports, and names that end up in generated source text.
So nothing is passed on as it came: members and fields that are known to be data are checked and copied into a
new archive, the rest is refused, and torch reads only the copy.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export.pt2_archive import PT2ArchiveWriter

from snnc.errors import LoadError
from snnc.files.screening import ReadRefused, is_name, screened
from snnc.files.sniffing import check_zip, open_zip

_MODEL, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_LEFT_OUT = re.compile(r"archive_format|archive_version|byteorder|version|\.data/\w+|extra/.*")


def load_pt2(path: str | Path) -> torch.export.ExportedProgram:
    """The exported program in a `.pt2` archive, on the CPU, without its guards on example inputs.

    Raises:
        LoadError: not such an archive, damaged, or holding anything besides a plain program and its tensors.
    """
    path = Path(path)
    try:
        copy = _rebuilt(_members(path))
    except ReadRefused as exc:
        raise LoadError(
            f"{path} is refused: {exc}; reading it could run code, and nothing was run.",
            "torch.export.save with torch 2.9 or newer, from a model of plain tensors and ATen operators",
        ) from exc
    except LoadError:
        raise
    except Exception as exc:  # a damaged archive can raise anything
        raise LoadError(f"{path} is damaged ({type(exc).__name__}).", "save or copy it again") from exc
    with _reasons() as reasons:
        try:
            return torch.export.load(copy)
        except Exception as exc:  # as above, within torch's reader
            reason = next((str(r).strip().partition("\n")[0] for r in reasons), type(exc).__name__)
            raise LoadError(
                f"{path} could not be read by this torch: {reason.rstrip('.')}.", "export it again"
            ) from exc


@contextmanager
def _reasons() -> Iterator[list[BaseException]]:
    """Collects the exceptions that `torch.export.load` logs with a traceback instead of raising them."""
    reasons: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            reasons.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        yield reasons
    finally:
        logger.removeFilter(keep)


def _members(path: Path) -> dict[str, bytes]:
    """The archive's members by the name that torch uses, without the folder they are all in."""
    with open_zip(path) as archive:
        if "serialized_exported_program.json" in archive.namelist():
            raise ReadRefused("it has the format of torch 2.7 and older, which is pickled")
        check_zip(archive, path)
        if len({name.partition("/")[0] for name in archive.namelist()}) != 1:
            raise ReadRefused("its members are not in one folder")
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def _rebuilt(members: dict[str, bytes]) -> io.BytesIO:
    if members.get("byteorder", b"little") != b"little":
        raise ReadRefused("it was written by a big-endian machine")
    if missing := {_MODEL, _INPUTS, *_CONFIGS} - set(members):
        raise ReadRefused(f"it has no member {min(missing)}")
    copy = io.BytesIO()
    with PT2ArchiveWriter(copy) as out:
        for name, content in members.items():
            if name == _MODEL:
                program = screened(json.loads(content))
                program["guards_code"] = []  # Python conditions on the inputs, which torch would execute
                out.write_bytes(name, json.dumps(program).encode())
            elif name in _CONFIGS:
                config = screened(json.loads(content))
                _check_payloads(config, name, members)
                out.write_bytes(name, json.dumps(config).encode())
            elif name == _INPUTS:
                _check_inputs(content)
                out.write_bytes(name, content)
            elif _TENSORS.fullmatch(name):
                out.write_bytes(name, content)
            elif not _LEFT_OUT.fullmatch(name):
                raise ReadRefused(f"it holds {name}, which is no plain tensor of the program")
    copy.seek(0)
    return copy


def _check_payloads(config: dict[str, Any], place: str, members: dict[str, bytes]) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] is not False or payload["tensor_meta"] is None:
            raise ReadRefused(f"'{name}' is stored as a pickled object")
        if not _CONFIGS[place].fullmatch(payload["path_name"]):
            raise ReadRefused(f"'{name}' is stored in {payload['path_name']}, which is no plain tensor")
        sizes = [size.get("as_int") for size in payload["tensor_meta"]["sizes"]]
        # torch fills a tensor without a payload with zeros, so a few bytes could claim all memory.
        if not members[f"{Path(place).parent.as_posix()}/{payload['path_name']}"] and 0 not in sizes:
            raise ReadRefused(f"'{name}' has no values")


def _check_inputs(content: bytes) -> None:
    """Sample inputs that torch cannot read safely it reads unsafely, so they must pass the first way."""
    if not content:
        return
    try:
        args, kwargs = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as exc:
        raise ReadRefused("its sample inputs are more than tensors and plain data") from exc
    if not isinstance(args, tuple) or not isinstance(kwargs, dict) or not all(map(is_name, kwargs)):
        raise ReadRefused("its sample inputs are not a tuple and a dict")
