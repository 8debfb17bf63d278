"""Numbers that no machine can serve are refused by name before anything is allocated; hours are told beforehand."""

import logging
import tracemalloc

import pytest
import torch
from torch import nn

import snnc
from snnc.checks import MOST_STEPS
from snnc.errors import RecipeError, SnncError
from snnc.passes import PASSES, FixedPoint
from snnc.passes.pipeline import Context
from snnc.recipes import make, parse

VAST = (10**12, 2**63 - 1, 2**63, 10**30, 10**400)
STEPS = {
    "quantize-activations": ("levels", "least_levels", "bits"),
    "calibrate-offset": ("rho", "iterations"),
    "mask-residual": ("tau",),
    "wait-for-input": ("wait",),
    "expand-input": ("repeat",),
    "limit-range": ("resolution",),
    "use-graded-neurons": ("bits",),
    "fixed-point": ("bits", "input_bits", "samples", "positions"),
    "train-thresholds": ("epochs",),
    "calibrate-bias": ("rounds", "samples"),
    "calibrate-potential": ("rounds", "samples"),
    "calibrate-weights": ("rounds", "samples", "positions", "feedback"),
    "calibrate-readout": ("samples",),
    "even-currents": ("samples",),
}
CASES = [(name, option) for name, options in STEPS.items() for option in options]


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.mark.parametrize("value", VAST)
@pytest.mark.parametrize(("name", "option"), CASES)
def test_vast_numbers_are_refused_by_name(name, option, value):
    with pytest.raises(RecipeError, match=rf"Option '{option}' of '{name}' is") as error:
        make(name, {option: value})
    assert len(str(error.value)) < 200
    assert error.value.hint


def test_every_whole_number_among_options_has_a_limit():
    """A pass that is new here is refused one too: by `MOST`, if by nothing closer."""
    for name, cls in PASSES.items():
        for option, value in make(name, {}).options.items() if not _needs(cls) else ():
            if type(value) is int:
                with pytest.raises(RecipeError, match=option):
                    make(name, {option: 2**62})


def _needs(cls):
    return any(f.default is f.default_factory for f in cls.__dataclass_fields__.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_without_end_are_refused(value):
    for name, option in (("calibrate-offset", "eps"), ("even-currents", "gain"), ("set-initial-potential", "fraction")):
        with pytest.raises(RecipeError, match=f"Option '{option}' of '{name}'"):
            make(name, {option: value})


@pytest.mark.parametrize("T", [10**9, MOST_STEPS + 1, 2**63, 10**30])
def test_vast_steps_are_refused_before_anything_runs(T):
    snnc.compile(small(), T=2, recipe="data-free", input_shape=(4,))  # what is imported at first use
    tracemalloc.start()
    with pytest.raises(RecipeError, match=r"^T is ") as error:
        snnc.compile(small(), T=T, recipe="data-free", input_shape=(4,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(MOST_STEPS) in error.value.hint
    assert peak < 2**20
    with pytest.raises(RecipeError, match=r"^T is "):
        Context(T=T)


def test_vast_samples_are_refused():
    with pytest.raises(RecipeError, match="samples is 1000000000000000"):
        snnc.compile(small(), T=2, recipe="opi", calibration=torch.rand(8, 4), samples=10**15)


def test_levels_that_float32_does_not_tell_apart_are_refused():
    text = '[[pass]]\nname = "fold-batchnorm"\n[[pass]]\nname = "quantize-activations"\nlevels = 1000000\nbits = 8\n'
    with pytest.raises(SnncError, match="1000000 levels for each of 255 heights of a spike are 255000000"):
        snnc.compile(small(), T=2, recipe=parse(text, "mine"), calibration=torch.rand(8, 4))


def test_what_runs_for_hours_says_so_before_it_starts(caplog):
    pipeline = snnc.recipe("best").pipeline.set("calibrate-weights", rounds=2**16)
    seen = []

    def stop(one, *_):
        seen.append(caplog.text)
        raise KeyboardInterrupt

    data = torch.rand(512, 4)
    with caplog.at_level(logging.WARNING, "snnc"), pytest.raises(KeyboardInterrupt):
        snnc.compile(small(), T=2**12, recipe=pipeline, calibration=data, callbacks=[stop])
    assert "hours, most of them for 'calibrate-weights'" in seen[0]


def test_fixed_point_counts_the_steps_that_it_runs():
    given = [torch.rand(200, 4), torch.rand(100, 4)]
    assert FixedPoint().rows(Context(T=2**20, calibration=given)) == 256 * 2**20
    assert FixedPoint().rows(Context(T=2**20)) == 2**20


def test_what_takes_seconds_says_nothing(caplog):
    with caplog.at_level(logging.WARNING, "snnc"):
        snnc.compile(small(), T=4, recipe="best", calibration=torch.rand(64, 4))
    assert not caplog.text
