"""The report: one HTML page that says how a spiking network does, why, and what it would cost.

`findings` measures, `charts` and `drawing` turn figures into pictures, `page` writes them down. `limit`, `energy`,
`schedule` and `look` each measure one thing.
"""

from snnc.report.findings import Findings
from snnc.report.run import report

__all__ = ["Findings", "report"]
