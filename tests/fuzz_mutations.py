"""Changes to files: bytes anywhere, and numbers, names and nesting behind the outermost layer."""

import io
import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

import onnx

Bytes = bytes
EXTREMES = [0, 1, 2, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
WORDS = ["", "x", "input", "a" * 300, "../../etc/passwd", "/etc/passwd", "os.system", "__import__('os')", "\x1b[2J",
         "{x!r}", "%s", "0", "-1", "nan", "1e400", "true", "Linear", "\0"]  # fmt: skip


class Hostile:
    """Pickles to a call that leaves a file behind, in the folder that the worker is in."""

    def __reduce__(self) -> Any:
        return os.system, ("touch it-ran",)


def _any(chance: random.Random, data: Bytes) -> int:
    """A place; the beginning and the end, where headers and directories stand, more often than others."""
    place = chance.choice((chance.random(), chance.random() ** 4, 1 - chance.random() ** 4))
    return min(int(place * len(data)), max(0, len(data) - 1))


def flip(chance: random.Random, data: Bytes) -> Bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        out[_any(chance, data)] ^= 1 << chance.randrange(8)
    return bytes(out)


def write(chance: random.Random, data: Bytes) -> Bytes:
    """Numbers of extreme size where lengths, offsets and counts may stand."""
    out, width = bytearray(data), chance.choice((1, 2, 4, 8))
    value = chance.choice(EXTREMES) & (2 ** (8 * width) - 1)
    place = _any(chance, data)
    out[place : place + width] = value.to_bytes(width, chance.choice(("little", "big")))
    return bytes(out)


def cut(chance: random.Random, data: Bytes) -> Bytes:
    return data[: _any(chance, data)]


def drop(chance: random.Random, data: Bytes) -> Bytes:
    place = _any(chance, data)
    return data[:place] + data[place + chance.choice((1, 2, 4, 16, 200)) :]


def splice(chance: random.Random, data: Bytes) -> Bytes:
    """A piece from elsewhere, written over or put between."""
    source, place, size = _any(chance, data), _any(chance, data), chance.choice((1, 4, 16, 64, 500))
    return data[:place] + data[source : source + size] + data[place + chance.choice((0, size)) :]


def insert(chance: random.Random, data: Bytes) -> Bytes:
    place = _any(chance, data)
    return data[:place] + chance.choice((chance.randbytes(8), b"\0" * 64, b"\xff" * 8, b"((" * 50)) + data[place:]


def poison(chance: random.Random, data: Bytes) -> Bytes:
    """A pickle that would run a command, in the place of what is there or in front of it."""
    bad = pickle.dumps(Hostile(), protocol=chance.choice((0, 2, 4)))
    return chance.choice((bad, bad[:-1] + b"0" + data.removeprefix(b"\x80\x02"), data[:-1] + b"0" + bad))


BYTES = (flip, flip, write, write, cut, drop, splice, insert)


def zipped(chance: random.Random, data: Bytes) -> Bytes:
    """One member changed, renamed, dropped or doubled; sums and sizes are right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = chance.randrange(len(members))
    name, content = members[at]
    folder, _, _ = name.partition("/")
    how = chance.randrange(10)
    if how == 0:
        del members[at]
    elif how == 1:
        members[at] = (chance.choice(WORDS).replace("\0", "") or "x", content)
    elif how == 2:
        members.append((f"{folder}/{chance.choice(('data/99', 'constants.pkl', 'code/x.py', 'extra/x'))}", b"x"))
    elif how == 3:
        other = chance.randrange(len(members))
        members[at], members[other] = (name, members[other][1]), (members[other][0], content)
    elif how == 4:
        at = next((i for i, (n, _) in enumerate(members) if n.endswith((".pkl", ".pt"))), at)
        members[at] = (members[at][0], poison(chance, members[at][1]))
    elif name.endswith(".json") and chance.random() < 0.8:
        members[at] = (name, document(chance, content))
    elif content:
        members[at] = (name, chance.choice(BYTES)(chance, content))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", chance.choice((0, 0, 0, 0, 8))) as archive:
        for name, content in dict(members).items():
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)  # at no time of day
    return out.getvalue()


def document(chance: random.Random, data: Bytes) -> Bytes:
    """JSON with one value replaced, removed, doubled or nested."""
    try:
        root = json.loads(data)
    except ValueError:
        return flip(chance, data)
    parent: Any = {"": root}
    key: Any = ""
    while isinstance(parent[key], dict | list) and parent[key] and chance.random() < 0.93:
        parent = parent[key]
        key = chance.choice(list(parent)) if isinstance(parent, dict) else chance.randrange(len(parent))
    odd = [None, True, -1, 0.5, [], {}, [[]], {"a": 1}, *EXTREMES, *WORDS]
    how = chance.randrange(6)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif how == 2:
        parent[key] = [parent[key]]
    else:
        parent[key] = chance.choice(odd)
    return json.dumps(root if key != "" else parent.get("")).encode()


def protobuf(chance: random.Random, data: Bytes) -> Bytes:
    """One field of an ONNX model, at any depth, set to something else, doubled, moved or cleared."""
    model = onnx.ModelProto.FromString(data)
    at: Any = model
    while True:
        below = [v for f, value in at.ListFields() if f.message_type
                 for v in (value if hasattr(value, "add") else [value])]  # fmt: skip
        if not below or chance.random() < 0.12:
            break
        at = chance.choice(below)
    names = [f for f, _ in at.ListFields()] if chance.random() < 0.85 else list(at.DESCRIPTOR.fields)
    if not names:
        return flip(chance, data)
    target = chance.choice(names)
    value = getattr(at, target.name)
    many = hasattr(value, "__len__") and not isinstance(value, str | bytes)
    try:
        if many and len(value) and chance.random() < 0.5:
            _many(chance, value)
        elif target.message_type or chance.random() < 0.15:
            at.ClearField(target.name)
        elif many:
            value.append(_scalar(chance, target, value[0] if len(value) else 0))
        else:
            setattr(at, target.name, _scalar(chance, target, value))
    except (TypeError, ValueError):  # a number that the field cannot hold
        return flip(chance, data)
    return model.SerializeToString()


def _many(chance: random.Random, values: Any) -> None:
    at, other = chance.randrange(len(values)), chance.randrange(len(values))
    how = chance.randrange(4)
    if how == 0:
        del values[at]
    elif how == 1:
        values.extend([values[at]])
    elif how == 2 and hasattr(values, "add"):
        values[at].MergeFrom(values[other])
    elif how == 2:
        values[at] = values[other]
    else:
        for value in [values[i] for i in range(len(values))][:at]:
            values.extend([value])


def _scalar(chance: random.Random, target: Any, old: Any) -> Any:
    if isinstance(old, bytes):
        return chance.choice((b"", old[:-1], old * 2, chance.randbytes(8)))
    if isinstance(old, str):
        return chance.choice(WORDS)
    if isinstance(old, float):
        return chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    return chance.choice((*EXTREMES, -1, -2, -(2**31), -(2**63), int(old) + 1, int(old) - 1, 3, 5, 6, 8))


def text(chance: random.Random, data: Bytes) -> Bytes:
    """A line of TOML dropped, doubled or moved, or a value in it replaced."""
    lines = data.decode(errors="replace").split("\n")
    at = chance.randrange(len(lines))
    how = chance.randrange(6)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(chance.randrange(len(lines)), lines[at])
    else:
        values = [*map(str, EXTREMES), "-1", "nan", "-inf", "1e999", "[]", "{}", "[1, [2]]", "{a = 1}", "1979-05-27",
                  '""', '"x"', "true", *map(json.dumps, WORDS)]  # fmt: skip
        lines[at] = re.sub(r"=.*", lambda _: "= " + chance.choice(values), lines[at])
    return "\n".join(lines).encode()


INSIDE: dict[str, Callable[[random.Random, Bytes], Bytes]] = {"zip": zipped, "onnx": protobuf, "text": text}


def mutate(content: Bytes, form: str, seed: str) -> Bytes:
    """A changed file, always the same for a seed: half of them change what is behind the outermost layer."""
    chance = random.Random(seed)
    out = content
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        inside = INSIDE.get(form)
        if inside and chance.random() < 0.6:
            try:
                out = inside(chance, out)
                continue
            except Exception:
                pass
        how = poison if form == "bytes" and chance.random() < 0.04 else chance.choice(BYTES)
        out = how(chance, out) if out else out
    return out
