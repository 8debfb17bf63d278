"""Hints without a row, which another test follows."""

# The hint, and the file and the test that follow it.
ELSEWHERE = {
    "more --memory, fewer --calib-samples, or TMPDIR=FOLDER with room": (
        "calibrate/test_holding.py::test_a_full_disk_is_told"
    ),
    "pip install 'snnc[events]'": "capture/test_hints.py::test_what_hints_name_exists",
    "a recording of an event camera": "data/test_events.py::test_aedat_4",
    "pip install 'snnc[nir]'": "capture/test_hints.py::test_what_hints_name_exists",
    'pip install "snnc[images]"': "capture/test_hints.py::test_what_hints_name_exists",
    "pip install 'snnc[figures]', or a figure with the suffix .svg": (
        "capture/test_hints.py::test_what_hints_name_exists"
    ),
    "pip uninstall onnxruntime, then pip install 'snnc[gpu]'; the two packages overwrite each other": (
        "capture/test_hints.py::test_what_hints_name_exists"
    ),
    "check the data (channels stand first), or --input-shape": (
        "capture/test_hints.py::test_what_a_hint_says_of_a_model_is_accepted"
    ),
    "check its sizes: no network needs so many": "capture/test_hints.py::test_what_a_hint_says_of_a_model_is_accepted",
    "keep all of it in one floating-point type": "capture/test_hints.py::test_what_a_hint_says_of_a_model_is_accepted",
    "keep the batch as the first dimension": "capture/test_hints.py::test_what_a_hint_says_is_accepted",
    "--plugin {}, or snnc.plugin('{}') in Python, if you trust it": (
        "test_plugins.py::test_the_command_line_loads_it_and_a_file_does_not"
    ),
    "--resume to go on with it, or rm {}": "tune/test_tune.py::test_the_command_resumes",
    "run again with --debug, and report what it prints": "cli/test_cli.py::test_debug_adds_the_traceback",
    "this pass before even-currents, or --set even-currents.gain=0": (
        "passes/test_even_currents.py::test_a_pass_that_changes_the_number_of_steps_is_refused"
    ),
    "a file of its own for --save-config": "cli/test_habits.py::test_a_run_is_saved_over_what_it_saved_before",
    "the CUDA and cuDNN that this onnxruntime-gpu was built for": (
        "networks/test_onnx.py::test_with_the_gpu_build_on_the_gpu_or_not_at_all"
    ),
}
