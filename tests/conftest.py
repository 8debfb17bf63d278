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


# Further cases of what a shorter one tests as well. `make test` leaves them out, and `make long` runs them too.
LONG = (
    "backends/test_backends.py::test_exported_programs_of_joins[dense]",
    "backends/test_backends.py::test_exported_programs_of_joins[double]",
    "backends/test_backends.py::test_exported_programs_of_joins[skip]",
    "backends/test_backends.py::test_in_a_fresh_process[.pt2-program1]",
    "capture/test_quantisers.py::test_exported_programs_give_the_same",
    "capture/test_zoo.py::test_every_recipe[dense]",
    "capture/test_zoo.py::test_every_recipe[inverted]",
    "capture/test_zoo.py::test_every_recipe[preactivation]",
    "capture/test_zoo.py::test_every_recipe[shared-conv]",
    "capture/test_zoo.py::test_every_recipe[shared-relu]",
    "runtime/gpu/test_scan.py::test_a_network_of_integers_keeps_every_spike[dense-",
    "runtime/gpu/test_scan.py::test_a_network_of_integers_keeps_every_spike[inverted-",
    "runtime/gpu/test_scan.py::test_the_kernel_compiles_for_gpus",
    "runtime/gpu/test_scan.py::test_what_a_process_takes_for_granted_changes_nothing[dtype1-",
    "runtime/gpu/test_scan.py::test_what_a_process_takes_for_granted_changes_nothing[dtype2-",
    "test_distributed.py::test_a_killed_worker_ends_the_run_and_loses_nothing",
    "test_distributed.py::test_an_error_is_told_once_and_ends_all[words1-",
    "test_distributed.py::test_eval_prints_what_one_process_prints",
    "test_distributed.py::test_every_process_comes_to_the_bits_of_one[2]",
    "test_realdata.py::test_bare_compile_works_and_survives_its_file[densenet]",
    "test_realdata.py::test_bare_compile_works_and_survives_its_file[ds-cnn]",
    "test_realdata.py::test_fixed_point_spikes_in_onnxruntime_as_in_torch[8]",
    "test_realdata.py::test_nir_files_give_the_same_spikes[densenet]",
    "test_realdata.py::test_offset_calibration_reaches_its_accuracy",
)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the cases that take long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        long = [item for item in items if any(one in item.nodeid for one in LONG)]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    if os.environ.get("SNNC_DATA"):
        return
    for item in items:
        if item.get_closest_marker("realdata"):
            item.add_marker(pytest.mark.skip(reason="SNNC_DATA is not set"))
