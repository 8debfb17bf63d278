"""A small network at every stage, and as an ONNX file, is what tests/golden/ says: see `tests/golden.py`."""

import pytest

from tests import golden

AGAIN = "if the change is meant, run `make reference` and read the difference"


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    return golden.texts()


@pytest.mark.parametrize("name", sorted(path.name for path in golden.FOLDER.iterdir()))
def test_a_golden_text_is_what_the_network_is_now(name, now):
    assert now[name].splitlines() == (golden.FOLDER / name).read_text(encoding="utf-8").splitlines(), AGAIN


def test_every_stage_has_a_golden_text(now):
    assert sorted(now) == sorted(path.name for path in golden.FOLDER.iterdir()), AGAIN
