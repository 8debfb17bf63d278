"""Published networks and real images: what the tiny nets cannot show. Needs SNNC_DATA."""

import importlib.util
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import snnc
from snnc.capture import told_shape
from snnc.files import load_model
from snnc.ir.graph import Stage, validate
from snnc.passes import FixedPoint
from tests.backends.onnx.test_fixed import assert_identical
from tests.nir_reader import Reader
from tests.onnx_models import reference

pytestmark = pytest.mark.realdata

NETWORKS = {
    "resnet20": (lambda z: z.akamaster(20, "resnet20-12fca82f.th"), (3, 32, 32)),
    "densenet": (lambda z: z.jasonwei(), (3, 32, 32)),
    "mlperf-resnet8": (lambda z: z.mlperf_resnet8(), (3, 32, 32)),
    "ds-cnn": (lambda z: z.kws(), (1, 49, 10)),
    **{
        f"cq-{kind}-{quant}": (lambda z, k=kind, q=quant: z.cq(k, q), (1, 28, 28))
        for kind in ("plain", "dense", "mobilev1", "mobilev2", "basic", "bottle")
        for quant in (True, False)
    },
}

ONNX = (
    *("akuras_cifar10/akuras_cifar10_cnn", "mlperf_tiny/kws_ref_float", "mnist_cntk_onnx/mnist"),
    *("mnist_cntk_onnx/wonnx_opt_mnist", "vnncomp_onnx/Convnet_avgpool", "vnncomp_onnx/Convnet_maxpool"),
    *("vnncomp_onnx/cifar10_small", "vnncomp_onnx/cifar_base_kw", "vnncomp_onnx/mnist-net_256x2"),
    "vnncomp_onnx/resnet_2b",
)


def module(name):
    folder = Path(os.environ["SNNC_DATA"])
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"real_{name}", folder / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def real():
    return module("zoo")


@pytest.fixture(scope="module")
def cifar():
    """Training images for calibration, and the first 200 test images with labels."""
    common = module("common")
    folder = Path(os.environ["SNNC_DATA"])
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    train, _ = common.cifar_unpack((folder / "cifar10" / "data_batch_1.med.xz").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the folder's own loader leaves its files open
        test, y = common.load_cifar10("test")
    prepare = lambda x: (torch.tensor(x).float() / 255 - mean) / std  # noqa: E731
    return prepare(train[:256]), prepare(test[:200]), torch.tensor(y[:200].astype(np.int64))


@pytest.mark.parametrize("name", NETWORKS)
def test_capture_is_the_network(real, name):
    build, shape = NETWORKS[name]
    net = build(real)
    graph = snnc.capture(net)
    validate(graph, Stage.ANN)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(graph(x), net(x))


@pytest.mark.parametrize("name", ONNX)
def test_onnx_networks_are_what_onnxruntime_runs(name):
    model = load_model(Path(os.environ["SNNC_DATA"]) / "models" / f"{name}.onnx")
    graph = snnc.capture(model)
    validate(graph, Stage.ANN)
    x = torch.rand(4, *told_shape(model), generator=torch.Generator().manual_seed(0))
    want = np.concatenate([reference(model, part.numpy()) for part in x.split(1)])
    with torch.no_grad():
        np.testing.assert_allclose(graph(x).numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_bare_compile_works_and_survives_its_file(real, name, tmp_path):
    build, shape = NETWORKS[name]
    snn = snnc.compile(build(real), T=2)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(snnc.load(snnc.save(snn, tmp_path / "net.snn"))(x), snn(x))


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("False")])
def test_nir_files_give_the_same_spikes(real, name, tmp_path):
    """In float64, and with thresholds at powers of two, which move into weights without rounding."""
    build, shape = NETWORKS[name]
    snn = snnc.compile(build(real), T=2, input_shape=shape)
    for _, neuron in snn.neurons():
        neuron.theta = 2 ** neuron.theta.log2().round()
        neuron.v0 = neuron.theta / 2
    reader = Reader(snnc.save(snn, tmp_path / "net.nir"))
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    found = {}

    def see(node, value, steps):
        found.setdefault(node.name, []).append((value != 0).reshape(steps, -1, *value.shape[1:]))

    with torch.no_grad():
        reader.run(x)
        snn.double().readout(x, observe=see)
    for layer, _ in snn.neurons():
        assert torch.equal(reader.spikes[layer].bool(), torch.cat(found[layer])), layer


def test_offset_calibration_reaches_its_accuracy(real, cifar):
    """The full test set gives 88.7 % at T = 8 (docs/results.md); 200 images leave room for 2 points."""
    calibration, x, y = cifar
    net = real.akamaster(20, "resnet20-12fca82f.th")
    pipeline = snnc.recipe("cos").pipeline.set("calibrate-offset", rho="T")
    snn = snnc.compile(net, T=8, recipe=pipeline, calibration=calibration)
    with torch.no_grad():
        assert (snn(x).argmax(1) == y).float().mean() >= 0.865


def test_streaming_spikes_as_the_folded_network_does(real, cifar):
    """In float64, where rounding is far below any distance to a threshold: no spike differs on real weights."""
    calibration, x, _ = cifar
    snn = snnc.compile(real.akamaster(20, "resnet20-12fca82f.th"), T=8, recipe="opi", calibration=calibration)
    snn = snn.double()
    seen = {}

    def spikes(window):
        found = {}

        def see(node, value, steps):
            found.setdefault(node.name, []).append(value.reshape(steps, -1, *value.shape[1:]) != 0)

        from snnc.runtime.runner import Runner

        with torch.no_grad():
            Runner(snn.graph).run(x[:8].double(), window=window, observe=see)
        return {name: torch.cat(parts) for name, parts in found.items()}

    names = [name for name, _ in snn.neurons()]
    seen = {window: spikes(window) for window in (1, 8)}
    differing = sum(int((seen[1][name] != seen[8][name]).sum()) for name in names)
    total = sum(int(seen[8][name].sum()) for name in names)
    assert total > 100_000
    assert differing == 0


@pytest.mark.parametrize("T", [1, 8])
def test_fixed_point_spikes_in_onnxruntime_as_in_torch(real, cifar, T, tmp_path):
    calibration, images, _ = cifar
    pipeline = snnc.recipe("opi").pipeline.insert(FixedPoint())
    net = snnc.compile(NETWORKS["resnet20"][0](real), T, pipeline, calibration)
    assert_identical(net, images[:16], snnc.load(snnc.save(net, tmp_path / "net.onnx")))
