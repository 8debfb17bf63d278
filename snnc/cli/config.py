"""Runs as files: `--save-config` writes every option of a run, `--config` takes them again.

    command = "compile"

    [options]
    model = "model.pt"
    T = 8

    [sha256]
    "model.pt" = "..."

Options are spelled as on the command line, without the dashes; arguments by their names. Options on the command line
win over the file. The hashes are those of the input files: if one has changed, the run says so.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from snnc.checks import one_of
from snnc.cli import show
from snnc.cli.options import PATH, READ
from snnc.cli.targets import target
from snnc.errors import SnncError, WriteError

# How a run talks, and these options themselves, are no part of it.
MANNER = {"help", "as_json", "debug", "quiet", "verbose", "config", "save_config", "dry_run"}
CHANGED = "snnc.changed"


def configurable(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `--config` and `--save-config`; stands below `verb`."""

    @functools.wraps(command)
    def run(*, save_config: Path | None, **options: Any) -> None:
        context = click.get_current_context()
        for name in context.meta.get(CHANGED, ()):
            show.note(f"'{name}' is not the file that the saved run had: its SHA-256 differs.")
        if save_config:
            given = _paths(context)
            given.remove(save_config)  # once: a file that is read or written as well is still there
            if save_config in given:  # whether it exists by now or not
                raise WriteError(f"'{save_config}' is given twice.", "a file of its own for --save-config")
            target(save_config, *given)
        command(**options)
        from snnc.files import atomic_write
        from snnc.processes import rank

        if save_config and rank() == 0 and not context.params.get("dry_run"):
            with atomic_write(save_config) as temporary:
                temporary.write_text(_text(context, save_config), encoding="utf-8")

    for option in (
        click.option("--save-config", type=PATH, metavar="FILE.toml", help="Write all options of this run to a file."),
        click.option(
            "--config",
            type=PATH,
            metavar="FILE.toml",
            help="Take options from such a file; those given here win.",
            is_eager=True,
            expose_value=False,
            callback=_read,
        ),
    ):
        run = option(run)
    return run


def _read(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Makes the options of a file the defaults of this run."""
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for key in content:
            one_of(key, ("command", "options", "sha256", "versions"), f"key in '{path}'")
        options, hashes = content.get("options", {}), content.get("sha256", {})
        if not isinstance(options, dict) or not isinstance(hashes, dict):
            raise SnncError(f"'{path}' is no saved run: options and sha256 are tables.")
        if content.get("command") != context.command.name:
            raise SnncError(f"'{path}' is a run of 'snnc {content.get('command')}', not of '{context.command_path}'.")
        names = _spellings(context.command) | _spellings(context.command, former=True)
        known = {names[one_of(key, names, f"option in '{path}'")]: value for key, value in options.items()}
    except SnncError as problem:
        raise click.UsageError(str(problem)) from problem
    except (OSError, ValueError) as problem:
        raise click.UsageError(f"'{path}' cannot be read as TOML: {problem}.") from problem
    context.default_map = known
    for one in context.command.params:  # a file of a version in which the option was given once
        if one.multiple and isinstance(known.get(one.name), str):
            known[one.name] = [known[one.name]]
    from snnc.report.provenance import files

    now = files(map(Path, hashes))
    context.meta[CHANGED] = [name for name, value in hashes.items() if now.get(name) != value]


def _spellings(command: click.Command, former: bool = False) -> dict[str, str]:
    """Every option and argument of a command as a file spells it, and its name in Python; or what else it may say."""
    found: dict[str, str] = {}
    for one in command.params:
        long = [name.removeprefix("--") for name in one.opts if name.startswith("--")] or one.opts
        if one.name and one.name not in MANNER:
            found |= dict.fromkeys(long[1:] if former else long[:1], one.name)
    return found


def _paths(context: click.Context) -> list[Path]:
    """Every path among the options of a run."""
    values = [context.params.get(one.name) for one in context.command.params if one.type in (PATH, READ) and one.name]
    flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
    return [path for path in flat if isinstance(path, Path) and path.name not in ("", "-")]


def _text(context: click.Context, path: Path) -> str:
    """The run as TOML."""
    from snnc.recipes import toml
    from snnc.report.provenance import files, versions

    out = context.params.get("out")
    inputs = [one for one in _paths(context) if one not in (*(out if isinstance(out, tuple) else (out,)), path)]
    inputs += [Path(v) for v in (context.params.get("recipe"),) if v and str(v).endswith(".toml")]
    lines = [f"# To run this again: {context.command_path} --config {path}", f"command = {toml(context.command.name)}"]
    lines += ["", "[options]"]
    for key, name in _spellings(context.command).items():
        value = _as_toml(context.params.get(name))
        if value is not None and value != []:
            lines.append(f"{key} = {toml(value)}")
    for title, table in (("sha256", files(inputs)), ("versions", versions())):
        lines += ["", f"[{title}]", *(f"{toml(key)} = {toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _as_toml(value: Any) -> Any:
    """An option's value as TOML has it; `--set` as it is written on the command line."""
    from snnc.recipes import toml

    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [
            f"{one[0]}.{one[1]}={toml(one[2])}"
            if isinstance(one, tuple) and len(one) == 3 and isinstance(one[0], str)
            else _as_toml(one)
            for one in value
        ]
    return value
