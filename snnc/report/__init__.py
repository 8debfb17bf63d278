"""The report: one HTML page that says how a spiking network does, why, and what it would cost.

`findings` measures, `charts` and `drawing` turn figures into pictures, `page` writes them down. `limit`, `energy`,
`schedule` and `look` each measure one thing. `compare` puts several networks beside each other.
"""

from snnc.report.compare import Comparison, compare
from snnc.report.findings import Findings
from snnc.report.run import report

__all__ = ["Comparison", "Findings", "compare", "report"]
