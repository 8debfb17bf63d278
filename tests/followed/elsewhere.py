"""Hints without a row: those that another test follows, and those that none does yet."""

# The hint, and the file and the test that follow it.
ELSEWHERE = {
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
}

# The hint and its file. This may only become shorter: a new hint needs a row.
LEFT = {
    "a network that rounds its input alone": "backends/nir/rules.py",
    "the backend torch or onnx": "backends/pt2.py",
    "check the data and its normalisation (--mean/--std)": "calibrate/observe.py",
    "a file of its own for --save-config": "cli/config.py",
    "another folder, or its permissions": "cli/targets.py",
    "one of {}, or --backend with one file": "cli/targets.py",
    "to find out why that one ended": "cli/together.py",
    "data that are normalised already": "data/dataset.py",
    "np.savez(path, {}, y=labels)": "data/dataset.py",
    "a tuple of tensors, one each, a dictionary by these names, or an .npz with arrays of these names": (
        "data/loaders.py"
    ),
    "x.float()": "data/values.py",
    "x.long(), whole numbers from 0": "data/values.py",
    "its weights as external data": "files/onnxfile.py",
    "the same recipe without fixed-point": "integers/lowering.py",
    "thresholds that all channels share (scale-thresholds.per=layer)": "integers/lowering.py",
    "fewer bits (--fixed-point 6), or fewer time steps": "ir/proof.py",
    "--ann and no --output, to compare it with the original network": "measure/evaluate.py",
    "--output": "measure/evaluate.py",
    "the output that is meant, --output": "measure/evaluate.py",
    "a recipe by name, to see why it does not": "measure/search.py",
    "the one of class scores, such as --output {}": "measure/search.py",
    "the one that is meant, such as --output {} (output= in Python)": "networks/base.py",
    "x.to('{}')": "networks/network.py",
    "the CUDA and cuDNN that this onnxruntime-gpu was built for": "networks/onnx.py",
    "fewer time steps, or a recipe that streams": "passes/fixed_point.py",
    "--input-shape, such as --input-shape 3,32,32": "passes/quantize_activations.py",
    "OMP_NUM_THREADS=1 for all": "processes.py",
    "to find out why that one ended; where it was only slow, {}=SECONDS waits longer": "processes.py",
    "the one that is meant: --output {}": "report/samples.py",
    "the runtime 'auto', pip install 'snnc[fast]', or a network compiled with --fixed-point": "runtime/choice.py",
    "one shape for each input": "structure.py",
    "machines with the same kind of processor, and the same versions of snnc and torch": "tune/loop.py",
    "a recipe without encode-values, such as 'best'": "tune/run.py",
    "the network without training, or a module around it with one input and one output": "tune/run.py",
}
MOST_LEFT = 34
