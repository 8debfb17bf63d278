"""Options chosen on calibration data: against what each value gives by itself, and what is left alone."""

import pytest
import torch
from torch import nn

import snnc
from snnc.errors import RecipeError
from snnc.ir.graph import calls
from snnc.ir.temporal import Decode
from snnc.passes.choices import HELD, LEAST, apart
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
            off = nn.functional.kl_div(trial(x[48:]).log_softmax(1), wanted.softmax(1), reduction="batchmean")
            assert error == pytest.approx(float(off), rel=1e-3)
    assert share["chosen"] in (SHARES[0], SHARES[min(range(3), key=share["errors"].__getitem__)])
    started = potential["errors"][potential["values"].index(potential["chosen"])]
    assert started == share["errors"][0]  # where the next one starts from
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
    assert set(found.choices) == {"set-initial-potential", "calibrate-readout"}
    edited = parse('base = "best"\nremove = ["even-currents"]\n[set.delay-readout]\nshare = 0.5', "mine")
    assert set(edited.choices) == {"set-initial-potential", "calibrate-readout"}
    net = snnc.compile(ann, 4, edited, x)
    assert {row["option"] for row in net.info["choices"]} == {"set-initial-potential.fraction", "calibrate-readout.fit"}


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
    assert net.info["choices"][0]["samples"] == HELD


def test_a_value_must_be_better_by_more_than_chance(given, monkeypatch):
    """By hand: of 48 held-out samples 24 are 1 better, the others as much worse, or a little less."""
    ann, x = given
    signs = torch.tensor([1.0, -1.0]).double().repeat(24)

    def chosen(lost):
        errors = iter([torch.zeros(48).double(), torch.where(signs > 0, -1.0, lost).double()])
        monkeypatch.setattr("snnc.passes.choices.apart", lambda found, wanted: next(errors))
        return snnc.compile(
            ann, 2, parse('base = "opi"\n[choices.set-initial-potential]\nrule = ["half", "zero"]', "a"), x
        )

    assert chosen(0.9).info["choices"][0]["chosen"] == "half"  # better by 0.05, and a standard error is 0.14
    assert chosen(0.5).info["choices"][0]["chosen"] == "zero"  # by 0.25, and 0.11


def test_outputs_that_are_no_classes():
    """Divergence is blind to what all scores have in common; a square error is not."""
    wanted = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert torch.allclose(apart(wanted + 1, wanted), torch.zeros(2))
    assert apart(wanted.flip(1), wanted).min() > 0.4
    maps = wanted[:, None, :]
    assert torch.allclose(apart(maps + 1, maps), torch.full((2,), 1 / 0.625))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[choices.delay-readot]\nshare = [0.5]", "delay-readot"),
        ("[choices.delay-readout]\nshar = [0.5]", "option of 'delay-readout' 'shar'"),
        ("[choices.delay-readout]\nshare = [0.5, 2.0]", "Option 'share'.*2.0"),
        ("[choices.delay-readout]\nshare = []", r"'delay-readout.share' of recipe 'mine' is \[\]"),
        ("[choices.delay-readout]\nshare = 0.5", "'delay-readout.share' of recipe 'mine' is 0.5"),
        ("[choices]\ndelay-readout = 1", "'choices.delay-readout'.*no table"),
    ],
)
def test_choices_that_cannot_be_made(text, why):
    with pytest.raises(RecipeError, match=why):
        parse(f'base = "best"\n{text}', "mine")
