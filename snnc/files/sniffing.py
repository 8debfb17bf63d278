"""What a file is, by its content."""

from __future__ import annotations

import zipfile
from pathlib import Path

from snnc.errors import LoadError
from snnc.files.safetensors import is_safetensors

# Protocol 2 and torch's magic number, pickled: how torch.save began every file before version 1.6.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_HDF5 = b"\x89HDF\r\n\x1a\n"


def sniff(path: str | Path) -> str:
    """The kind of a model file. Reads names and first bytes, unpickles nothing.

    Returns:
        "pt2" exported program, "torch-zip" from `torch.save` (snnc's graph files too), "torchscript",
        "legacy-pickle" from `torch.save` before 1.6, "pickle" any other pickle, "onnx", "safetensors", "hdf5", as NIR
        files are, or "unknown".

    Raises:
        LoadError: the file is missing, empty or a folder, cannot be read, or is a zip that is cut short.
    """
    path = Path(path)
    if path.is_dir():
        raise LoadError(f"{path} is a folder.", "a model file")
    try:
        with path.open("rb") as f:
            head = f.read(64)
    except FileNotFoundError as exc:
        raise LoadError(f"{path} does not exist.", "check the path") from exc
    except OSError as exc:
        raise LoadError(f"{path} cannot be read: {exc.strerror or exc}.", "check the path and its permissions") from exc
    if not head:
        raise LoadError(f"{path} is empty.", "save or copy it again")
    if head.startswith(b"PK"):
        with open_zip(path) as archive:
            return _zip_kind(archive.namelist())
    if head.startswith(_HDF5):
        return "hdf5"
    if head.startswith(_LEGACY):
        return "legacy-pickle"
    if is_safetensors(path, head):
        return "safetensors"
    if path.suffix == ".onnx" or (_looks_like_onnx(head) and _is_onnx(path)):
        return "onnx"
    return "pickle" if head[0] == 0x80 and head[1:2] <= b"\x05" else "unknown"


def open_zip(path: Path) -> zipfile.ZipFile:
    """The zip at `path`, opened for reading.

    Raises:
        LoadError: its directory, which stands at the end, is missing or damaged.
    """
    try:
        return zipfile.ZipFile(path)
    except Exception as exc:  # a damaged directory can raise many kinds
        raise LoadError(f"{path} is cut short or damaged.", "save or copy it again") from exc


def check_zip(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuses damage, and what torch never writes: compressed or doubled members, paths that lead out, false sizes."""
    members = archive.infolist()
    names = [m.filename for m in members]
    if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
        raise LoadError(f"{path} has compressed or encrypted members.", "the file as torch wrote it")
    if sum(m.file_size for m in members) > path.stat().st_size:
        raise LoadError(f"{path} claims to hold more than its own size.", "the file as torch wrote it")
    if len(set(names)) < len(names):
        raise LoadError(f"{path} holds a member twice.", "the file as torch wrote it")
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise LoadError(f"{path} has a member with the path '{name}'.", "the file as torch wrote it")
    # torch reads a member from wherever its header says, and checks no sum: a spoilt header gives other weights.
    try:
        spoilt = archive.testzip()
    except Exception as exc:  # a damaged header can raise many kinds
        raise LoadError(f"{path} is damaged: {exc}.", "save or copy it again") from exc
    if spoilt:
        raise LoadError(f"{path} is damaged at '{spoilt}': its checksum is wrong.", "save or copy it again")


def _zip_kind(names: list[str]) -> str:
    inner = {name.partition("/")[2] for name in names}  # torch puts all members into one folder
    if "archive_format" in inner or {"archive_format", "serialized_exported_program.json"} & set(names):
        return "pt2"
    if "constants.pkl" in inner:
        return "torchscript"
    return "torch-zip" if "data.pkl" in inner else "unknown"


def _looks_like_onnx(head: bytes) -> bool:
    """Whether it starts as a ModelProto does: a small `ir_version`, then the producer's name or domain."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 0x20 and head[2] in b"\x12\x1a\x22\x2a\x32\x3a\x42"


def _is_onnx(path: Path) -> bool:
    import onnx  # slow to import, and few files get here

    try:
        return bool(onnx.load(path, load_external_data=False).graph.node)
    except Exception:  # protobuf's errors share no base with other parsers'; any of them means "no"
        return False
