"""Every neuron model. A new one is a file here and a row below."""

from __future__ import annotations

from snnc.ir.neurons.average import AverageIF
from snnc.ir.neurons.base import (
    IF,
    LAYER_SYNCHRONOUS,
    PIPELINED,
    SCHEDULES,
    STREAMING,
    TWO_PASS,
    Neuron,
    Spikes,
    fires,
)
from snnc.ir.neurons.bipolar import BipolarIF
from snnc.ir.neurons.graded import GradedIF
from snnc.ir.neurons.offset import OffsetIF
from snnc.ir.neurons.residual_mask import ResidualMaskIF
from snnc.ir.neurons.signed import SignedIF
from snnc.ir.neurons.waiting import WaitingIF

NEURONS: tuple[type[Neuron], ...] = (
    *(IF, SignedIF, GradedIF, WaitingIF, AverageIF, OffsetIF, ResidualMaskIF),
    BipolarIF,
)

__all__ = [
    "IF",
    "LAYER_SYNCHRONOUS",
    "NEURONS",
    "PIPELINED",
    "SCHEDULES",
    "STREAMING",
    "TWO_PASS",
    "AverageIF",
    "BipolarIF",
    "GradedIF",
    "Neuron",
    "OffsetIF",
    "ResidualMaskIF",
    "SignedIF",
    "Spikes",
    "WaitingIF",
    "fires",
]
