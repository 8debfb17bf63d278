"""Neurons that have a form in counts: how many spikes of a step they emit and take back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snnc.ir.neurons import IF, BipolarIF, GradedIF, Neuron, SignedIF, WaitingIF

# Spikes of one step at most: emitted, and taken back. None for a neuron that may have taken back more than it emitted.
KINDS: dict[type[Neuron], Callable[[Any], tuple[int, int] | None]] = {
    IF: lambda m: (1, 0),
    WaitingIF: lambda m: (1, 0),
    SignedIF: lambda m: (1, 1),
    GradedIF: lambda m: (2**m.bits - 1, 0),
    BipolarIF: lambda m: (m.units, m.units) if m.rectified else None,
}


def kind_of(neuron: Neuron) -> tuple[int, int] | None:
    """Those of a neuron that counts, None for any other."""
    row = KINDS.get(type(neuron)) if neuron.unit else None
    return row and row(neuron)
