"""`snnc eval`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored, batch_option, original_options, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import PATH, verb
from snnc.data import require_labels
from snnc.measure.evaluate import evaluate


@click.command("eval")
@click.argument("snn", type=PATH)
@scored_options("test", "Split that is scored, if DATA has several.", draw=False, labelled=True)
@original_options("The original network, for comparison; '-' where --factory gives all of it.")
@batch_option
@running_options()
@verb
@configurable
def eval_(
    snn: Path,
    scored: Scored,
    original: Original,
    batch: int,
    running: Running,
    as_json: bool,
) -> None:
    """Measure SNN after every time step.

    SNN is a file that 'snnc compile' wrote. With --ann, the original network is measured beside it, run by torch: an
    exported program or an ONNX model as the graph that snnc reads in it.
    """
    net = running.load(snn)
    samples = scored.samples()
    ann = original.module(samples.input_shape)
    require_labels(samples, "to measure accuracy")
    total = -(-len(samples) // batch)
    found = evaluate(net, samples.batches(batch), ann, partial(show.track, total=total))
    content = {
        "snn": str(snn),
        "data": samples.source,
        "T": net.T,
        "runtime": net.ran_by,
        **found.to_dict(),
        "latency_text": show.timing(net.latency),
    }
    if as_json:
        return show.as_json(content)
    show.say(f"Data: {samples.source}")
    show.evaluation(content)
    if not net.looks_inside:
        show.say(f"{net.form} runs without its spikes and operations being counted. The .snn file has them.")
    return None
