"""A share of the standards' own tests: what is taken is equal, and what is not is refused by name.

`python benchmarks/standards.py` runs all of them.
"""

import itertools

import pytest

from tests import standards

# Suite, one case in how many (odd, since variants alternate), and how many of those are equal at least.
SHARES = [("onnx nodes", 23, 3), ("onnx models", 5, 6), ("torch programs", 5, 1)]


@pytest.mark.parametrize(("suite", "step", "least"), SHARES)
def test_a_share_of_the_suite_is_equal_or_refused_by_name(suite, step, least):
    found = {}
    for case in itertools.islice(standards.SUITES[suite](), 1, None, step):
        found[case.name, case.variant] = standards.outcome(case)
    wrong = {name: one for name, one in found.items() if one.kind not in ("equal", "refused")}
    assert not wrong
    assert sum(one.kind == "equal" for one in found.values()) >= least
