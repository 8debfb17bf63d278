"""Other simulators read snnc's files and give its spikes. Tests of a simulator run where it is installed.

The settings of each are tested on networks with a pool, a join, kernels that are filled up, and thresholds of every
neuron's own (fixed point).
"""

import importlib.util
import sys

import pytest
import torch

import snnc
from snnc.backends import NirFile
from snnc.errors import DataError, LoadError, SnncError, Unsupported
from snnc.files.vectors import read_vectors
from snnc.networks.network import Network
from tests import zoo
from tests.backends.nir.test_nir import fixed
from tests.backends.nir.test_targets import POOLS, Mean, build
from tests.nets import sample
from tests.readers.plain import Plain

SIMULATORS = ("spikingjelly", "snntorch", "sinabs", "norse")
EXACT = {"mean": (Mean(), (3, 8, 8)), "padded": (POOLS["padded"][0], (3, 8, 8))}
FIXED = ("plain", "residual", "inverted")


def compiled(name):
    """A network whose thresholds are powers of two, or one of integers; samples; and whether it is of integers."""
    if name in EXACT:
        net, shape = EXACT[name]
        return snnc.Network(build(net, *shape), {"input_shape": list(shape)}), sample(shape, 3)
    net, shape = zoo.ZOO[name]()
    pipeline = snnc.Pipeline((*snnc.recipe("opi").pipeline, snnc.PASSES["fixed-point"]()))
    x = zoo.sample(shape, 4)
    return snnc.compile(net, 4, pipeline, x), x


@pytest.mark.readers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of simulators: Norse is made by torch.jit.script
@pytest.mark.parametrize("name", [*EXACT, *FIXED])
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_spikes_are_those_of_snnc(simulator, name, tmp_path):
    if importlib.util.find_spec(simulator) is None or importlib.util.find_spec("nirtorch") is None:
        pytest.skip(f"{simulator} is not installed")
    net, x = compiled(name)
    if simulator == "spikingjelly" and name in FIXED:
        pytest.skip("one threshold a layer")
    there = getattr(snnc.readers, simulator)(snnc.save(net, tmp_path / "net.nir", NirFile(simulator)))
    for _ in range(2):  # a second call starts from the same potentials
        logits = there(x)
    assert torch.allclose(logits, net(x), atol=1e-5)
    found = snnc.verify(net, there.record(tmp_path / "there.npz", x, batch=2))
    assert (found.spikes, found.first) == (0, None)
    assert sum(one.spikes for one in found.layers) > 0


def test_a_recording_goes_through_verify(tmp_path):
    net, x = compiled("mean")
    path = snnc.save(net, tmp_path / "net.nir", NirFile("sinabs"))
    there = Plain(path)
    assert torch.equal(there(x), net(x))
    recorded = there.record(tmp_path / "there.npz", x, batch=2)
    assert snnc.verify(net, recorded).same
    assert snnc.verify(net, read_vectors(recorded)).same
    assert "the tests' own reader" in read_vectors(recorded).made_by
    with pytest.raises(DataError, match=r"shape \(3, 4, 4\)"):
        there(x[:, :, :4, :4])


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_it_says_what_to_install(simulator, tmp_path, monkeypatch):
    net, _ = compiled("mean")
    path = snnc.save(net, tmp_path / "net.nir", NirFile(simulator))
    for name in {simulator, *sys.modules}:
        if name.partition(".")[0] == simulator:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SnncError, match=f"needs the package '{simulator}") as caught:
        getattr(snnc.readers, simulator)(path)
    assert f"pip install {simulator}" in caught.value.hint


@pytest.mark.parametrize("simulator", ["sinabs", "norse"])
def test_files_that_a_simulator_cannot_run_are_refused_by_node(simulator, tmp_path):
    net, _ = compiled("mean")
    with pytest.raises(Unsupported, match=f"'{simulator}' cannot run .* mean .AvgPool2d") as caught:
        getattr(snnc.readers, simulator)(snnc.save(net, tmp_path / "net.nir"))
    assert f"--target {simulator}" in caught.value.hint


def test_thresholds_of_every_neuron_are_refused_where_a_layer_has_one(tmp_path):
    path = snnc.save(Network(fixed(), {"input_shape": [3, 8, 8]}, stage=snnc.Stage.FIXED), tmp_path / "net.nir")
    with pytest.raises(Unsupported, match="several thresholds, and spikingjelly takes one a layer"):
        snnc.readers.spikingjelly(path)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "net.nir").write_text("nothing")
    for name, why in (("net.nir", "no NIR file"), ("other.nir", "There is no file")):
        with pytest.raises(LoadError, match=why):
            snnc.readers.sinabs(tmp_path / name)
