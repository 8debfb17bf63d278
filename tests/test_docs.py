"""The documents tell the truth: what they name exists, and what exists is documented.

Their code is run by `tests/test_pages.py`.
"""

import dataclasses
import itertools
import re
import shlex
import typing

import click
import pytest

from snnc.backends import BACKENDS
from snnc.backends.nir.targets import TARGETS
from snnc.cli import main
from snnc.ir.neurons import (
    LAYER_SYNCHRONOUS,
    PIPELINED,
    STREAMING,
    TWO_PASS,
    AverageIF,
    OffsetIF,
    ResidualMaskIF,
    WaitingIF,
)
from snnc.passes import PASSES
from snnc.recipes import names, parse, recipe
from tests import pages
from tests.pages import FENCE, PAGES, ROOT, relative, text
from tests.reference import help_of, indexed, written

DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("0*.md"))
COMMANDS = ROOT / "docs" / "commands.md"
RECIPES = ROOT / "docs" / "recipes.md"
PASS_PAGE = ROOT / "docs" / "passes.md"
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def blocks(path, language):
    return [block.code for block in pages.blocks(text(path)) if block.language == language]


def spans(path):
    """What stands between backticks, outside of blocks."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text(path)))]


def commands(path):
    """Every call of snnc that a document shows, as a list of words."""
    lines = [line for code in blocks(path, "sh") for line in code.splitlines()]
    calls = [shlex.split(line, comments=True) for line in [*lines, *spans(path)] if line.startswith("snnc ")]
    return [words[1:] for words in calls]


def section(path, heading):
    """What stands under a heading, up to the next of its rank."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text(path), re.MULTILINE | re.DOTALL)
    assert found, f"{relative(path)} has no section '{heading}'"
    return found[2]


def headings(path, rank):
    return re.findall(rf"^{'#' * rank} (.+)$", text(path), re.MULTILINE)


documents = pytest.mark.parametrize("path", PAGES, ids=relative)


@documents
def test_python_is_python(path):
    for code in blocks(path, "python"):
        compile(code, relative(path), "exec")


@documents
def test_commands_exist(path):
    for words in commands(path):
        command = main.commands.get(words[0])
        assert command is not None, words
        options = {name for param in command.params for name in param.opts} | {"-h", "--help"}
        used = {word.partition("=")[0] for word in words[1:] if word.startswith("-") and word != "-"}
        assert used <= options, words
        chosen = dict(itertools.pairwise(words))
        if (named := chosen.get("--recipe")) and not named.endswith(".toml") and "--plugin" not in words:
            assert named in names(), words
        assert chosen.get("--backend", "torch") in BACKENDS, words


@documents
def test_options_in_the_text_exist(path):
    known = {name for command in main.commands.values() for param in command.params for name in param.opts}
    for span in spans(path):
        if span.startswith("--"):
            assert set(re.findall(r"(?<!\S)--[\w-]+", span)) <= known, span
        for name, option in re.findall(r"--set ([\w-]+)\.(\w+)=", span):
            assert option in PASSES[name].__dataclass_fields__, span


def test_the_readme_names_every_command():
    shown = {words[0] for words in commands(ROOT / "README.md")} | {
        span.split()[0] for span in spans(ROOT / "README.md") if span.split()[0] in main.commands
    }
    assert shown >= set(main.commands)
    assert all(isinstance(command, click.Command) for command in main.commands.values())


def test_the_help_of_every_command_is_current():
    assert text(COMMANDS) == written(text(COMMANDS)), "run 'make reference'"


def test_the_index_of_recipes_is_current():
    assert text(RECIPES) == indexed(text(RECIPES)), "run 'make reference'"


def test_every_command_and_option_is_explained():
    for name, command in main.commands.items():
        assert command.help, name
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, (name, param.opts)
                assert param.opts[0] in help_of(name), (name, param.opts)


def choices():
    """Every text that an option of a pass may have."""
    kinds = [kind for cls in PASSES.values() for kind in typing.get_type_hints(cls).values()]
    kinds += [part for kind in kinds for part in typing.get_args(kind)]
    return {value for kind in kinds if typing.get_origin(kind) is typing.Literal for value in typing.get_args(kind)}


# The rows of results have names of their own: networks, and recipes with options.
@pytest.mark.parametrize(
    "path", [path for path in PAGES if "results" not in (path.stem, path.parent.name)], ids=relative
)
def test_named_passes_and_recipes_exist(path):
    dashed = re.compile(r"[a-z]+(-[a-z]+)+")
    for span in spans(path):
        if dashed.fullmatch(span):
            assert span in {*PASSES, *names(), *choices(), *TARGETS}, span
    for pattern, known in ((r"PASSES\[\"(.+?)\"\]", PASSES), (r"snnc\.recipe\(\"(.+?)\"\)", names())):
        assert set(re.findall(pattern, text(path))) <= set(known)


@documents
def test_recipes_in_toml_are_recipes(path):
    own = re.findall(r'^ +name = "(.+)"$', "".join(blocks(path, "python")), re.MULTILINE)  # passes of a plug-in
    for code in blocks(path, "toml"):
        if "entry-points" not in code and not any(f'name = "{name}"' in code for name in own):
            parse(code, relative(path))


def test_every_target_is_documented():
    table = section(ROOT / "docs" / "nir.md", "Targets")
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(TARGETS)


def test_every_recipe_and_pass_is_documented():
    assert {path.stem for path in (ROOT / "docs" / "recipes").glob("*.md")} == set(names())
    assert headings(PASS_PAGE, 2) == list(PASSES)
    table = section(ROOT / "README.md", "Recipes")
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(names())


@pytest.mark.parametrize("name", names())
def test_recipe_sections_are_complete(name):
    written = section(ROOT / "docs" / "recipes" / f"{name}.md", name)
    for what in ("Passes", "Options", "Source", "Latency", "Cost"):
        assert f"- **{what}:**" in written
    listed = written.partition("**Passes:**")[2].partition("- **")[0]
    assert re.findall(r"`([\w-]+)`", listed) == [p.name for p in recipe(name).pipeline]
    # A schedule may have changed since the table was written.
    slow = {
        OffsetIF: LAYER_SYNCHRONOUS,
        AverageIF: LAYER_SYNCHRONOUS,
        WaitingIF: PIPELINED,
        ResidualMaskIF: TWO_PASS,
    }
    _, neuron = recipe(name).pipeline.chosen(8)
    schedule = slow.get(neuron, STREAMING)
    row = re.search(rf"^\| `{name}` \|.*$", text(ROOT / "README.md"), re.MULTILINE)[0]
    needs = "yes" if recipe(name).needs_data else "no"
    assert f"| {needs} | {schedule} |" in row


@pytest.mark.parametrize("name", PASSES)
def test_pass_sections_are_complete(name):
    cls, written = PASSES[name], section(PASS_PAGE, name)
    found = re.findall(r"^- `(\w+) = (.+?)`", written, re.MULTILINE)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    spelled = {k: f'"{v}"' if isinstance(v, str) else str(v).lower() for k, v in defaults.items()}
    assert dict(found) == spelled
    kinds = typing.get_type_hints(cls)
    for option in defaults:
        kind = kinds[option]
        if typing.get_origin(kind) is typing.Literal:
            assert all(f'"{value}"' in written for value in typing.get_args(kind)), option
    assert str(cls.takes[0]) in written
    assert cls.gives is None or f"gives {cls.gives}" in written


@documents
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text(path))):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        assert goal.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", text(goal), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}, target


@documents
def test_make_targets_exist(path):
    known = re.findall(r"^(\w+):", text(ROOT / "Makefile"), re.MULTILINE)
    shown = [line for code in blocks(path, "sh") for line in code.splitlines()] + spans(path)
    for line in shown:
        if line.startswith("make "):
            assert line.split()[1] in known, line


@documents
def test_files_in_the_text_exist(path):
    for span in spans(path):
        if re.fullmatch(r"(snnc|tests|docs|examples|benchmarks)/[\w./-]+", span):
            assert (ROOT / span).exists(), span


def test_records_are_numbered_and_whole():
    numbers = [int(path.name[:4]) for path in RECORDS]
    assert len(set(numbers)) == len(numbers)
    for path in RECORDS:
        assert text(path).startswith(f"# {int(path.name[:4])}. "), relative(path)
        assert headings(path, 2) == ["Status", "Context", "Decision", "Consequences"], relative(path)


def test_the_index_of_decisions_has_every_record_once():
    listed = re.findall(r"^\| \[(\d+)\]\((\d{4}-[\w-]+\.md)\) \|", text(DECISIONS / "index.md"), re.MULTILINE)
    records = [path.name for path in RECORDS if not path.name.startswith("0000")]
    assert sorted(name for _, name in listed) == records, "list each record in docs/decisions/index.md"
    assert all(int(name[:4]) == int(number) for number, name in listed)
