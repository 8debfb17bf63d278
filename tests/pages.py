"""Reads the documents, and runs the code in them.

The fenced blocks of a page are run from top to bottom, in one folder. It holds model.pt, model.snn, train.npz,
test.npz, and data.npz, which is train.npz.

| block | |
|---|---|
| python | is run; the blocks of a page share a namespace |
| sh | each line is run; the exit code has to be 0, or N where the line ends in `# exits with N` |
| any language with title="FILE" | is written to FILE |
| output | has to be what the block before it printed; figures may differ, and `...` stands for anything |
| others | are only shown |

A block behind a line `<!-- not run: REASON -->` is not run. `python -m tests.pages PAGE.md` runs a page and writes
what it prints into its output blocks.
"""

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner

from examples import small
from snnc.cli import main, show
from tests.plugged import restored

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<excuse>.+) -->\n)?"
    r'(?P<open>```(?P<language>\w+)(?: title="(?P<title>[\w.-]+)")?\n)(?P<code>(?:.*\n)*?)```$',
    re.MULTILINE,
)
RUN = ("python", "sh")
WIDTH = 100  # columns of the terminal
SHELL = re.compile(r"[|&;<>$`]")  # what only a shell understands


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, code, first line and file name, and why it is not run ("" if it is)."""

    language: str
    code: str
    line: int
    title: str = ""
    excuse: str = ""

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.excuse and not self.title


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: str) -> list[Block]:
    return [
        Block(m["language"], m["code"], page.count("\n", 0, m.start("code")), m["title"] or "", m["excuse"] or "")
        for m in FENCE.finditer(page)
    ]


def supply(folder: Path, training: int = small.TRAINING, test: int = 797, epochs: int = 8) -> None:
    """What a page may take for granted."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        small.main(epochs)
        for name, count in (("train", training), ("test", test)):
            with np.load(f"{name}.npz") as data:
                np.savez(name, x=data["x"][:count], y=data["y"][:count])
        Path("data.npz").write_bytes(Path("train.npz").read_bytes())
        call("snnc compile model.pt --T 4 --calib train.npz --recipe opi")


def call(line: str) -> str:
    """Runs a line of shell; gives what it prints.

    Raises:
        AssertionError: the exit code is not the one that the line promises.
    """
    promised = re.search(r"# exits with (\d+)$", line)
    words = shlex.split(line, comments=True)
    if words[:1] == ["snnc"] and not SHELL.search(line.partition(" #")[0]):
        found = CliRunner().invoke(main, words[1:])  # spares the start of another process
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        code, printed, trouble = found.exit_code, found.stdout, found.stderr
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH)}
        done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
        code, printed, trouble = done.returncode, done.stdout, done.stderr
    assert code == int(promised[1] if promised else 0), f"{line}\nexits with {code}:\n{printed}{trouble}"
    return printed + trouble if code else printed


def lines(code: str) -> list[str]:
    """The lines of a shell block, continued ones joined."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def same(shown: str, printed: str) -> bool:
    """Whether an output block shows what was printed. Figures depend on the machine, and widths on figures."""

    def plain(text: str) -> str:
        return re.sub(r"[-─]*─[-─]*", "─", re.sub(r"[-+]?\d[\d,]*(\.\d+)?(e-?\d+)?", "0", text))

    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(plain(shown), plain(printed), flags)


def run(page: Path, check: bool = True) -> list[tuple[Block, str]]:
    """Runs a page in the current folder; gives each output block with what it should show.

    Raises:
        AssertionError: a block shows what it did not print. Whatever a block raises comes through.
    """
    torch.set_num_threads(1)
    show.out.width = WIDTH
    os.environ["COLUMNS"] = str(WIDTH)  # without a terminal, tables keep to a width only where this tells one
    module = types.ModuleType("page")  # dataclasses and pickle look classes up where they were made
    sys.modules["page"] = module
    sys.path.insert(0, "")
    with restored():
        return list(_shown(page, module, check))


def _shown(page: Path, module: types.ModuleType, check: bool) -> Iterator[tuple[Block, str]]:
    printed = ""
    for block in blocks(text(page)):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "output":
            assert not check or same(block.code, printed), (
                f"{page}:{block.line} shows\n{block.code}\nand not\n{printed}"
            )
            yield block, printed
        elif block.runs and block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                code = "\n" * block.line + block.code  # a traceback names the line of the page
                exec(compile(code, str(page), "exec"), vars(module))
            printed = out.getvalue()
        elif block.runs:
            printed = "".join(map(call, lines(block.code)))


def rewritten(page: Path) -> str:
    """The page with what its blocks print now."""
    found = text(page)
    for block, printed in run(page, check=False):
        if "..." not in block.code:
            tidy = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
            found = found.replace(f"```output\n{block.code}", f"```output\n{tidy}\n", 1)
    return found


if __name__ == "__main__":
    pages = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        supply(Path(folder))
        for page in pages:
            page.write_text(rewritten(page), encoding="utf-8")
