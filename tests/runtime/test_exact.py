"""What torch may do with fewer bits than a network has is off while one runs."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import snnc
from snnc.errors import SnncError, VerifyError
from snnc.ir.graph import Stage, calls
from snnc.ir.neurons import Neuron
from snnc.ir.proof import prove
from snnc.networks.network import Network
from snnc.passes import FixedPoint
from snnc.passes.pipeline import Context, Pipeline
from snnc.runtime.exact import in_double
from snnc.steady import exact
from tests.nets import sample, spiking

T = 4


def network(name="conv", fixed=True, runtime="auto"):
    graph, shape = spiking(name, T)
    for _, neuron in calls(graph, Neuron):
        neuron.theta = neuron.theta * 0.7
    info = {"recipe": "none", "records": [], "input_shape": shape}
    if not fixed:
        return Network(graph, info, runtime=runtime), sample(shape, 20)
    context = Context(T=T, calibration=[sample(shape, 8)], input_shape=shape)
    graph = Pipeline((FixedPoint(),)).run(graph, context, Stage.SPIKING).graph
    return Network(graph, info, stage=Stage.FIXED, runtime=runtime), sample(shape, 20)


@pytest.mark.parametrize("runtime", ["auto", "reference"])
@pytest.mark.parametrize("fixed", [True, False])
def test_autocast_rounds_no_current(fixed, runtime):
    net, x = network(fixed=fixed, runtime=runtime)
    want, every = net(x), net.readout(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), want)
        assert torch.equal(net.readout(x), every)
        assert all(torch.equal(one, other) for one, other in zip(net.stream(x), every, strict=True))


def test_autocast_rounds_no_current_of_an_exported_program(tmp_path):
    net, x = network("mlp")
    net = snnc.load(snnc.save(net, tmp_path / "net.pt2"))
    want = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), want)


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="torch has no NNPACK here")
def test_sums_of_integers_are_exact_where_torch_has_no_onednn():
    net, x = network("residual", runtime="reference")
    want = net(x)
    torch._C._set_mkldnn_enabled(False)
    try:
        assert torch.equal(net(x), want)
    finally:
        torch._C._set_mkldnn_enabled(True)


def test_a_precision_of_fewer_bits_is_off():
    """What it rounds shows on some processors only, so the setting itself is looked at."""
    net, x = network()
    onednn, found = torch.backends.mkldnn, []
    torch.set_float32_matmul_precision("medium")
    try:
        assert onednn.matmul.fp32_precision == "bf16"
        net.readout(x, observe=lambda *_: found.append(onednn.matmul.fp32_precision))
        assert set(found) == {"ieee"}
        assert onednn.matmul.fp32_precision == "bf16"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_operations_go_on_following_a_precision_that_is_set_for_all():
    net, x = network()
    onednn = torch.backends.mkldnn
    onednn.matmul.fp32_precision = onednn.conv.fp32_precision = "none"  # other tests may have told them something
    torch.backends.fp32_precision = "bf16"
    try:
        net(x)
        assert onednn.matmul.fp32_precision == onednn.conv.fp32_precision == "bf16"
        torch.backends.fp32_precision = "ieee"
        assert onednn.matmul.fp32_precision == onednn.conv.fp32_precision == "ieee"
    finally:
        torch.backends.fp32_precision = "none"


@pytest.mark.parametrize("gpu", [True, False])
def test_tf32_is_off_where_there_is_a_gpu(monkeypatch, gpu):
    """Torch lets convolutions on GPUs have it by default; there may be none here, so the setting is looked at."""
    net, x = network()
    convolutions, found = torch.backends.cudnn.conv, []
    convolutions.fp32_precision = "tf32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    net.readout(x, observe=lambda *_: found.append(convolutions.fp32_precision))
    assert set(found) == {"ieee" if gpu else "tf32"}
    assert convolutions.fp32_precision == "tf32"


def test_nnpack_is_back_when_the_last_call_is_over():
    """Calls overlap in two threads: what the first to end restores would be on for the other."""

    def on():
        return torch._C._get_nnpack_enabled()

    before = on()
    entered, leave = threading.Event(), threading.Event()

    def other():
        with exact():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with contextlib.suppress(ZeroDivisionError), exact():
        thread.start()
        assert entered.wait(10)
        raise ZeroDivisionError
    assert not on()
    leave.set()
    thread.join()
    assert on() is before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_integers_are_refused_in_types_that_round_them(dtype):
    net, x = network()
    net = net.to(dtype)
    for call in (net, net.readout, lambda x: next(net.stream(x))):
        with pytest.raises(SnncError, match="rounds"):
            call(x)
    with pytest.raises(VerifyError, match="does not hold every integer"):
        prove(net.graph)


def test_sums_in_double_leave_the_layer_alone():
    """Also with another thread in it."""
    conv = torch.nn.Conv2d(3, 4, 3).requires_grad_(False)
    conv.weight.copy_(torch.randint(-9, 9, conv.weight.shape))
    conv.bias.round_()
    weight, x = conv.weight, torch.randint(0, 9, (2, 3, 5, 5)).float()
    want = conv(x)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: in_double(conv, x, whole=True), range(200)))
    assert all(torch.equal(one, want) for one in found)
    assert conv.weight is weight
    assert weight.dtype == torch.float32


def test_what_is_next_to_an_integer_is_one_where_all_are():
    conv = torch.nn.Conv2d(1, 1, 1, bias=False).requires_grad_(False)
    conv.weight.fill_(1.0)
    x = torch.tensor([3e-8, 1.0, 2.5]).reshape(3, 1, 1, 1)
    assert torch.equal(in_double(conv, x), x)
    assert in_double(conv, x, whole=True).flatten().tolist() == [0.0, 1.0, 2.5]
