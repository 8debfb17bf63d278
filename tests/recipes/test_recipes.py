"""Recipes: those that ship, their text form, edits, and every way to get one wrong."""

from importlib import resources

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnc.errors import RecipeError
from snnc.ir.graph import Stage, calls
from snnc.ir.neurons import Neuron
from snnc.passes import (
    PASSES,
    CalibrateOffset,
    FoldBatchNorm,
    InsertNeurons,
    NormalizeThresholds,
    QuantizeActivations,
    SetInitialPotential,
)
from snnc.passes.pipeline import Context, Pass, Pipeline
from snnc.recipes import Recipe, make, names, parse, recipe
from tests.nets import NETS, sample

shipped = pytest.mark.parametrize("name", names())
HEAD = '[[pass]]\nname = "fold-batchnorm"\n'
COS = 'base = "cos"\n'


def test_what_ships():
    assert {"opi", "cos", "qcfs", "data-free", "baseline"} <= set(names())


@shipped
def test_every_recipe_parses(name):
    found = recipe(name)
    assert found.name == name
    assert found.summary
    assert found.source
    assert found.pipeline.passes
    assert recipe(found) is found


@shipped
def test_every_recipe_reads_back_as_written(name):
    found = recipe(name)
    again = parse(found.to_toml(), "elsewhere")
    assert again == found
    assert again.to_toml() == found.to_toml()


@shipped
def test_text_spells_out_every_option(name):
    found = recipe(name)
    text = found.to_toml()
    for one in found.pipeline:
        assert all(f"\n{option} = " in text for option in one.options)


@shipped
@pytest.mark.parametrize("net", ["conv", "residual", "trained", "maxpool"])
def test_every_recipe_converts(name, net):
    """To a spiking network, with data or, where the recipe says so, without."""
    found = recipe(name)
    graph, shape = NETS["trained" if name == "qcfs" else net]()
    x = sample(shape).abs() / 2  # images from 0 to 1, which spike-coded inputs take
    context = Context(T=4, input_shape=shape, calibration=[x] if found.needs_data else None)
    result = found.pipeline.run(graph, context)
    assert result.stage is Stage.SPIKING
    assert result.graph(sample(shape)).shape == (4, 4)


def test_a_whole_file():
    text = """
        name = "mine"
        summary = "a summary"
        needs_data = false

        [[pass]]
        name = "fold-batchnorm"

        [[pass]]
        name = "quantize-activations"
        bound = "trained"
        levels = 16
        shift = 0
    """
    passes = (FoldBatchNorm(), QuantizeActivations("trained", 16, shift=0))
    assert parse(text, "x.toml") == Recipe("mine", "a summary", "", False, Pipeline(passes))


def test_what_may_be_left_out():
    found = parse(HEAD, "folder/some.name.toml")
    assert (found.name, found.summary, found.source, found.needs_data) == ("some.name", "", "", True)


def test_files(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD, encoding="utf-8")
    assert recipe(path) == recipe(str(path)) == parse(HEAD, str(path))


def test_a_base_that_is_a_file(tmp_path):
    """Looked for from the folder of the file that names it, and so on."""
    (tmp_path / "more").mkdir()
    (tmp_path / "mine.toml").write_text('base = "more/slow.toml"\n[set.calibrate-offset]\niterations = 2\n')
    (tmp_path / "more" / "slow.toml").write_text('base = "../first.toml"\n[set.calibrate-offset]\nrho = 9\n')
    (tmp_path / "first.toml").write_text(COS + 'summary = "first"\n')
    found = recipe(tmp_path / "mine.toml")
    assert found.pipeline == recipe("cos").pipeline.set("calibrate-offset", rho=9, iterations=2)
    assert (found.name, found.summary, found.source) == ("mine", "first", recipe("cos").source)
    assert parse(found.to_toml(), "elsewhere") == found


def test_a_base_that_is_no_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "nowhere.toml"')
    with pytest.raises(RecipeError, match=r"Recipe file '.*nowhere.toml' cannot be read"):
        recipe(path)


@pytest.mark.parametrize("base", ["mine.toml", "./more/../mine.toml", "other.toml"])
def test_a_circle_of_bases(tmp_path, base):
    (tmp_path / "more").mkdir()
    (tmp_path / "mine.toml").write_text(f'base = "{base}"')
    (tmp_path / "other.toml").write_text('base = "mine.toml"')
    with pytest.raises(RecipeError, match=r"starts from '.*mine.toml', which starts from it.*one of them: asg"):
        recipe(tmp_path / "mine.toml")


def test_recipes_that_ship_start_from_each_other():
    """What they have in common stands once: each is a list of passes, or what it changes in another."""
    texts = {name: (resources.files("snnc.recipes") / f"{name}.toml").read_text(encoding="utf-8") for name in names()}
    assert {name for name, text in texts.items() if "[[pass]]" in text} == {"opi", "qcfs"}


def test_edits():
    """remove, then set, then insert."""
    found = parse(
        """
        base = "cos"
        summary = "mine"
        remove = ["scale-thresholds"]

        [set.calibrate-offset]
        rho = 8
        iterations = 2

        [[insert]]
        name = "normalize-thresholds"
        before = "insert-neurons"

        [[insert]]
        name = "set-initial-potential"
        rule = "zero"
        after = "insert-neurons"

        [[insert]]
        name = "set-initial-potential"
        """,
        "mine.toml",
    )
    base = recipe("cos")
    kept = base.pipeline.remove("scale-thresholds").set("calibrate-offset", rho=8, iterations=2).passes
    new = (NormalizeThresholds(), InsertNeurons(), SetInitialPotential("zero"), CalibrateOffset(8, 2))
    assert found.pipeline.passes == (*kept[:3], *new, SetInitialPotential())
    assert (found.name, found.summary) == ("mine", "mine")
    assert (found.source, found.needs_data) == (base.source, base.needs_data)
    assert parse(found.to_toml(), "x") == found


def one(name: str, rest: str = "") -> str:
    """A recipe of one pass."""
    return f'[[pass]]\nname = "{name}"\n{rest}'


WRONG = {
    "typo in a key": ('nmae = "x"\n' + HEAD, "no key in recipe 'x.toml' 'nmae'.*'name'"),
    "typo in a pass": (one("fold-batchnrom"), "no pass 'fold-batchnrom'.*'fold-batchnorm'"),
    "typo in an option": (one("calibrate-offset", "roh = 4"), "no option of 'calibrate-offset' 'roh'.*'rho'"),
    "typo in a value": (one("scale-thresholds", 'rule = "mes"'), "Option 'rule'.*'mes'; it takes.*'mse'"),
    "wrong type": (one("calibrate-offset", "iterations = 1.5"), "it takes a whole number"),
    "text for a number": (one("calibrate-offset", 'rho = "4"'), "it takes a whole number or 'T'"),
    "a list for a choice": (one("scale-thresholds", 'rule = ["mse"]'), "Option 'rule'"),
    "out of range": (one("scale-thresholds", "percent = 999"), "Option 'percent'"),
    "not a number": (one("scale-thresholds", "factor = nan"), "Option 'factor'"),
    "no pass at all": ('name = "x"', "needs either passes or a base"),
    "nothing": ("", "needs either passes or a base"),
    "empty passes": ("pass = []", "needs either passes or a base"),
    "passes and a base": (COS + HEAD, "needs either passes or a base"),
    "edits without a base": ('remove = ["fold-batchnorm"]\n' + HEAD, "'remove'.*base"),
    "insertions without a base": (HEAD + '[[insert]]\nname = "fold-batchnorm"', "'insert'.*base"),
    "settings without a base": (HEAD + "[set.calibrate-offset]\nrho = 4", "'set'.*base"),
    "a pass without a name": ("[[pass]]\nrho = 4", "has no name"),
    "a pass that is no table": ('pass = ["fold-batchnorm"]', "has no name"),
    "a name that is no text": ("[[pass]]\nname = 4", "has no name"),
    "a key of the wrong type": ("name = 4\n" + HEAD, "Key 'name'.* is 4, not a str"),
    "a flag of the wrong type": ('needs_data = "yes"\n' + HEAD, "not a bool"),
    "a table for passes": ('[pass]\nname = "fold-batchnorm"', "Key 'pass'.*not a list"),
    "unknown base": ('base = "coss"', "no recipe 'coss'.*'cos'"),
    "a base that is no file": ('base = "x.toml"', "file 'x.toml' cannot be read"),
    "removing what is not there": (COS + 'remove = ["set-initial-potential"]', "no pass in this pipeline"),
    "removing a number": (COS + "remove = [4]", "no pass in this pipeline '4'"),
    "setting what is not there": (COS + "[set.x]\nrho = 1", "no pass 'x'.*one of average-input"),
    "setting no option": (COS + "[set.calibrate-offset]\nroh = 1", "'roh'.*'rho'"),
    "setting out of range": (COS + "[set.calibrate-offset]\nrho = 0", "Option 'rho'.*1 to "),
    "setting no table": (COS + "set = {calibrate-offset = 4}", r"a table \[set.calibrate-offset\]"),
    "inserting nowhere": (COS + '[[insert]]\nname = "fold-batchnorm"\nbefore = "x"', "no pass in this pipeline 'x'"),
    "inserting at a number": (COS + '[[insert]]\nname = "fold-batchnorm"\nbefore = 4', "in this pipeline '4'"),
    "inserting twice": (
        COS + '[[insert]]\nname = "fold-batchnorm"\nbefore = "insert-neurons"\nafter = "insert-neurons"',
        "before and after",
    ),
    "inserting no table": (COS + 'insert = ["fold-batchnorm"]', "has no name"),
    "no TOML": ("name = ", "is not TOML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipes(case):
    text, words = WRONG[case]
    with pytest.raises(RecipeError, match=words):
        parse(text, "x.toml")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"name = "])
def test_files_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"x\.toml"):
        recipe(path)


def test_unknown_recipes():
    with pytest.raises(RecipeError, match=r"no recipe 'coz'\. Try: 'cos'"):
        recipe("coz")
    with pytest.raises(RecipeError, match="data-free"):
        recipe("datafree")
    with pytest.raises(RecipeError, match="no recipe"):
        recipe("../recipes/cos")


@pytest.mark.parametrize("name", PASSES)
def test_passes_by_name(name):
    assert make(name, {}) == PASSES[name]()


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
counts = st.integers(1, 10**6)
calibrations = st.builds(
    CalibrateOffset,
    rho=st.one_of(st.just("T"), counts),
    iterations=counts,
    guard=st.booleans(),
    eps=st.floats(1e-300, 1e300),
)
quantizations = st.builds(
    QuantizeActivations,
    bound=st.sampled_from(["data", "moments", "trained"]),
    levels=st.one_of(st.just("T"), counts),
    shift=st.floats(0, 1, exclude_max=True),
)
passes: st.SearchStrategy[Pass] = st.one_of(st.just(FoldBatchNorm()), calibrations, quantizations)


@given(text, text, text, st.booleans(), st.lists(passes, min_size=1, max_size=4))
def test_any_recipe_reads_back_as_written(name, summary, source, needs_data, steps):
    """Quotes, backslashes, control characters, tiny numbers: all come back."""
    recipe = Recipe(name, summary, source, needs_data, Pipeline(tuple(steps)))
    assert parse(recipe.to_toml(), "x") == recipe


@pytest.mark.parametrize(("T", "rho"), [(1, 4), (2, 4), (3, 6), (8, 16)])
def test_the_window_of_cos_grows_with_the_steps_and_so_do_its_levels(T, rho):
    """Each layer emits in max(T, rho) steps, and its threshold is that of as many levels."""
    graph, shape = NETS["conv"]()
    context = Context(T=T, input_shape=shape, calibration=[sample(shape)])
    pipeline = recipe("cos").pipeline

    def made(pipeline):
        return [neuron for _, neuron in calls(pipeline.run(graph, context).graph, Neuron)]

    thresholds = made(pipeline.remove("calibrate-offset").set("quantize-activations", levels=rho))
    for neuron, wanted in zip(made(pipeline), thresholds, strict=True):
        assert (neuron.rho, neuron.T) == (rho, rho)
        assert torch.equal(neuron.theta, wanted.theta)
    assert [neuron.rho for neuron in made(pipeline.set("calibrate-offset", rho=4))] == [4] * len(thresholds)
