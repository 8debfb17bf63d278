"""Checkpoints as training scripts write them: the weights are found, what stands beside them is skipped, unmade."""

import argparse
import builtins
import collections
import dataclasses
import datetime
import enum
import fractions
import pathlib
import pickle
import random
import re
import sys
import types
import uuid
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from snnc.errors import LoadError
from snnc.files import load_model
from tests.safetensors_files import safetensors


class Colour(enum.Enum):
    RED = 1


class Record(dict):
    """A dict of another class, with attributes besides."""


class Log(list):
    """A list of another class."""


class Slotted:
    __slots__ = ("inner",)

    class Inner:
        def __init__(self):
            self.value = 1


@dataclasses.dataclass
class State:
    weights: dict


class Callback:
    """What must never be made: every way in is recorded."""

    ran: list = []  # noqa: RUF012

    def __new__(cls, *args):
        cls.ran.append("new")
        return super().__new__(cls)

    def __init__(self):
        self.best = 3

    def __setstate__(self, state):
        self.ran.append("set")

    def __reduce__(self):
        return Callback, (), {"best": 3}


class Head(nn.Module):
    """A module of the user's own."""

    def __init__(self, options=None):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.options = options

    def forward(self, x):
        return self.fc(x)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An importable module `mine` with the factories and classes, and a folder of the test's own."""
    module = types.ModuleType("mine")
    module.net, module.parts, module.head = net, parts, lambda: Head()
    module.wrapped = lambda: nn.DataParallel(net())
    module.inside = lambda: nn.Sequential(nn.Sequential(*net()))
    module.bare = lambda: nn.ReLU()
    for cls in (Colour, Record, Log, Slotted, Slotted.Inner, State, Callback, Head):
        monkeypatch.setattr(cls, "__module__", "mine")
        if "." not in cls.__qualname__:
            setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.chdir(tmp_path)
    Callback.ran.clear()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def parts():
    return nn.ModuleDict({"encoder": nn.Linear(4, 8), "decoder": nn.Linear(8, 3)})


TRAINED = OrderedDict((k, v + 0.5 if v.is_floating_point() else v) for k, v in net().state_dict().items())
HEAD = {"head.weight": torch.ones(2, 2)}


def named(prefix, weights=TRAINED):
    return {prefix + k: v for k, v in weights.items()}


def load(content, factory="mine:net", **options):
    torch.save(content, "w.pth")
    return load_model("w.pth", factory=factory, **options)


def holds(network, trained=TRAINED):
    got = network.state_dict()
    return len(got) == len(trained) and all(torch.equal(got[k], v) for k, v in trained.items())


# ---- what stands beside the weights -------------------------------------------------------------


def beside():
    """Objects that people save with their weights, by name."""
    record = Record(lr=0.1)
    record.note = "x"
    slotted = Slotted()
    slotted.inner = Slotted.Inner()
    optimiser = torch.optim.Adam(net().parameters())
    return {
        "Namespace": argparse.Namespace(lr=0.1, path=pathlib.Path("x")),
        "SimpleNamespace": types.SimpleNamespace(a=1),
        "PosixPath": pathlib.PurePosixPath("/a/b"),
        "WindowsPath": pathlib.PureWindowsPath("c:/x"),
        "numpy numbers": [np.float64(1.5), np.float32(2), np.int64(3), np.bool_(True)],
        "numpy arrays": [np.zeros((2, 3)), np.arange(4), np.array(["a", None], dtype=object)],
        "numpy state": np.random.get_state(),  # noqa: NPY002
        "python state": random.getstate(),
        "torch state": torch.get_rng_state(),
        "defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
        "deque": collections.deque([1, 2], maxlen=3),
        "Counter": collections.Counter("aab"),
        "sets": [{1}, frozenset({2}), {np.int64(3)}],
        "numbers": [complex(1, 2), 10**30, fractions.Fraction(1, 3), range(3), slice(1), b"bytes", bytearray(b"x")],
        "times": [datetime.datetime(2026, 1, 2), datetime.timedelta(1), datetime.date(2026, 1, 2), uuid.UUID(int=3)],
        "enum": Colour.RED,
        "dict of another class": record,
        "list of another class": Log([1, 2]),
        "slots, and a class in a class": slotted,
        "torch's own": [torch.Size([1, 2]), torch.device("cpu"), torch.float16, torch.strided],
        "optimiser": optimiser.state_dict(),
        "the optimiser itself": optimiser,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimiser, 3).state_dict(),
        "functions": [torch.relu, len, nn.functional.relu, torch.optim.Adam],
        "loss": nn.CrossEntropyLoss(),
        "a module": Head(),
        "a callback": Callback(),
        "keys that are no text": {np.int64(3): 1, (1, 2): 3, None: 4},
    }


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", beside())
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_what_is_beside_the_weights_is_skipped(name, new):
    if not new and name in ("loss", "a module"):
        pytest.skip("the old format stores modules by their source, which torch's safe reader does not know")
    content = {"extra": beside()[name], "state_dict": TRAINED, "more": {"deep": [beside()[name]]}}
    torch.save(content, "w.pth", _use_new_zipfile_serialization=new)
    Callback.ran.clear()
    assert holds(load_model("w.pth", factory="mine:net"))
    assert Callback.ran == []


def test_nothing_that_is_skipped_is_imported(monkeypatch):
    """Every import and every call that reading makes is seen: none is of what the file names."""
    module = types.ModuleType("theirs")
    module.Thing = type("Thing", (), {"__module__": "theirs"})
    monkeypatch.setitem(sys.modules, "theirs", module)
    torch.save({"state_dict": TRAINED, "thing": module.Thing(), "of": np.float64(1)}, "w.pth")
    monkeypatch.delitem(sys.modules, "theirs")
    asked, real = [], builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: (asked.append(name), real(name, *rest))[1])
    assert holds(load_model("w.pth", factory="mine:net"))
    assert "theirs" not in asked
    assert "theirs" not in sys.modules


def test_what_the_user_allowed_torch_stays_allowed():
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([nn.Linear, argparse.Namespace]):
        kept = set(torch.serialization.get_safe_globals())
        load({"state_dict": TRAINED, "args": argparse.Namespace(), "head": nn.Linear(1, 1), "n": np.float64(1)})
        assert set(torch.serialization.get_safe_globals()) == kept
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_a_call_into_the_system_is_refused(tmp_path):
    class Touch:
        def __reduce__(self):
            import os

            return os.system, (f"touch '{tmp_path}/it-ran'",)

    with pytest.raises(LoadError, match=r"posix\.system"):
        load({"state_dict": TRAINED, "x": Touch()})
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("call", [builtins.eval, builtins.exec, builtins.__import__, pickle.loads])
def test_a_call_is_skipped_unmade(call):
    class Call:
        def __reduce__(self):
            return call, (b"raise SystemExit",)

    assert holds(load({"state_dict": TRAINED, "x": Call()}))


# ---- where the weights are ----------------------------------------------------------------------


def averaged():
    model = net()
    model.load_state_dict(TRAINED)
    return torch.optim.swa_utils.AveragedModel(model).state_dict()


def mid(wrapper):
    """The names of a network of which one part was wrapped."""
    return {k.replace("3.", f"3.{wrapper}."): v for k, v in TRAINED.items()}


PLACES = {
    "plain": TRAINED,
    "plain, of parameters": {k: nn.Parameter(v, False) for k, v in TRAINED.items()},
    **{f"in {name}": {name: TRAINED, "epoch": 3} for name in ("state_dict", "model_state", "ema", "params", "weights")},
    "mmcv": {"meta": {"epoch": 1, "CLASSES": ("a", "b")}, "state_dict": named("backbone.")},
    "DeepSpeed": {"module": TRAINED, "ds_version": "0.1"},
    "AveragedModel": averaged(),
    "AveragedModel in an entry": {"swa": averaged(), "epoch": 1},
    "DataParallel": named("module."),
    "compiled": {"model": named("_orig_mod.")},
    "compiled within parallel": named("module._orig_mod."),
    "FSDP": {"model": named("_fsdp_wrapped_module.", mid("_fsdp_wrapped_module"))},
    "checkpointed": mid("_checkpoint_wrapped_module"),
    "a part is parallel": mid("module"),
    "a part is compiled": mid("_orig_mod"),
    "Lightning": {
        "epoch": 1,
        "pytorch-lightning_version": "2.1",
        "state_dict": named("model."),
        "hyper_parameters": argparse.Namespace(lr=1, net=pathlib.Path("x")),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0), "dirpath": "x"}},
        "optimizer_states": [torch.optim.Adam(net().parameters()).state_dict()],
        "loops": {"fit_loop": {"state_dict": {}}},
    },
    "Lightning's net": {"state_dict": named("net.")},
    "HuggingFace": named("bert.encoder."),
    "Accelerate": {"model": named("module.model.")},
    "thop": TRAINED | {"total_ops": torch.zeros(1), "0.total_ops": torch.zeros(1), "3.total_params": torch.zeros(1)},
    "a tuple": (TRAINED, {"epoch": 2}),
    "a list": [3, TRAINED],
    "two deep": {"checkpoint": {"model": {"state": TRAINED}}},
    "the same twice": {"model": TRAINED, "state_dict": dict(TRAINED)},
    "copies": {"model": TRAINED, "best": {k: v.clone() for k, v in TRAINED.items()}},
    "in a dict of another class": Record(state_dict=Record(TRAINED)),
    "in a defaultdict": {"state_dict": collections.defaultdict(int, TRAINED)},
    "as numpy arrays": {k: v.numpy() for k, v in TRAINED.items()},
    "as numpy arrays, turned": {k: np.asfortranarray(v.numpy()) for k, v in TRAINED.items()},
    "as numpy arrays, swapped": {k: v.numpy().astype(v.numpy().dtype.newbyteorder()) for k, v in TRAINED.items()},
    "of doubles": {k: v.double() if v.is_floating_point() else v for k, v in TRAINED.items()},
    "of old torch, without counters": {k: v for k, v in TRAINED.items() if "num_batches" not in k},
    "optimiser first": {"optimizer": torch.optim.Adam(net().parameters()).state_dict(), "net": TRAINED},
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_found(place):
    assert holds(load(PLACES[place]))


def test_a_prefix_is_told():
    told = []
    load({"state_dict": named("model.")}, say=told.append)
    assert told == ["w.pth: 'state_dict.model.0.weight' is taken as '0.weight', and the other names alike."]
    load(TRAINED, say=told.append)
    assert len(told) == 1


def test_parts_in_entries_of_their_own():
    trained = parts()
    content = {"encoder": trained["encoder"].state_dict(), "decoder": trained["decoder"].state_dict(), "epoch": 1}
    assert holds(load(content, "mine:parts"), trained.state_dict())


@pytest.mark.parametrize(("factory", "prefix"), [("wrapped", "module."), ("inside", "0.")])
def test_the_factory_may_wrap_what_the_file_does_not(factory, prefix):
    assert holds(load(TRAINED, f"mine:{factory}"), named(prefix))


def test_in_a_dataclass_of_the_user_s_own():
    with pytest.raises(LoadError, match=r"mine\.State") as caught:
        load(State(dict(TRAINED)))
    assert "--allow mine:State" in caught.value.hint
    assert holds(load(State(dict(TRAINED)), allow=["mine:State"]))


def test_in_a_namespace():
    with pytest.raises(LoadError, match=r"argparse\.Namespace") as caught:
        load({"trainer": argparse.Namespace(model=TRAINED)})
    assert "--allow argparse:Namespace" in caught.value.hint
    assert holds(load({"trainer": argparse.Namespace(model=TRAINED)}, allow=["argparse:Namespace"]))


# ---- several, or not all ------------------------------------------------------------------------


def other(weights=TRAINED):
    return {k: v + 1 for k, v in weights.items()}


SEVERAL = {
    "timm": ({"state_dict": TRAINED, "state_dict_ema": other()}, ["state_dict", "state_dict_ema"]),
    "teacher and student": ({"state_dict": named("student.") | named("teacher.", other())},
                            ["state_dict.student", "state_dict.teacher"]),
    "parallel, each": (named("module.student.") | named("module.teacher.", other()),
                       ["module.student", "module.teacher"]),
    "ema within": ({"model": TRAINED, "ema": {"shadow": other()}}, ["model", "ema.shadow"]),
    "at the top and below": (dict(TRAINED) | {"ema": other()}, [".", "ema"]),
    "a list": ([TRAINED, other()], ["0", "1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SEVERAL)
def test_several_entries_are_listed_and_a_key_chooses(case):
    content, names = SEVERAL[case]
    with pytest.raises(LoadError, match="more than once: " + re.escape(", ".join(map(repr, names)))) as caught:
        load(content)
    assert caught.value.hint.startswith(f"--key {names[0]},")
    assert holds(load(content, key=names[0]))
    assert holds(load(content, key=names[1]), other())


def test_bare_names_win_over_prefixed_ones_beside_them():
    assert holds(load({"model": dict(TRAINED) | named("aux.", other())}, leftover=True))


def test_a_key_that_is_none():
    with pytest.raises(LoadError, match="no weights in an entry 'nope', but in 'state_dict'") as caught:
        load({"state_dict": TRAINED}, key="nope")
    assert "drop --key" in caught.value.hint
    with pytest.raises(LoadError, match="no module in an entry 'nope', but in 'net'"):
        load({"net": nn.Sequential(nn.Linear(4, 3))}, None, key="nope")


def test_a_module_that_stands_twice_is_one():
    whole = nn.Sequential(nn.Linear(4, 3))
    assert isinstance(load({"model": whole, "best": whole}, None), nn.Sequential)


def test_a_module_beside_weights_does_not_hide_what_is_wrong_with_them():
    content = {"old": nn.Sequential(nn.Linear(4, 3)), "model": TRAINED, "ema": other()}
    with pytest.raises(LoadError, match="more than once"):
        load(content)
    assert holds(load(content, key="ema"), other())
    with pytest.raises(LoadError, match=r"1 missing \(3\.bias\)"):
        load({"old": content["old"], "model": {k: v for k, v in TRAINED.items() if k != "3.bias"}})


def test_a_key_chooses_a_module():
    content = {"model": nn.Sequential(nn.Linear(4, 3)), "ema": nn.Sequential(nn.Linear(4, 2)), "n": np.float64(1)}
    with pytest.raises(LoadError, match="2 modules: model, ema") as caught:
        load(content, None)
    assert caught.value.hint.startswith("--key model,")
    assert load(content, None, key="ema")[0].out_features == 2


def test_leftovers_are_listed_and_accepted():
    many = named("head.", TRAINED)
    for content, message in (
        ({"state_dict": TRAINED | HEAD}, r"1 left over \(state_dict\.head\.weight\)"),
        (TRAINED | many, r"8 left over \(head\.0\.weight, head\.0\.bias, .*, \.\.\.\)"),
        ({"state_dict": named("net.") | {"loss.weight": torch.ones(3)}}, r"1 left over \(state_dict\.loss\.weight\)"),
        (TRAINED | {"rng": torch.get_rng_state()}, r"1 left over \(rng\)"),
    ):
        with pytest.raises(LoadError, match=message) as caught:
            load(content)
        assert caught.value.hint.startswith("--leftover")
        told = []
        assert holds(load(content, leftover=True, say=told.append))
        assert "left out" in told[0]


def test_missing_names_are_never_accepted():
    few = {k: v for k, v in TRAINED.items() if not k.startswith("3.")}
    with pytest.raises(LoadError, match=r"2 missing \(3\.weight, 3\.bias\) and 1 left over \(head\.weight\)"):
        load(few | HEAD, leftover=True)
    with pytest.raises(LoadError, match="8 missing"):
        load(HEAD)


def test_shapes_and_kinds_that_differ_are_named():
    wrong = TRAINED | {"3.weight": torch.ones(5, 8), "3.bias": torch.ones(5)}
    with pytest.raises(LoadError, match=r"3\.weight is 5x8 in the file and 3x8 in the network; 3\.bias is 5"):
        load({"state_dict": wrong})
    with pytest.raises(LoadError, match=r"3\.weight is torch\.int8 in the file and torch\.float32"):
        load(TRAINED | {"3.weight": torch.ones(3, 8, dtype=torch.int8)})


def test_a_number_that_was_skipped_is_missing():
    with pytest.raises(LoadError, match=r"1 missing \(3\.bias\)"):
        load(TRAINED | {"3.bias": np.float64(3)})


def test_a_factory_without_weights():
    with pytest.raises(LoadError, match="builds a network without weights"):
        load(TRAINED, "mine:bare")


def test_weights_alone_say_so_in_plain_words():
    with pytest.raises(LoadError, match=r"holds weights \(x\.a, y\) but no network") as caught:
        load({"x": {"a": torch.ones(3)}, "y": torch.ones(2), "args": argparse.Namespace()}, None)
    assert "--factory" in caught.value.hint


@pytest.mark.parametrize("option", [{"key": "a"}, {"leftover": True}])
def test_options_that_a_whole_network_does_not_need(option):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), "w.pt2")
    with pytest.raises(LoadError, match="is a whole network"):
        load_model("w.pt2", **option)


def test_options_that_a_module_does_not_need():
    whole = nn.Sequential(nn.Linear(4, 3))
    for content, options in ((whole, {"key": "x"}), (whole, {"leftover": True}), ({"net": whole}, {"leftover": True})):
        with pytest.raises(LoadError) as caught:
            load(content, None, **options)
        assert caught.value.hint.startswith("drop --")
    for options in ({"key": "x"}, {"leftover": True}):
        with pytest.raises(LoadError, match="needs no --"):
            load_model("-", factory="mine:net", **options)


def test_a_module_beside_tensors_needs_no_factory():
    content = {"net": nn.Sequential(nn.Linear(4, 3)), "rng": torch.get_rng_state()}
    with pytest.raises(LoadError, match="whole module and needs no factory"):
        load(content)
    with pytest.raises(LoadError, match=r"namely mine\.Head;") as caught:
        load({"net": Head(), "rng": torch.get_rng_state(), "acc": np.float64(1)})
    assert "--allow mine:Head" in caught.value.hint


@pytest.mark.parametrize("content", [{}, None, torch.ones(3), {"epoch": 3}, [1, 2]])
def test_a_file_without_weights(content):
    with pytest.raises(LoadError, match="holds no weights: it is"):
        load(content)


# ---- modules, with something beside or inside ---------------------------------------------------


def test_a_module_of_torch_layers_is_taken_from_beside_anything():
    whole = nn.Sequential(nn.Linear(4, 3))
    assert isinstance(load({"net": whole, "args": argparse.Namespace(), "acc": np.float64(1)}, None), nn.Sequential)
    assert isinstance(load({"loss": nn.MSELoss(), "net": whole}, None), nn.Sequential)


def test_only_what_is_in_the_module_has_to_be_allowed():
    content = {"model": Head(), "args": argparse.Namespace(), "acc": np.float64(1)}
    with pytest.raises(LoadError, match=r"namely mine\.Head; nothing") as caught:
        load(content, None)
    assert "--allow mine:Head;" in caught.value.hint
    assert isinstance(load(content, None, allow=["mine:Head"]), Head)


def test_what_is_in_a_module_is_not_skipped():
    content = {"model": Head(argparse.Namespace(lr=0.1, path=pathlib.PosixPath("x"))), "acc": np.float64(1)}
    with pytest.raises(LoadError, match=r"namely argparse\.Namespace, pathlib\.PosixPath; nothing") as caught:
        load(content, None, allow=["mine:Head"])
    assert caught.value.hint.startswith("--allow argparse:Namespace --allow pathlib:PosixPath;")
    allow = ["mine:Head", "argparse:Namespace", "pathlib:PosixPath"]
    assert load(content, None, allow=allow).options.lr == 0.1


@pytest.mark.parametrize("inside", [np.float64(3), torch.relu, collections.defaultdict(list)])
def test_no_option_is_named_for_what_cannot_be_allowed(inside):
    with pytest.raises(LoadError, match="nothing was run") as caught:
        load(Head(inside), None, allow=["mine:Head"])
    assert "--allow" not in caught.value.hint
    assert "save its state_dict" in caught.value.hint


@pytest.mark.parametrize("spec", ["collections:defaultdict", "numpy:float64", "pathlib:PurePath", "mine:Callback"])
def test_what_cannot_be_allowed_need_not_be(spec):
    with pytest.raises(LoadError, match="cannot be allowed") as caught:
        load({"state_dict": TRAINED, "args": argparse.Namespace()}, allow=[spec])
    assert caught.value.hint.startswith("leave it out")
    assert holds(load({"state_dict": TRAINED, "args": argparse.Namespace()}))


# ---- safetensors --------------------------------------------------------------------------------


def write(weights, edit=None):
    pathlib.Path("w.safetensors").write_bytes(safetensors(weights, edit))


def test_safetensors_are_read():
    write(named("model."))
    assert holds(load_model("w.safetensors", factory="mine:net"))
    with pytest.raises(LoadError, match="but no network"):
        load_model("w.safetensors")


@pytest.mark.parametrize(
    "edit",
    [
        lambda h: h["0.weight"].update(shape=[8, 5]),
        lambda h: h["0.weight"].update(shape=[-8, -4]),
        lambda h: h["0.weight"].update(data_offsets=[4, 132]),
        lambda h: h["0.weight"].update(dtype="Q3"),
        lambda h: h["0.weight"].pop("dtype"),
        lambda h: h.pop("3.bias"),
        lambda h: h.update(more=3),
        lambda h: h["3.bias"].update(data_offsets=[0, 12]),
    ],
)
def test_damaged_safetensors_are_refused(edit):
    write(TRAINED, edit)
    with pytest.raises(LoadError, match="damaged"):
        load_model("w.safetensors", factory="mine:net")


def test_safetensors_that_are_cut_short():
    write(TRAINED)
    whole = pathlib.Path("w.safetensors").read_bytes()
    for size in (len(whole) - 4, 300, 20):
        pathlib.Path("w.safetensors").write_bytes(whole[:size])
        with pytest.raises(LoadError):
            load_model("w.safetensors", factory="mine:net")


# ---- files that mean ill ------------------------------------------------------------------------


def test_what_names_themselves_cannot_do():
    """Long names, deep ones, and containers in themselves take no time."""
    loop = {}
    loop["loop"] = loop
    wide = [loop] * 1000
    loop["wide"] = [wide] * 1000
    extra = []
    extra.append(extra)
    load(
        {"state_dict": TRAINED, "a." * 200_000: torch.ones(1), "loop": loop, "x._extra_state": extra}, key="state_dict"
    )


def test_another_pickle_protocol_is_named():
    torch.save({"state_dict": TRAINED}, "w.pth", pickle_protocol=4)
    with pytest.raises(LoadError, match="pickle_protocol") as caught:
        load_model("w.pth", factory="mine:net")
    assert "torch.save" in caught.value.hint
