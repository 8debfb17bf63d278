"""Files: users' files are loaded without running anything in them, and snnc's own files are written whole.

No path here unpickles freely. Torch files go through torch's restricted unpickler with an allow-list of
`torch.nn` classes; `.pt2` archives are rebuilt from the members and fields that are known to be data.
"""

from snnc.files.loading import load_model
from snnc.files.sniffing import sniff
from snnc.files.torchfile import load_torch
from snnc.files.writing import atomic_buffer, atomic_write

__all__ = ["atomic_buffer", "atomic_write", "load_model", "load_torch", "sniff"]
