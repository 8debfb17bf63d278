"""Nothing that a process has set for itself changes a bit of what snnc gives, and snnc leaves all of it as it was.

Every entry point runs in every state, beside the same in the state that a process begins in.
"""

import copy
import inspect
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snnc
from snnc.backends import BACKENDS
from snnc.capture import blockers
from snnc.cli import main
from snnc.files import load_model
from snnc.ir.neurons import IF
from snnc.passes import FixedPoint
from snnc.processes import digest
from snnc.steady import exact, steady

T, TINY = 2, 1e-40  # a number that flushing takes for 0
CUDA = torch.cuda.is_available()


class Branched(nn.Sequential):
    """Asks for a shape, so that it is exported."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.shape[-1] == 4 else x * 2)


def original() -> nn.Module:
    """Kinds of layers whose numbers a state could touch, and enough of them to be summed in an order of their own."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) / 4)
        net[4].bias[0] = TINY
    return net.eval()


ANN, BRANCHED = original(), Branched(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
X = torch.rand(24, 2, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3


def plain(value: Any) -> Any:
    """Without what a clock told."""
    if isinstance(value, dict):
        return {k: 0.0 if k == "seconds" else plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def content(network: Any) -> list[Any]:
    """What a network is, to the bit."""
    return [sorted(network.state_dict()), *network.state_dict().values(), plain(network.info)]


def compiled() -> snnc.Network:
    return snnc.compile(ANN, T, "best", X, samples=16)


def timeless(network: Any) -> Any:
    network.info = plain(network.info)
    return network


def saved(folder: Path, network: Any) -> Iterator[Any]:
    """Files, byte for byte where they are always written alike, and what comes back from them."""
    for backend in ("torch", "onnx"):
        path = snnc.save(timeless(network), folder / f"net{BACKENDS[backend].suffix}")
        yield from (path.read_bytes(), snnc.load(path)(X), snnc.load(path).readout(X))
    small = snnc.compile(BRANCHED, T, "data-free", input_shape=(4,))
    yield from snnc.load(snnc.save(small, folder / "small.pt2")).program.state_dict().values()


def command(folder: Path, *words: str) -> str:
    result = click.testing.CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return result.stdout


def commands(folder: Path) -> Iterator[Any]:
    """Those of the command line that make and measure; their networks and figures."""
    np.savez(folder / "data.npz", x=X.numpy(), y=Y.numpy())
    data, snn = str(folder / "data.npz"), str(folder / "cli.snn")
    torch.save(ANN.state_dict(), folder / "weights.pt")
    ann = [str(folder / "weights.pt"), "--factory", "tests.test_process_state:original"]
    shape = ["--input-shape", "2,6,6"]
    command(folder, "check", *ann, *shape)
    command(folder, "compile", *ann, *shape, "--T", str(T), "--calib", data, "--fixed-point", "-o", snn)
    yield from content(snnc.load(snn))
    for verb in (["eval", snn, "--data", data], ["verify", snn, "--stream", "--data", data]):
        yield command(folder, *verb).replace(str(folder), "")


def tuned() -> snnc.Network:
    return snnc.tune(ANN, (X, Y), T, "best", epochs=1, batch=12, loss="both", held_out=0)


# What snnc is asked to do. A name with a dot is a way to call the function of that name.
WORK: dict[str, Callable[[Path], Any]] = {
    "capture": lambda folder: list(snnc.capture(ANN, (2, 6, 6)).state_dict().values()),
    "check": lambda folder: [str(snnc.check(ANN, (2, 6, 6)))],
    "blockers": lambda folder: [len(blockers(ANN)), len(blockers(nn.Sequential(nn.GELU())))],
    "compile": lambda folder: content(compiled()),
    "compile.low-latency": lambda folder: content(snnc.compile(ANN, T, "low-latency", X)),
    "compile.fixed-point": lambda folder: content(
        snnc.compile(ANN, T, snnc.recipe("cos").pipeline.insert(FixedPoint(bits=8)), X)
    ),
    "compile.data-free": lambda folder: content(snnc.compile(ANN, T, "data-free", input_shape=(2, 6, 6))),
    "search": lambda folder: content(
        snnc.search(ANN, (X, Y), 100, recipes=["opi"], steps=[T], samples=8, holdout=8).network
    ),
    "tune": lambda folder: content(tuned())[1:-1],
    "save": lambda folder: list(saved(folder, compiled())),
    "load": lambda folder: content(snnc.load(KEPT["plain"])),
    "load_model": lambda folder: list(load_model(KEPT["exported"]).state_dict.values()),
    "prove": lambda folder: [repr(snnc.prove(snnc.load(KEPT["fixed"]).graph))],
    "forward": lambda folder: [net(X) for net in NETWORKS.values()],
    "readout": lambda folder: [net.readout(X) for net in NETWORKS.values()],
    "stream": lambda folder: [out for net in NETWORKS.values() if net.looks_inside for out in net.stream(X)],
    "evaluate": lambda folder: [snnc.evaluate(net, (X, Y), ANN).to_dict() for net in NETWORKS.values()],
    "explain": lambda folder: [repr(snnc.explain(NETWORKS["plain"], ANN, (X, Y)).to_dict())],
    "differences": lambda folder: [repr(snnc.verify(NETWORKS["plain"], NETWORKS["onnx"], X, ANN).to_dict())],
    "report": lambda folder: [snnc.report(NETWORKS["plain"], (X, Y), ANN).to_dict()],
    "compare": lambda folder: [repr(snnc.compare(NETWORKS, (X, Y), ANN).rows)],
    "commands": lambda folder: list(commands(folder)),
}
PURE = {"distributed", "plugin", "recipe", "verify"}  # of the public functions: they make and measure nothing
NETWORKS: dict[str, Any] = {}
KEPT: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def kept(tmp_path_factory):
    """Networks and files that were made in the state that a process begins in."""
    folder = tmp_path_factory.mktemp("kept")
    net = compiled()
    fixed = snnc.compile(ANN, T, snnc.recipe("opi").pipeline.insert(FixedPoint(bits=8)), X)
    KEPT["plain"], KEPT["fixed"] = snnc.save(net, folder / "plain.snn"), snnc.save(fixed, folder / "fixed.snn")
    KEPT["exported"] = folder / "ann.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(ANN, (X,)), KEPT["exported"])
    NETWORKS.update(plain=snnc.load(KEPT["plain"]), fixed=snnc.load(KEPT["fixed"]))
    NETWORKS["pt2"] = snnc.load(snnc.save(net, folder / "plain.pt2"))
    NETWORKS["onnx"] = snnc.load(snnc.save(net, folder / "plain.onnx"))
    yield
    NETWORKS.clear()
    KEPT.clear()


@pytest.fixture(scope="module")
def wanted(kept, tmp_path_factory):
    """What all work gives in the state that a process begins in, to the bit."""
    folder = tmp_path_factory.mktemp("wanted")
    return {name: digest(*plain(work(folder))) for name, work in WORK.items()}


def test_every_entry_point_is_there():
    public = {n for n in snnc.__all__ if inspect.isfunction(getattr(snnc, n)) or n == "recipe"}
    assert public - PURE <= set(WORK)


# States


@contextmanager
def setting(turn: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    turn(value)
    try:
        yield
    finally:
        turn(before)


@contextmanager
def of_gpus() -> Iterator[None]:
    """Autocast of a GPU that need not be there."""
    with setting(lambda on: torch.set_autocast_enabled("cuda", on), True, False):
        yield


def medium() -> AbstractContextManager[None]:
    return setting(torch.set_float32_matmul_precision, "medium", "highest")


@contextmanager
def backends() -> Iterator[None]:
    """A precision of everything, which operations follow that have none of their own, as "medium" leaves behind."""
    onednn: Any = torch.backends.mkldnn
    every = (torch.backends, onednn.matmul, onednn.conv)
    before = [one.fp32_precision for one in every]
    for one, bits in zip(every, ("bf16", "none", "none"), strict=True):
        one.fp32_precision = bits
    yield
    for one, bits in zip(every, before, strict=True):
        one.fp32_precision = bits


def matmul_precision() -> str:
    """Torch does not tell it where the precision of everything says something else."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "follows"


@contextmanager
def strict() -> Iterator[None]:
    """Deterministic mode, in which memory that nobody has written holds NaN."""
    with setting(torch.use_deterministic_algorithms, True, False):
        yield


@contextmanager
def drawn() -> Iterator[None]:
    """Other random states than those of the other runs."""
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    random.seed(77)
    yield


def each(*states: Callable[[], AbstractContextManager[Any]]) -> Callable[[], AbstractContextManager[Any]]:
    """Several that have nothing to do with each other."""

    @contextmanager
    def together() -> Iterator[None]:
        with ExitStack() as stack:
            for state in states:
                stack.enter_context(state())
            yield

    return together


def half() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.float16, cache_enabled=False)


def anomalies() -> AbstractContextManager[Any]:
    return torch.autograd.set_detect_anomaly(True, check_nan=True)


APART: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "as it began": ExitStack,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast, float16, and that of GPUs": each(half, of_gpus),
    "default type": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: setting(torch.set_default_device, "meta", None),
    "a device as a context, a short type": each(
        lambda: torch.device("meta"), lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32)
    ),
    "no gradients, deterministic mode": each(torch.no_grad, strict),
    "precision": medium,
    "precision of all backends, denormal numbers flushed": each(
        backends, lambda: setting(torch.set_flush_denormal, True, False)
    ),
    "random states, and what is for debugging": each(
        drawn,
        anomalies,
        lambda: np.errstate(all="raise"),
        lambda: setting(torch.__future__.set_swap_module_params_on_conversion, True, False),
    ),
}
STATES = {**APART, "inference mode": torch.inference_mode, "all at once": each(*APART.values())}


def snapshot() -> dict[str, Any]:
    """What of the state of a process can be told."""
    onednn: Any = torch.backends.mkldnn
    return {
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "cache": torch.is_autocast_cache_enabled(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "precision": [matmul_precision(), onednn.matmul.fp32_precision, onednn.conv.fp32_precision],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "nnpack": torch._C._get_nnpack_enabled(),
        "denormal": sys.float_info.min * 0.5 == 0,
        "random": digest(torch.get_rng_state(), np.random.get_state(), random.getstate()),  # noqa: NPY002
        "warnings": list(warnings.filters),
        "threads": torch.get_num_threads(),
        "numpy": np.geterr(),
    }


@pytest.mark.parametrize("state", STATES)
def test_no_state_changes_a_bit_or_is_changed(state, wanted, tmp_path):
    found = {}
    with STATES[state]():
        for name, work in WORK.items():
            before = snapshot()
            result = work(tmp_path)
            after = snapshot()
            assert {k for k in before if before[k] != after[k]} == set(), name
            with steady():
                found[name] = digest(*plain(result))
    assert {name for name in WORK if found[name] != wanted[name]} == set()


def test_the_last_of_several_threads_puts_a_type_back():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with exact():
            entered.set()
            leave.wait(10)

    with setting(torch.set_default_dtype, torch.float64, torch.float32):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        with steady():
            pass
        assert torch.get_default_dtype() is torch.float32  # the other one is still at work
        leave.set()
        thread.join()
        assert torch.get_default_dtype() is torch.float64


def test_a_guard_is_left_when_the_work_fails():
    before = snapshot()
    with pytest.raises(snnc.SnncError):
        snnc.compile(ANN, T, "no such recipe")
    assert snapshot() == before


def test_a_stream_leaves_the_caller_alone_between_steps():
    net = NETWORKS["plain"]
    for _ in net.stream(X):
        assert torch.is_grad_enabled()
    with torch.autocast("cpu", torch.bfloat16):
        next(net.stream(X))
        assert torch.is_autocast_enabled("cpu")


def test_a_compiled_network_in_inference_mode_is_an_ordinary_one():
    with torch.inference_mode():
        net = snnc.compile(ANN, T, "best", X)
    assert not any(value.is_inference() for value in net.state_dict().values())
    x = X.clone().requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None


class Twice(IF):
    def step(self, state, current):
        return super().step(state, 2 * current)


def of_another_class(net):
    net.graph.get_submodule(net.neurons()[0][0]).__class__ = Twice


def with_another_method(net):
    neuron = net.graph.get_submodule(net.neurons()[0][0])
    neuron.step = lambda state, current: IF.step(neuron, state, 2 * current)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("change", [of_another_class, with_another_method])
def test_a_network_with_other_modules_gets_another_plan(change, fixed):
    net = copy.deepcopy(NETWORKS["fixed" if fixed else "plain"])
    before = net(X)
    change(net)
    reference = copy.copy(net)
    reference.runtime = "reference"
    assert torch.equal(net(X), reference(X))
    assert not torch.equal(net(X), before)


def test_a_file_of_several_types_loads_and_runs(tmp_path):
    """As earlier versions wrote them where a process had another default type."""
    net = snnc.compile(ANN, T, "low-latency", X)
    want = net(X)
    for _, neuron in net.neurons():
        neuron.theta = neuron.theta.double()
    assert torch.equal(snnc.load(snnc.save(net, tmp_path / "net.snn"))(X), want)
