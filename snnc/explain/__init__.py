"""Where the error of a spiking network comes from: layer by layer, by cause, and what it does to the output.

`terms` splits the error of one layer and adds up over samples, `sides` holds the two networks side by side, `run` runs
both on the data, and `report` holds the result.
"""

from snnc.explain.report import Cause, Explanation, LayerError, Term
from snnc.explain.run import explain

__all__ = ["Cause", "Explanation", "LayerError", "Term", "explain"]
