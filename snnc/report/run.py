"""`snnc.report`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snnc.files import atomic_write
from snnc.networks.base import SpikingNetwork
from snnc.passes.pipeline import no_progress
from snnc.report.figures import write
from snnc.report.findings import Findings, measure
from snnc.report.page import html


def report(
    network: SpikingNetwork,
    data: Any,
    ann: nn.Module | torch.export.ExportedProgram | None = None,
    path: str | Path | None = None,
    *,
    samples: int = 512,
    seed: int = 0,
    title: str = "Spiking network",
    command: str = "snnc.report(...)",
    files: Mapping[str, str] | None = None,
    figures: str | Path | None = None,
    figure_form: str = "svg",
    track: Callable[..., Iterator[Any]] = no_progress,
    output: str | None = None,
) -> Findings:
    """Measures a network, and writes what was found as one HTML page.

    Args:
        network: a compiled network. Of an emitted file the page holds what can be had without its graph.
        data: samples as in training; without labels the ANN's classes count.
        ann: the network that it was compiled from. Without it there is nothing to compare with.
        path: file to write, whole or not at all; None writes nothing.
        samples: the first so many are used.
        seed: of what is drawn for the scatter plots.
        title: of the page.
        command: what the page says it was made with.
        files: SHA-256 of files that the page should name.
        figures: folder to write every chart and a table to, see `snnc.report.figures.write`; None writes none.
        figure_form: of the charts: "svg", "pdf" or "png".
        track: wraps iterables to show progress.
        output: name of the output that the page is about, where there are several: one of class scores.

    Returns:
        All figures of the page; `to_dict()` is plain data.

    Raises:
        DataError: neither labels nor an ANN, no samples, or samples that do not fit.
        WriteError: the file cannot be written.
    """
    found = measure(
        network,
        data,
        ann,
        samples=samples,
        seed=seed,
        title=title,
        command=command,
        files=files,
        track=track,
        output=output,
    )
    if path is not None:
        text = html(found)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if figures is not None:
        write(found, figures, figure_form)
    return found
