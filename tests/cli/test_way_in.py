"""What needs no torch does not wait for it."""

import subprocess
import sys

import pytest

import snnc
from snnc import defaults
from snnc.backends import BACKENDS

PROBE = """
import os, sys
os.environ.update({environment!r})
sys.argv = ["snnc", *{words!r}]
code = 0
try:
    from snnc.cli import main
    main()
except SystemExit as end:
    code = end.code
print("torch" in sys.modules, code)
"""


def answer(*words, **environment):
    """What a command prints, whether it imported torch, and its exit code."""
    probe = PROBE.format(words=words, environment=environment)
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    *_, torch, code = found.stdout.split()
    return found.stdout + found.stderr, torch == "True", int(code)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--version"], 0, snnc.__version__),
        (["--help"], 0, "compile"),
        (["compile", "--help"], 0, "--recipe"),
        (["tune", "-h"], 0, "--surrogate"),
        (["compile", "--recipee", "best"], 2, "--recipe"),
        (["evall"], 2, "evall"),
        (["check", "nothing.pt"], 1, "nothing.pt does not exist"),
        (["eval", "nothing.snn", "--data", "nothing.npz"], 1, "nothing"),
    ],
)
def test_no_torch(words, code, says):
    text, torch, found = answer(*words)
    assert (torch, found) == (False, code)
    assert says in text


def test_completion_needs_no_torch():
    text, torch, _ = answer(_SNNC_COMPLETE="bash_complete", COMP_WORDS="snnc compile --recipe be", COMP_CWORD="3")
    assert not torch
    assert "plain,best" in text


def test_importing_snnc_imports_no_torch():
    probe = "import sys, snnc; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "False"


def test_functions_keep_their_names_beside_subpackages():
    import snnc.explain
    import snnc.report
    import snnc.tune

    assert all(callable(getattr(snnc, name)) for name in ("explain", "report", "tune"))
    assert set(snnc.__all__) <= set(dir(snnc))
    with pytest.raises(AttributeError, match="nothing"):
        _ = snnc.nothing


def test_the_help_names_every_backend():
    assert {backend.name: backend.suffix for backend in BACKENDS.values()} == defaults.BACKENDS
