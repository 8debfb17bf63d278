"""The command line: `snnc`, or `python -m snnc`.

Thin commands over the library. Results go to stdout, with `--json` as JSON and nothing else; progress, remarks and
errors go to stderr. Exit codes: 0 done; 1 it could not be done, or `check` or `verify` found something; 2 a command
that makes no sense; 130 interrupted.
"""

from snnc.cli.commands import main
from snnc.cli.compare import compare_
from snnc.cli.compile import compile_
from snnc.cli.evaluate import eval_
from snnc.cli.explain import explain_
from snnc.cli.export import export_
from snnc.cli.report import report_
from snnc.cli.tune import tune
from snnc.cli.verify import verify_

for command in (compare_, compile_, eval_, explain_, export_, report_, tune, verify_):
    main.add_command(command)

__all__ = ["main"]
