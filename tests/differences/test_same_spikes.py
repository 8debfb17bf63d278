"""Fixed-point networks spike the same wherever they run: at once, step by step, as a program, in onnxruntime."""

import pytest

import snnc
from snnc.differences import verify
from tests.zoo import ZOO, sample

EXPORTED = ("plain", "residual", "max-pools", "dense")  # an exported program takes seconds to make


@pytest.mark.parametrize("name", ZOO)
def test_every_way_gives_the_same_spikes(name, tmp_path):
    net, shape = ZOO[name]()
    calibration, x = sample(shape, 8), 1.5 * sample(shape, 5).flip(0)
    pipeline = snnc.Pipeline((*snnc.recipe("opi").pipeline, snnc.PASSES["fixed-point"]()))
    for T in (1, 4, 8, 32):
        snn = snnc.compile(net, T, pipeline, calibration)
        assert snn.stage is snnc.Stage.FIXED
        others = [(snn, True), (snnc.load(snnc.save(snn, tmp_path / "net.onnx")), False)]
        for other, stream in others:
            found = verify(snn, other, x, stream=stream)
            assert found.exact
            assert found.spikes == 0, found.first
            assert found.places > 0
        if name in EXPORTED and T == 4:
            found = verify(snn, snnc.load(snnc.save(snn, tmp_path / "net.pt2")), x)
            assert found.exact
            assert found.same
