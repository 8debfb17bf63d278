"""The options that several commands share, each group as one value that knows what to do with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snnc.cli import show
from snnc.cli.options import CHANNELS, COUNT, READ, SEED, SENSOR, SHAPE, SPLIT, Renamed, block
from snnc.defaults import CHUNK, RUNTIMES, WAYS

if TYPE_CHECKING:
    from torch import nn

    from snnc.data import Binning, Dataset
    from snnc.networks.base import SpikingNetwork
    from snnc.networks.network import Network

Option = Callable[[Any], Any]
shape_option = click.option(
    "--input-shape",
    type=SHAPE,
    metavar="C,H,W",
    help="Shape of one sample, if nothing else gives it; of several inputs one each, such as 3,32,32+5.",
)
target_option = click.option(
    "--target", metavar="NAME", help="Simulator or chip that is to read the NIR file; see 'snnc list targets'."
)
output_option = click.option(
    "--output", metavar="NAME", help="Output that holds the class scores, if there are several."
)
frames_option = click.option(
    "--frames",
    type=click.Choice(WAYS),
    help="Input changes in time: samples [N, T, ...], a frame a step. What the network was trained on: the mean or sum "
    "of a sample's frames, or each frame, its outputs averaged.",
)
batch_option = click.option("--batch", type=COUNT, default=100, show_default=True, help="Samples at a time.")

memory_option = click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Memory that calibration may take; the result does not depend on it. [default: half of what is free]",
)


def threads_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--threads`, which takes effect before the command begins."""

    @functools.wraps(command)
    def run(*, threads: int | None, **given: Any) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)  # onnxruntime takes as many
        command(**given)

    return click.option("--threads", type=COUNT, help="Threads. [default: torch's]")(run)


# The user's network


@dataclass(frozen=True)
class Model:
    """How a file becomes the user's network."""

    factory: str | None
    allow: tuple[str, ...]
    key: str | None
    leftover: bool

    def load(self, path: Path | None) -> Any:
        """The network in a file, or the one that the factory builds."""
        from snnc.cli.work.sources import uncompiled

        return uncompiled(path, self.factory, self.allow, self.key, self.leftover)


@dataclass(frozen=True)
class Original(Model):
    """The network that a spiking one was made from."""

    ann: Path | None

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.ann or self.factory)

    def network(self) -> Any:
        """That network as it was loaded, or None."""
        return self.load(self.ann) if self.given else None

    def module(self, shape: tuple[Any, ...]) -> nn.Module | None:
        """That network as a module that takes samples of `shape`, or None."""
        from torch import nn

        from snnc.capture import capture

        found = self.network()
        return found if found is None or isinstance(found, nn.Module) else capture(found, shape)


_LOADING = (
    click.option(
        "--factory",
        metavar="MOD:FUNCTION",
        help="Function that builds the network; MODEL then holds its weights, or is '-' for none. Arguments may "
        "follow: pkg.mod:resnet(20).",
    ),
    click.option("--allow", multiple=True, metavar="MOD:CLASS", help="Class of yours that MODEL may hold. Repeatable."),
    click.option("--key", metavar="NAME", help="Entry of MODEL that holds the network or its weights, if several fit."),
    click.option("--leftover", is_flag=True, help="Leave out weights in MODEL that the network of --factory lacks."),
)
model_options = block("how", Model, *_LOADING)


def original_options(what: str = "The original network; '-' where --factory gives all of it.") -> Option:
    """`--ann` with the options to load it, as `original`."""
    return block("original", Original, click.option("--ann", type=READ, help=what), *_LOADING)


# Data


@dataclass(frozen=True)
class Reading:
    """How data is read."""

    split: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    raw: bool
    time_first: bool
    bins: str | None
    sensor: tuple[int, ...] | None

    def read(self, path: Path, split: str | None = None, binning: Binning | None = None) -> Dataset:
        """All of a file or folder; of its split, if it has several. With a `binning` the samples are frames."""
        from snnc.data import eight_bits, read

        if binning is None and (self.time_first or self.bins or self.sensor):
            raise click.UsageError("--time-first, --bins and --sensor are for samples that are frames (--frames).")
        if binning is not None and self.bins:
            binning = binning.by_rule(self.bins)
        if binning is not None and self.sensor:
            if len(self.sensor) != 2:
                raise click.UsageError("--sensor takes two numbers, HEIGHT,WIDTH.")
            binning = replace(binning, sensor=(self.sensor[0], self.sensor[1]))
        found = read(
            path,
            mean=self.mean,
            std=self.std,
            raw=self.raw,
            split=split or self.split,
            frames=binning is not None,
            time_first=self.time_first,
            bins=binning,
        )
        if told := eight_bits(found):
            show.note(told)
        return found


@dataclass(frozen=True)
class Scored(Reading):
    """Data that a network is run on."""

    data: Path | None
    limit: int | None
    seed: int | None

    def samples(self, network: SpikingNetwork | None) -> Dataset:
        """The samples for a network: drawn where there is a seed, otherwise the first."""
        if self.data is None:
            raise click.UsageError("Missing option '--data'.")
        found = self.read(self.data, binning=binning_of(network))
        if self.limit is None:
            return found
        return found.limit(self.limit) if self.seed is None else found.sample(self.limit, self.seed)


def binning_of(network: SpikingNetwork | None) -> Binning | None:
    """How a network over frames has its events binned, if it is given any; None where input is constant in time."""
    from snnc.data import Binning

    if network is None or not network.frames:
        return None
    known = network.info.get("calibration")
    found = Binning.of(known.get("binning")) if isinstance(known, dict) else None
    return replace(found, T=network.T) if found else Binning(network.T)


def _reading(split: str, what: str) -> tuple[Option, ...]:
    return (
        click.option("--split", type=SPLIT, default=split, show_default=True, help=what),
        click.option(
            "--mean", type=CHANNELS, metavar="A,B,C", help="Mean that training subtracted, one or one a channel."
        ),
        click.option("--std", type=CHANNELS, metavar="A,B,C", help="Standard deviation that training divided by."),
        click.option("--raw", is_flag=True, help="Leave 8-bit values at 0..255 instead of dividing them by 255."),
        click.option("--time-first", is_flag=True, help="Frames: DATA is [T, N, ...], and not [N, T, ...]."),
        click.option(
            "--bins",
            metavar="RULE",
            help="Events: frames of equal time or number of events (time, count), or of so many us or events "
            "(time=10000, count=500). [default: as in calibration, else time]",
        ),
        click.option("--sensor", type=SENSOR, metavar="H,W", help="Events: pixels, if the files do not say them."),
    )


def reading_options(split: str, what: str) -> Option:
    """How data is read, as `reading`; `what` tells what `--split` chooses."""
    return block("reading", Reading, *_reading(split, what))


def scored_options(split: str, what: str, draw: bool, labelled: bool = False, needed: bool = True) -> Option:
    """Data that a network is run on, as `scored`.

    Args:
        split: the default of `--split`.
        what: what `--split` chooses.
        draw: whether 512 samples are drawn by default, or all are taken.
        labelled: whether labels are needed.
        needed: whether the data itself is, in every case.
    """
    kind = (
        "Labelled data (.npz, idx, CIFAR, images)."
        if labelled
        else "Data (.npz, idx, CIFAR, images); labels are used if there."
    )
    if draw:
        several = (
            click.option(
                "--limit", "--samples", "limit", cls=Renamed, type=COUNT, default=512, show_default=True,
                help="Samples drawn from DATA, at most.",
            ),
            click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all random choices."),
        )  # fmt: skip
    else:
        several = (
            click.option(
                "--limit", type=COUNT, help="Samples of DATA, at most: the first, or random ones with --seed."
            ),
            click.option("--seed", type=SEED, help="Draw the samples of --limit with this seed."),
        )
    data = click.option("--data", type=READ, required=needed, help=kind)
    return block("scored", Scored, data, *_reading(split, what), *several)


# Running


@dataclass(frozen=True)
class Running:
    """Where spiking networks run, and how."""

    chunk: int
    device: str
    runtime: str

    def load(self, path: Path) -> SpikingNetwork:
        """The spiking network in a file, ready to run."""
        from snnc import api
        from snnc.files import sniff

        if self.runtime != "auto" and sniff(path) in ("pt2", "onnx"):  # before a load that takes seconds
            raise click.UsageError(
                f"An emitted file runs as it was written: --runtime {self.runtime} is for graph files (.snn)."
            )
        with show.busy(f"loading {path}"):
            net = api.load(path, self.chunk, device=self.device)
        net.runtime = self.runtime
        return net

    def place(self, network: Network) -> Network:
        """A network that was just compiled, ready to run."""
        from snnc import api

        network.chunk, network.runtime = self.chunk, self.runtime
        return api.placed(network, self.device)


def running_options(where: str = "Where to run: cpu, cuda, cuda:1.") -> Option:
    """Where spiking networks run, and how, as `running`."""
    return block(
        "running",
        Running,
        click.option(
            "--chunk", type=COUNT, default=CHUNK, show_default=True, help="Samples x steps in memory at once."
        ),
        click.option("--device", default="cpu", show_default=True, help=where),
        threads_option,
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            default="auto",
            show_default=True,
            help="What runs graph files; the spikes agree.",
        ),
    )
