"""Every pass that ships with snnc, by name. A new pass is a file here and a row below."""

from __future__ import annotations

from snnc.passes.average_input import AverageInput
from snnc.passes.calibrate_bias import CalibrateBias
from snnc.passes.calibrate_offset import CalibrateOffset
from snnc.passes.calibrate_potential import CalibratePotential
from snnc.passes.calibrate_readout import CalibrateReadout
from snnc.passes.calibrate_weights import CalibrateWeights
from snnc.passes.delay_readout import DelayReadout
from snnc.passes.encode_input import EncodeInput
from snnc.passes.encode_values import EncodeValues
from snnc.passes.even_currents import EvenCurrents
from snnc.passes.expand_input import ExpandInput
from snnc.passes.fixed_point import FixedPoint
from snnc.passes.fold_batchnorm import FoldBatchNorm
from snnc.passes.insert_neurons import InsertNeurons
from snnc.passes.limit_range import LimitRange
from snnc.passes.mask_residual import MaskResidual
from snnc.passes.normalize_thresholds import NormalizeThresholds
from snnc.passes.piecewise_activations import PiecewiseActivations
from snnc.passes.pipeline import Pass
from snnc.passes.quantize_activations import QuantizeActivations
from snnc.passes.scale_thresholds import ScaleThresholds
from snnc.passes.set_initial_potential import SetInitialPotential
from snnc.passes.train_thresholds import TrainThresholds
from snnc.passes.use_graded_neurons import UseGradedNeurons
from snnc.passes.use_signed_neurons import UseSignedNeurons
from snnc.passes.wait_for_input import WaitForInput

PASSES: dict[str, type[Pass]] = {
    cls.name: cls
    for cls in (
        FoldBatchNorm,
        PiecewiseActivations,
        QuantizeActivations,
        ScaleThresholds,
        NormalizeThresholds,
        InsertNeurons,
        SetInitialPotential,
        CalibrateOffset,
        UseSignedNeurons,
        UseGradedNeurons,
        WaitForInput,
        AverageInput,
        MaskResidual,
        CalibrateBias,
        CalibratePotential,
        CalibrateWeights,
        DelayReadout,
        CalibrateReadout,
        EvenCurrents,
        EncodeInput,
        EncodeValues,
        LimitRange,
        ExpandInput,
        TrainThresholds,
        FixedPoint,
    )
}

__all__ = [
    "PASSES",
    "AverageInput",
    "CalibrateBias",
    "CalibrateOffset",
    "CalibratePotential",
    "CalibrateReadout",
    "CalibrateWeights",
    "DelayReadout",
    "EncodeInput",
    "EncodeValues",
    "EvenCurrents",
    "ExpandInput",
    "FixedPoint",
    "FoldBatchNorm",
    "InsertNeurons",
    "LimitRange",
    "MaskResidual",
    "NormalizeThresholds",
    "PiecewiseActivations",
    "QuantizeActivations",
    "ScaleThresholds",
    "SetInitialPotential",
    "TrainThresholds",
    "UseGradedNeurons",
    "UseSignedNeurons",
    "WaitForInput",
]
