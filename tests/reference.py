"""Writes what every command says of itself into docs/commands.md: `make reference`."""

import re
from pathlib import Path

from click.testing import CliRunner

from snnc.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
HEADING = "## The commands in full\n"


def help_of(name: str) -> str:
    """The help of a command, 100 columns wide."""
    shown = CliRunner().invoke(main, [name, "--help"], prog_name="snnc", terminal_width=100)
    return "\n".join(line.rstrip() for line in shown.output.splitlines())


def written(page: str) -> str:
    """The page with the help of every command as it is now."""
    prose = page[: page.index(HEADING)]
    parts = [f"### snnc {name}\n\n```text\n{help_of(name)}\n```\n" for name in sorted(main.commands)]
    return prose + HEADING + "\n" + re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
