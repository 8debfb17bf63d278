"""What every test stands on: one thread, fixed seeds, and no real data unless it is there."""

import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("snnc", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.load_profile("snnc")
# The nets are tiny. A second thread gains nothing, and costs a hundredfold where cores are shared: the threads spin.
torch.set_num_threads(1)
# pytest-xdist tells its workers the width of its terminal, which tables would then keep to.
os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if os.environ.get("SNNC_DATA"):
        return
    for item in items:
        if item.get_closest_marker("realdata"):
            item.add_marker(pytest.mark.skip(reason="SNNC_DATA is not set"))
