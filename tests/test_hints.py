"""What each hint of the program says to do is accepted.

The rows stand in `tests/followed`, those of capture in `tests/capture`. A row may stand for several hints that say the
same.
"""

import warnings
from importlib import import_module
from pathlib import Path

import pytest

import snnc
from snnc.errors import SnncError
from tests.followed import NET, X
from tests.followed.elsewhere import ELSEWHERE
from tests.hints import hints

TABLES = ("data", "files", "forms", "passes", "commands", "recorded", "several", "frames")
FOLLOWED = [row for name in TABLES for row in import_module(f"tests.followed.{name}").ROWS]


@pytest.fixture(scope="module")
def net():
    return snnc.compile(NET, 2, "opi", X)


@pytest.mark.parametrize("case", range(len(FOLLOWED)), ids=[f"{i} {row[0]}" for i, row in enumerate(FOLLOWED)])
def test_what_a_hint_says_is_accepted(case, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, before, after = FOLLOWED[case]
    words = max(words.split("{}"), key=len)
    with pytest.raises(SnncError) as raised:
        before(net, tmp_path)
    assert words in raised.value.hint, raised.value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after(net, tmp_path)


def _stands_for(words: str, text: str) -> bool:
    """A few letters occur in many hints: they stand for nothing but themselves."""
    return words == text or (len(words.replace("{}", "")) > 11 and words in text)


def test_every_hint_is_followed():
    found = {h.text: h.file for h in hints() if h.text and not h.file.startswith("capture/")}
    left = {text for text in found if not any(_stands_for(row[0], text) for row in FOLLOWED)} - ELSEWHERE.keys()
    assert not left, f"give each of these a row in tests/followed: {sorted((found[text], text) for text in left)}"
    assert ELSEWHERE.keys() <= found.keys()
    for file, test in (where.split("::") for where in ELSEWHERE.values()):
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), test
