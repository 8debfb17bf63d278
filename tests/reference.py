"""Writes what the program says about itself into the documents: `make reference`.

The help of every command goes into docs/commands.md, the table of all recipes into docs/recipes.md, and a small network
at every stage into tests/golden/.
"""

import re
from pathlib import Path

from click.testing import CliRunner

from snnc.cli import main
from snnc.recipes import names, recipe
from tests import golden

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "commands.md"
RECIPES = DOCS / "recipes.md"
HEADING = "## The commands in full\n"
INDEX = re.compile(r"(?<=<!-- recipes: begin -->\n).*(?=<!-- recipes: end -->)", re.DOTALL)


def help_of(name: str) -> str:
    """The help of a command, 100 columns wide."""
    shown = CliRunner().invoke(main, [name, "--help"], prog_name="snnc", terminal_width=100)
    return "\n".join(line.rstrip() for line in shown.output.splitlines())


def written(page: str) -> str:
    """The page with the help of every command as it is now."""
    prose = page[: page.index(HEADING)]
    parts = [f"### snnc {name}\n\n```text\n{help_of(name)}\n```\n" for name in sorted(main.commands)]
    return prose + HEADING + "\n" + re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def indexed(page: str) -> str:
    """The page with a row for every recipe as it is now."""
    rows = ["| recipe | what it does | needs data | source |", "|---|---|---|---|"]
    for name in names():
        found = recipe(name)
        data = "yes" if found.needs_data else "no"
        rows.append(f"| [{name}](recipes/{name}.md) | {found.summary} | {data} | {found.source} |")
    return INDEX.sub(lambda _: "\n" + "\n".join(rows) + "\n\n", page)


if __name__ == "__main__":
    for path, current in ((PAGE, written), (RECIPES, indexed)):
        path.write_text(current(path.read_text(encoding="utf-8")), encoding="utf-8")
    golden.write()
