"""Options chosen on calibration data: against what each value gives by itself, and what is left alone."""

import pytest
import torch
from torch import nn

import snnc
from snnc.errors import RecipeError
from snnc.ir.graph import calls
from snnc.ir.temporal import Decode
from snnc.passes.choices import LEAST, SAMPLES
from snnc.recipes import Recipe, parse, recipe

SHARES = [0.25, 0.0, 0.5]
OPEN = """
base = "best"
[choices.set-initial-potential]
fraction = [0.35, 0.5]
[choices.delay-readout]
share = [0.25, 0.0, 0.5]
"""


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4)
    ).eval()
    return ann, torch.rand(96, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_the_value_of_least_error_is_taken(given):
    """Each error is that of the network which the first half calibrates, on the other half; the rest follows."""
    ann, x = given
    open_ = parse(OPEN, "open")
    net = snnc.compile(ann, 4, open_, x)
    potential, share = net.info["choices"]
    assert (potential["option"], share["option"]) == ("set-initial-potential.fraction", "delay-readout.share")
    assert (share["values"], share["samples"]) == (SHARES, len(x) // 2)
    best = open_.pipeline.set("set-initial-potential", fraction=potential["chosen"])
    with torch.no_grad():
        wanted = ann(x[48:])
        for value, error in zip(SHARES, share["errors"], strict=True):
            trial = snnc.compile(ann, 4, best.set("delay-readout", share=value), x[:48])
            off = (trial(x[48:]) - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()
            assert error == pytest.approx(float(off), rel=1e-4)
    assert share["chosen"] == SHARES[min(range(3), key=share["errors"].__getitem__)]
    assert min(potential["errors"]) == share["errors"][0]  # where the next one starts from
    final = best.set("delay-readout", share=share["chosen"])
    assert torch.equal(net(x), snnc.compile(ann, 4, final, x)(x))


def test_the_file_holds_what_was_chosen_and_makes_the_same_network(given):
    ann, x = given
    net = snnc.compile(ann, 4, parse(OPEN, "open"), x)
    again = parse(net.info["recipe_text"], "the file")
    assert not again.choices
    assert torch.equal(snnc.compile(ann, 4, again, x)(x), net(x))


@pytest.mark.parametrize(("samples", "more"), [(LEAST - 1, {}), (96, {"quick": True})])
def test_constants_stay(given, samples, more):
    """Where nobody waits for a choice, and where few samples would choose by chance."""
    ann, x = given
    net = snnc.compile(ann, 8, "best", x, samples=samples, **more)
    assert "choices" not in net.info
    (late,) = [module.late for _, module in calls(net.graph, Decode)]
    assert late == 2


def test_what_is_set_by_hand_is_not_chosen(given):
    ann, x = given
    found = recipe("best").set("delay-readout", share=0.5).set("even-currents", gain=0.0)
    assert set(found.choices) == {"set-initial-potential", "calibrate-weights"}
    edited = parse('base = "best"\nremove = ["even-currents"]\n[set.delay-readout]\nshare = 0.5', "mine")
    assert set(edited.choices) == {"set-initial-potential", "calibrate-weights"}
    net = snnc.compile(ann, 4, edited, x)
    assert {row["option"] for row in net.info["choices"]} == {
        "set-initial-potential.fraction",
        "calibrate-weights.ridge",
    }


def test_a_trial_leaves_integers_out(given):
    """Fixed point comes last, and does not take part in the comparison."""
    ann, x = given
    open_ = parse(OPEN, "open")
    fixed = Recipe("mine", "", "", True, open_.pipeline.insert(snnc.PASSES["fixed-point"]()), open_.choices)
    made, plain = snnc.compile(ann, 4, fixed, x), snnc.compile(ann, 4, open_, x)
    assert [row["errors"] for row in made.info["choices"]] == [row["errors"] for row in plain.info["choices"]]
    assert made.stage is snnc.Stage.FIXED


def test_no_more_samples_than_it_takes(given):
    ann, x = given
    net = snnc.compile(ann, 1, parse(OPEN, "open"), x.repeat(5, 1, 1, 1))
    assert net.info["choices"][0]["samples"] == SAMPLES


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[choices.delay-readot]\nshare = [0.5]", "delay-readot"),
        ("[choices.delay-readout]\nshar = [0.5]", "option of 'delay-readout' 'shar'"),
        ("[choices.delay-readout]\nshare = [0.5, 2.0]", "Option 'share'.*2.0"),
        ("[choices.delay-readout]\nshare = []", "'delay-readout.share' is \\[\\]"),
        ("[choices.delay-readout]\nshare = 0.5", "'delay-readout.share' is 0.5"),
        ("[choices]\ndelay-readout = 1", "'choices.delay-readout'.*no table"),
    ],
)
def test_choices_that_cannot_be_made(text, why):
    with pytest.raises(RecipeError, match=why):
        parse(f'base = "best"\n{text}', "mine")
