"""The command line: `snnc`, or `python -m snnc`.

Thin commands over the library. Results go to stdout, with `--json` as JSON and nothing else; progress, remarks and
errors go to stderr. Exit codes: 0 done; 1 it could not be done, or `check` or `verify` found something; 2 a command
that makes no sense; 130 interrupted.
"""

from snnc.cli.commands import main
from snnc.cli.compare import compare_
from snnc.cli.explain import explain_
from snnc.cli.report import report_
from snnc.cli.verify import verify_

main.add_command(compare_)
main.add_command(explain_)
main.add_command(report_)
main.add_command(verify_)

__all__ = ["main"]
