"""Labelled data for calibration and evaluation: read from files, or taken from a loader.

`read` turns a path into a `Dataset`; `as_batches` and `labelled_batches` take whatever Python users call a
loader. All give float32 tensors `[B, ...]`, and refuse data that would spoil a calibration in silence.
"""

from snnc.data.dataset import Dataset, ReadBatches, require_classes, require_labels
from snnc.data.events import Binning, is_events
from snnc.data.fingerprint import fingerprint, stored
from snnc.data.fit import Fit, PreparationWarning, described, eight_bits, read_as
from snnc.data.loaders import as_batches, labelled_batches, maybe_labelled_batches
from snnc.data.reading import ACCEPTED, read
from snnc.data.values import floats, wholes

__all__ = [
    "ACCEPTED",
    "Binning",
    "Dataset",
    "Fit",
    "PreparationWarning",
    "ReadBatches",
    "as_batches",
    "described",
    "eight_bits",
    "fingerprint",
    "floats",
    "is_events",
    "labelled_batches",
    "maybe_labelled_batches",
    "read",
    "read_as",
    "require_classes",
    "require_labels",
    "stored",
    "wholes",
]
