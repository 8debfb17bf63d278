"""Where two spiking networks, or two ways to run one, differ: spikes by layer and step, outputs, predictions.

A threshold turns a rounding difference into a whole spike, so nothing here has a tolerance: a spike is there or it is
not, and outputs are compared to the bit.
"""

from snnc.differences.recorded import against, record
from snnc.differences.report import Differences, LayerDifference
from snnc.differences.run import verify

__all__ = ["Differences", "LayerDifference", "against", "record", "verify"]
