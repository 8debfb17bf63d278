"""What all commands share: kinds of values, groups of options, and one way to fail."""

from __future__ import annotations

import copy
import functools
import re
import shlex
import sys
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from snnc.cli import show
from snnc.cli.together import hushed, last_words, together
from snnc.errors import LoadError, SnncError

Command = TypeVar("Command", bound=Callable[..., Any])


class Numbers(click.ParamType):
    """Numbers with commas between them, as a tuple."""

    def __init__(self, kind: type[int] | type[float], name: str) -> None:
        self.kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | float, ...]:
        try:
            numbers = tuple(self.kind(part) for part in (value.split(",") if isinstance(value, str) else value))
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not {self.name}.", param, ctx)
        if self.kind is int and min(numbers) < 1:
            self.fail(f"{value!r} holds a size below 1.", param, ctx)
        return numbers


class SampleShape(Numbers):
    """The shape of one sample, as a tuple; of several inputs one each, with plus signs between them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        parts = value.split("+") if isinstance(value, str) else value
        several = isinstance(parts, list | tuple) and all(isinstance(part, str | list | tuple) for part in parts)
        if not several or len(parts) < 2:
            return super().convert(parts[0] if several and parts else value, param, ctx)
        return tuple(super(SampleShape, self).convert(part, param, ctx) for part in parts)


class Setting(click.ParamType):
    """`PASS.OPTION=VALUE` as a tuple. The value is written as in TOML; text needs no quotes."""

    name = "PASS.OPTION=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str, Any]:
        match = re.fullmatch(r"\s*([\w-]+)\.(\w+)\s*=\s*([^\n]*?)\s*", value)
        if match is None:
            self.fail(f"{value!r} is not {self.name}, such as calibrate-offset.rho=8.", param, ctx)
        name, option, text = match.groups()
        try:
            return name, option, tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return name, option, text


class Commands(click.Group):
    """The group of all commands; keeps the words of the command line, so that a command can say how it was called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = list(args)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **more: Any) -> Any:
        with hushed():
            return super().main(*args, **more)


_WORDS = "snnc.words"


def command_line() -> str:
    """The command line as it was given, quoted for a shell."""
    return shlex.join(["snnc", *click.get_current_context().meta.get(_WORDS, [])])


def recipe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the shell offers for a recipe: the names, and files."""
    folder = resources.files("snnc").joinpath("recipes")  # as text: the package itself needs torch
    names = sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml"))
    found = [
        CompletionItem(
            name, help=tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8")).get("summary")
        )
        for name in names
        if name.startswith(incomplete)
    ]
    return found or [CompletionItem(incomplete, type="file")]


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Read everything and say what would be done; write nothing."
)
SHAPE, CHANNELS, SENSOR = SampleShape(int, "C,H,W"), Numbers(float, "a,b,c"), Numbers(int, "HEIGHT,WIDTH")
PATH, READ = click.Path(path_type=Path), click.Path(path_type=Path)  # to write, or to read if it has to be there
COUNT = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)
SPLIT = click.Choice(["train", "test"])


@contextmanager
def guarded(debug: bool) -> Iterator[None]:
    """Turns whatever goes wrong into a sentence and an exit code."""
    with warnings.catch_warnings():
        if not debug:  # torch's advice to its own callers; snnc never warns this way
            warnings.simplefilter("ignore")
        try:
            yield
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as problem:
            with last_words() as mine:
                if mine:
                    _tell(problem, debug)
            sys.exit(130 if isinstance(problem, KeyboardInterrupt) else 1)


def _require_files(context: click.Context) -> None:
    """Refuses files to read that are not there, before what takes seconds to import."""
    for one in context.command.params:
        value = context.params.get(one.name or "")
        for path in value if isinstance(value, tuple) else (value,):
            if one.type is READ and path is not None and str(path) != "-" and not path.exists():
                raise LoadError(f"{path} does not exist.", "check the path")


def _tell(problem: BaseException, debug: bool) -> None:
    if isinstance(problem, KeyboardInterrupt):
        show.fail("Interrupted. No file was left half-written.")
        return
    if debug:
        traceback.print_exception(problem)
    if isinstance(problem, SnncError):
        show.error(problem)
    else:
        text = " ".join(str(problem).split())
        show.fail(
            f"Unexpected {type(problem).__name__}: {text[:300]}",
            "" if debug else "run again with --debug, and report what it prints",
        )


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `--json`, `--quiet`, `--verbose`, `--debug` and `--plugin`, and guards it."""

    @functools.wraps(command)
    def run(*, debug: bool, quiet: bool, verbose: bool, plugin: tuple[str, ...], **options: Any) -> None:
        if quiet and verbose:
            raise click.UsageError("Give --quiet or --verbose.")
        name = click.get_current_context().command.name
        with show.manner(quiet, verbose), guarded(debug):
            _require_files(click.get_current_context())
            from snnc.plugins import installed
            from snnc.plugins import plugin as load
            from snnc.steady import steady  # here: it needs torch

            with steady(), together(name):
                installed(show.note)
                for one in plugin:
                    load(one)
                command(**options)

    for flag in (
        click.option(
            "--plugin", multiple=True, metavar="MODULE", help="Module with passes, neurons or recipes. Repeatable."
        ),
        click.option("--debug", is_flag=True, help="Show the traceback of an error, and torch's warnings."),
        click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is done, as it is done."),
        click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr, no progress and no remarks."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout."),
    ):
        run = flag(run)
    return run


def options(*several: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda c, option: option(c), reversed(several), command)


def block(name: str, kind: type, *several: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options that a command gets as one value, under `name`: `kind` is a dataclass whose fields are theirs."""

    def decorate(command: Any) -> Any:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            command(**{name: kind(**{one.name: given.pop(one.name) for one in fields(kind)})}, **given)

        whole: Any = run
        return options(*several)(whole)

    return decorate


class Renamed(click.Option):
    """An option whose first name is the one to use; the others are former ones, which work and are not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy.copy(self)
        shown.opts = self.opts[:1]
        return click.Option.get_help_record(shown, ctx)
