"""What `snnc eval` does."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored
from snnc.data import require_labels
from snnc.measure.evaluate import CONFIDENCES, evaluate
from snnc.report.energy import measured


def run(
    snn: Path,
    scored: Scored,
    original: Original,
    output: str | None,
    confidence: float | None,
    batch: int,
    running: Running,
    as_json: bool,
) -> None:
    """See the command."""
    net = running.load(snn)
    samples = scored.samples(net).taking(net.inputs, net.inputs)
    ann = original.module(samples.frame_shape)
    if output or (ann is None and len(net.outputs) == 1):
        require_labels(samples, "to measure accuracy")
    total = -(-len(samples) // batch)
    exits = sorted({*CONFIDENCES, confidence}) if confidence else []
    found = evaluate(net, samples.batches(batch), ann, partial(show.track, total=total), exits, output)
    cost = measured(net, found, samples.input_shape)
    for note in found.notes:
        show.note(note)
    content = {
        "snn": str(snn),
        "data": samples.source,
        "T": net.T,
        "runtime": net.ran_by,
        **found.to_dict(),
        "energy": cost and asdict(cost),
        "latency_text": show.timing(net.latency),
    }
    if as_json:
        return show.as_json(content)
    show.say(f"Data: {samples.source}")
    show.evaluation(content)
    show.exits(content["exits"], confidence)
    if not net.looks_inside:
        show.say(f"{net.form} runs without its spikes and operations being counted. The .snn file has them.")
    return None
