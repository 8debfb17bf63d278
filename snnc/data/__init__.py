"""Labelled data for calibration and evaluation: read from files, or taken from a loader.

`read` turns a path into a `Dataset`; `as_batches` and `labelled_batches` take whatever Python users call a
loader. All give float32 tensors `[B, ...]`, and refuse data that would spoil a calibration in silence.
"""

from snnc.data.dataset import Dataset, require_classes, require_labels
from snnc.data.fingerprint import fingerprint, stored
from snnc.data.loaders import as_batches, labelled_batches, maybe_labelled_batches
from snnc.data.reading import ACCEPTED, read

__all__ = [
    "ACCEPTED",
    "Dataset",
    "as_batches",
    "fingerprint",
    "labelled_batches",
    "maybe_labelled_batches",
    "read",
    "require_classes",
    "require_labels",
    "stored",
]
