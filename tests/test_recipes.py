"""Recipes as data: each reads back as it was written, edits work, and a typo is met with the nearest name."""

import pytest

from snnc.errors import RecipeError
from snnc.recipes import names, parse, recipe


@pytest.mark.parametrize("name", names())
def test_every_recipe_reads_back_as_written(name):
    one = recipe(name)
    assert one.name == name
    assert one.summary
    assert one.source
    assert parse(one.to_toml(), name) == one


def test_edits_of_a_shipped_recipe():
    edited = parse(
        """
        base = "cos"
        remove = ["insert-neurons"]
        [set.calibrate-offset]
        rho = "T"
        [[insert]]
        name = "insert-neurons"
        maxpool = "gate"
        after = "scale-thresholds"
        [[insert]]
        name = "set-initial-potential"
        before = "calibrate-offset"
        """,
        "mine.toml",
    )
    assert [p.name for p in edited.pipeline] == [
        "fold-batchnorm",
        "quantize-activations",
        "scale-thresholds",
        "insert-neurons",
        "set-initial-potential",
        "calibrate-offset",
    ]
    assert edited.name == "mine"
    assert edited.needs_data
    assert edited.pipeline.passes[3].maxpool == "gate"
    assert edited.pipeline.passes[-1].rho == "T"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base = 'coss'", "'cos'"),
        ("bases = 'cos'", "'base'"),
        ("base = 'cos'\n[set.calibrate-ofset]\nrho = 1", "'calibrate-offset'"),
        ("base = 'cos'\n[set.calibrate-offset]\nrh = 1", "'rho'"),
        ("base = 'cos'\n[set.calibrate-offset]\nrho = 1.5", "a whole number or 'T'"),
        ("base = 'cos'\n[set.calibrate-offset]\nrho = 0", "1 or more"),
        ("base = 'cos'\nremove = ['fold']", "fold-batchnorm"),
        ("base = 'cos'\n[[pass]]\nname = 'fold-batchnorm'", "either passes or a base"),
        ("name = 'empty'", "either passes or a base"),
        ("[[pass]]\nname = 'fold-batchnorms'", "'fold-batchnorm'"),
        ("[[pass]]\nname = 'insert-neurons'\nmaxpol = 'gate'", "'maxpool'"),
        ("[[pass]]\nname = 'insert-neurons'\nmaxpool = 'gated'", "'running-max'"),
        ("[[pass]]\nrule = 'max'", "has no name"),
        ("[[pass", "is not TOML"),
        ("needs_data = 'yes'\nbase = 'cos'", "not a bool"),
    ],
)
def test_typos_are_met_with_the_nearest_name(text, words):
    with pytest.raises(RecipeError) as caught:
        parse(text, "mine.toml")
    assert words in str(caught.value)


def test_recipes_that_are_not_there(tmp_path):
    with pytest.raises(RecipeError, match="data-free"):
        recipe("datafree")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe(tmp_path / "none.toml")
