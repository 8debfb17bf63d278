"""The history of an emitted file is checked by one checker, whichever file brings it."""

import copy
import json
import zipfile

import onnx
import pytest
import torch
from torch import nn

import snnc
from snnc.errors import LoadError
from snnc.files.history import SCHEDULES, STAGES, Fault, read_history
from snnc.ir.graph import TIMED
from snnc.ir.neurons import base

LATENCY = {"schedule": "streaming", "T": 4, "rho": 0, "depth": 2, "steps": 4}
RECORD = {"name": "p", "options": {}, "sites": 1, "stage": "ANN", "seconds": 0.1, "error": None, "notes": ["a"]}
COMPARED = {"with": "the module", "samples": "random", "batches": [3], "error": 0.0, "bound": 0.1, "why": ""}
GOOD = {"latency": LATENCY, "stage": "SPIKING", "input_shape": [4], "records": [RECORD], "versions": {"snnc": "1"}} | {
    "compared": COMPARED
}


def deep(levels):
    return "[" * levels + "]" * levels


def latency(**change):
    return {**GOOD, "latency": {**LATENCY, **change}}


BROKEN = {
    "nothing": (None, "no latency"),
    "a list": ([], "no latency"),
    "latency a list": ({**GOOD, "latency": [1]}, "no latency"),
    "half a latency": ({**GOOD, "latency": {"T": 4}}, "incomplete"),
    "schedule a list": (latency(schedule=[1]), "incomplete"),
    "schedule unknown": (latency(schedule="soon"), "schedule"),
    "T text": (latency(T="x"), "whole steps"),
    "T a flag": (latency(T=True), "whole steps"),
    "T a fraction": (latency(T=4.0), "whole steps"),
    "T none": (latency(T=0), "whole steps"),
    "T vast": (latency(T=10**30), "whole steps"),
    "T more than all steps": (latency(T=10**9), "fewer steps"),
    "rho missing": (latency(rho=None), "whole steps"),
    "no depth": (latency(depth=0, schedule="layer-synchronous"), "whole steps"),
    "shape a number": ({**GOOD, "input_shape": 5}, "no shape"),
    "shape of text": ({**GOOD, "input_shape": ["a"]}, "no shape"),
    "shape of vast size": ({**GOOD, "input_shape": [2**20] * 4}, "no shape"),
    "rank text": ({**GOOD, "input_rank": "q"}, "dimensions"),
    "range of text": ({**GOOD, "input_range": ["a", "b"]}, "range"),
    "range of one": ({**GOOD, "input_range": [1]}, "range"),
    "range turned over": ({**GOOD, "input_range": [1, 0]}, "range"),
    "range infinite": ({**GOOD, "input_range": [0, float("inf")]}, "range"),
    "stage": ({**GOOD, "stage": "ANN"}, "stage"),
    "stage a list": ({**GOOD, "stage": ["ANN"]}, "stage"),
    "records a table": ({**GOOD, "records": {"a": 1}}, "records"),
    "notes of lists": ({**GOOD, "records": [{**RECORD, "notes": [[]]}]}, "records"),
    "error text": ({**GOOD, "records": [{**RECORD, "error": "x"}]}, "records"),
    "seconds vast": ({**GOOD, "records": [{**RECORD, "seconds": 10**400}]}, "records"),
    "proof": ({**GOOD, "proof": [3]}, "proof"),
    "recipe": ({**GOOD, "recipe": 3}, "recipe"),
    "recipe text": ({**GOOD, "recipe_text": []}, "recipe"),
    "versions": ({**GOOD, "versions": {"snnc": [1]}}, "versions"),
    "samples": ({**GOOD, "calibration_samples": "many"}, "samples"),
    "tune": ({**GOOD, "tune": 3}, "training"),
    "comparison": ({**GOOD, "compared": {"with": "the module"}}, "comparison"),
    "comparison of text": ({**GOOD, "compared": {**COMPARED, "error": "x"}}, "comparison"),
    "trace": ({**GOOD, "trace": {}}, "trace"),
}
TEXTS = {
    "no JSON": ("{", "no JSON"),
    "no text": (b"\xff\xfe\x00", "no JSON"),
    "nested without end": ("[" * 200_000, "no JSON"),
    "nested": (json.dumps({**GOOD, "tune": {"a": 0}}).replace("0}", f"{deep(90)}}}"), "nested"),
    "long": (json.dumps({**GOOD, "recipe": "x" * 2**22}), "long"),
    "digits without end": (json.dumps(GOOD).replace('"T": 4', '"T": ' + "9" * 10_000), "no JSON"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_what_does_not_fit_is_a_fault(case):
    value, says = case
    with pytest.raises(Fault, match=says):
        read_history(json.dumps(value), staged=True)


@pytest.mark.parametrize("case", TEXTS.values(), ids=TEXTS)
def test_what_cannot_be_read_is_a_fault(case):
    text, says = case
    with pytest.raises(Fault, match=says):
        read_history(text, staged=False)


def test_what_fits_is_read():
    assert read_history(json.dumps(GOOD), staged=True) == GOOD
    plain = {"latency": LATENCY}
    assert read_history(json.dumps(plain).encode(), staged=False) == plain


def test_words_are_those_of_the_graph():
    assert SCHEDULES == base.SCHEDULES
    assert set(STAGES) == {str(stage) for stage in TIMED}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    return snnc.compile(net, T=2, recipe="opi", calibration=torch.rand(16, 4))


@pytest.mark.parametrize("change", [{"records": 3}, {"compared": {"with": "the module"}}, {"input_shape": "x"}])
def test_a_graph_file_is_refused_too(change, network, tmp_path):
    net = copy.copy(network)
    net.info = network.info | change
    with pytest.raises(LoadError, match=r"bad.snn' is refused: its"):
        snnc.load(snnc.save(net, tmp_path / "bad.snn"))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda info: info["latency"].update(T="x"), "whole steps"),
        (lambda info: info["latency"].update(T=7, steps=7), "T = 7"),
        (lambda info: info["latency"].update(T=10**9, steps=10**9), "T = 1000000000"),
        (lambda info: info.update(records=3), "records"),
    ],
)
def test_both_doors_refuse(suffix, change, says, network, tmp_path):
    path = snnc.save(network, tmp_path / f"good{suffix}")
    assert snnc.load(path).T == 2
    bad = tmp_path / f"bad{suffix}"
    if suffix == ".onnx":
        made = onnx.load(path)
        info = json.loads(made.metadata_props[0].value)
        change(info)
        made.metadata_props[0].value = json.dumps(info)
        onnx.save(made, bad)
    else:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(bad, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename.endswith("/snnc.json"):
                    info = json.loads(content)
                    change(info)
                    content = json.dumps(info).encode()
                new.writestr(entry.filename, content)
    with pytest.raises(LoadError, match=says):
        snnc.load(bad)


def test_a_program_of_other_samples_is_refused(network, tmp_path):
    path = snnc.save(network, tmp_path / "good.pt2")
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bad, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("/snnc.json"):
                content = json.dumps({**json.loads(content), "input_shape": [5]}).encode()
            new.writestr(entry.filename, content)
    with pytest.raises(LoadError, match=r"samples of shape \[5\]"):
        snnc.load(bad)
