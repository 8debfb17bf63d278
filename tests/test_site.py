"""The documentation site: it builds without a warning, loads nothing from elsewhere, and has all that is public."""

import importlib
import os
import re
import subprocess
import sys

import pytest

import snnc
from snnc import errors
from snnc.backends import BACKENDS
from snnc.ir.neurons import NEURONS
from snnc.passes import PASSES
from tests.pages import ROOT, text

REFERENCE = sorted((ROOT / "docs" / "api").glob("*.md"))
ENTRY = re.compile(r"^::: ([\w.]+)(?:\n    options:\n      heading: ([\w.]+))?$", re.MULTILINE)


def found(path):
    """What a dotted path names, as Python finds it."""
    parts = path.split(".")
    for split in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:split]))
            for part in parts[split:]:
                thing = getattr(thing, part)
        except (ImportError, AttributeError):
            continue
        return thing
    raise AssertionError(f"there is no {path}")


ENTRIES = [entry for page in REFERENCE for entry in ENTRY.findall(text(page))]


def test_every_public_name_is_in_the_reference():
    headings = {heading or path for path, heading in ENTRIES}
    assert {f"snnc.{name}" for name in snnc.__all__} <= headings


def test_every_class_that_users_choose_or_catch_is_in_the_reference():
    shown = {id(found(path)) for path, _ in ENTRIES}
    raised = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)]
    for thing in (*PASSES.values(), *NEURONS, *map(type, BACKENDS.values()), *raised):
        assert id(thing) in shown, thing.__name__


def test_a_heading_names_what_stands_below_it():
    # `snnc.explain` is a module to a reader of the source, and a function to whoever imports it.
    for path, heading in ENTRIES:
        assert not heading or found(path) is getattr(snnc, heading.removeprefix("snnc.")), heading
    assert len({path for path, _ in ENTRIES}) == len(ENTRIES)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    folder = tmp_path_factory.mktemp("site")
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    # Not --quiet: warnings that are not shown do not count as such.
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # strict: a broken link, a page without a place
    return folder


def test_the_site_has_every_page(site):
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "index.md", ROOT / "contributing.md", ROOT / "changelog.md"]
    for page in pages:
        if not page.name.startswith("0000"):
            place = page.relative_to(ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT)
            assert (site / place.with_suffix(".html")).exists(), place


def test_the_site_asks_for_nothing_from_elsewhere(site):
    asks = re.compile(r"<(?:script|img|iframe|link|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    for page in site.rglob("*.html"):
        # A canonical address is a name and is not fetched.
        assert [tag for tag in asks.findall(text(page)) if 'rel="canonical"' not in tag] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", text(style)), style


def test_no_block_is_lost_in_the_site(site):
    # A fence that mkdocs does not understand would show as text.
    for page in site.rglob("*.html"):
        assert "```" not in re.sub(r"<code.*?</code>", "", text(page), flags=re.DOTALL), page
