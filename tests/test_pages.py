"""Every block of code in the documents runs, and what they show is what is printed. See `tests/pages.py`.

Pages run in processes of their own, since their examples register modules. These are forked from one process that has
imported snnc already: an import takes seconds.
"""

import contextlib
import multiprocessing
import re
import shutil
import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests import pages
from tests.pages import PAGES, blocks, call, lines, relative, run, same, supply, text

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([pages.__name__])
# Why a block is not run, and in how many blocks: each more has to be argued for here.
EXCUSES = {
    "it sets up a machine": 2,
    "it needs a GPU": 1,
    "it needs other simulators": 2,
    "it needs Sinabs": 2,
    "it needs a compiled network": 1,
    "it needs published data": 1,
    "it starts many processes": 1,
    "it stands in the middle of a source file": 2,
}


def forked(task, folder, *arguments):
    """Runs a task in a fresh process, in a folder; gives what went wrong."""
    process = FORKS.Process(target=logged, args=(task, folder, *arguments))
    process.start()
    process.join(300)  # seconds; a machine may be busy
    if process.is_alive():
        process.kill()
        return "not done in 300 s"
    log = Path(folder, "log.txt")
    return text(log) if log.exists() else "" if process.exitcode == 0 else f"exit code {process.exitcode}"


def logged(task, folder, *arguments):
    with contextlib.chdir(folder):
        try:
            task(*arguments)
        except BaseException:
            Path("log.txt").write_text(traceback.format_exc(), encoding="utf-8")


@pytest.fixture(scope="module")
def supplies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("supplies")
    assert forked(supply, folder, folder, 192, 64, 2) == ""
    return folder


@pytest.mark.parametrize("path", [p for p in PAGES if any(b.runs for b in blocks(text(p)))], ids=relative)
def test_every_block_runs(path, supplies, tmp_path):
    shutil.copytree(supplies, tmp_path, dirs_exist_ok=True)
    if wrong := forked(run, tmp_path, path):
        pytest.fail(wrong, pytrace=False)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_block_is_understood(path):
    fences = [line for line in text(path).splitlines() if line.lstrip().startswith("```")]
    assert len(fences) == 2 * len(blocks(text(path)))
    assert {b.language for b in blocks(text(path))} <= {"python", "sh", "output", "toml", "text"}


def test_blocks_that_do_not_run_are_few_and_say_why():
    found = Counter(b.excuse for path in PAGES for b in blocks(text(path)) if b.excuse)
    assert found == EXCUSES


def test_an_excuse_stands_before_a_block():
    for path in PAGES:
        assert len(re.findall("^<!-- not run:", text(path), re.MULTILINE)) == sum(
            bool(b.excuse) for b in blocks(text(path))
        ), relative(path)


def test_no_command_hides_in_an_indented_block():
    # Figures are made by benchmarks on published data, which no test can run: only there may a command be indented.
    for path in PAGES:
        if path.name != "speed.md" and path.parent.name != "results":
            hidden = [line for line in text(path).splitlines() if line.startswith(("    snnc ", "    python "))]
            assert hidden == [], relative(path)


# The runner itself


def test_a_block_that_fails_is_seen(tmp_path):
    for number, code in enumerate(["```python\n1 / 0\n```\n", "```sh\nfalse\n```\n", "```sh\nsnnc check no.pt\n```\n"]):
        page = tmp_path / f"{number}.md"
        page.write_text(f"# Page\n\n{code}", encoding="utf-8")
        assert "Error" in forked(run, tmp_path, page)
        (tmp_path / "log.txt").unlink()


def test_a_wrong_output_is_seen(tmp_path):
    page = tmp_path / "page.md"
    for shown, right in (("spikes: 12", True), ("spikes: 7", True), ("neurons: 12", False)):
        page.write_text(f"```python\nprint('spikes:', 12)\n```\n\n```output\n{shown}\n```\n", encoding="utf-8")
        assert (forked(run, tmp_path, page) == "") is right
        (tmp_path / "log.txt").unlink(missing_ok=True)


def test_a_promised_exit_code_is_asked_for(tmp_path):
    assert call("exit 3  # exits with 3") == ""
    with pytest.raises(AssertionError, match="exits with 0"):
        call("true  # exits with 1")


def test_lines_and_outputs():
    assert lines("snnc check \\\nmodel.pt\n# a remark\n\nsnnc list\n") == ["snnc check  model.pt", "snnc list"]
    assert same("T = 4\nrate  0.25", "T = 8\nrate     0.125")
    assert same("first\n...\nlast", "first\n1\n2\nlast")
    assert not same("first\nlast", "first\n1\nlast")


def test_a_block_without_excuse_runs():
    one, two = blocks("<!-- not run: it needs a GPU -->\n```sh\nmake gpu\n```\n\n```python\nx = 1\n```\n")
    assert (one.runs, one.excuse, one.line) == (False, "it needs a GPU", 2)
    assert (two.runs, two.code, two.line) == (True, "x = 1\n", 6)
