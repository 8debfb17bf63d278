"""Recordings of others: what differs is counted, and what does not fit is refused by name."""

import json
from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.backends.nir.data import read_nirdata, write_nirdata
from snnc.cli import main
from snnc.differences import against, record
from snnc.differences.recorded import is_recording
from snnc.errors import DataError, LoadError, SnncError
from snnc.files.vectors import Vectors, read_vectors, write_vectors
from snnc.networks.network import Network
from tests.nets import sample, spiking


@pytest.fixture(scope="module")
def net():
    graph, shape = spiking("residual")
    return Network(graph, {"input_shape": list(shape)}, chunk=8)  # two samples at a time


@pytest.fixture(scope="module")
def vectors(net):
    return record(net, sample(tuple(net.info["input_shape"]), 5))


def changed(vectors, name, train):
    return replace(vectors, spikes={**vectors.spikes, name: train})


def test_a_network_agrees_with_its_own_vectors(net, vectors):
    found = against(net, vectors)
    assert (found.samples, found.spikes, found.same, sum(found.outputs)) == (5, 0, True, 0)
    assert found.places == sum(train.size for train in vectors.spikes.values())
    assert sum(one.spikes for one in found.layers) == sum(int(train.sum()) for train in vectors.spikes.values()) > 0


def test_what_differs_is_counted_by_layer_and_step(net, vectors):
    name = list(vectors.spikes)[1]
    train = vectors.spikes[name].copy()
    train[2, 3] = ~train[2, 3]
    found = against(net, changed(vectors, name, train))
    assert found.spikes == train[0, 0].size
    assert found.first == (name, 3)
    assert [one.name for one in found.layers if one.differ] == [name]
    assert found.touched == 1
    assert not found.same


def test_neurons_may_stand_in_one_row(net, vectors):
    rows = {name: train.reshape(*train.shape[:2], -1) for name, train in vectors.spikes.items()}
    assert against(net, Vectors(vectors.input, rows)).same


def test_without_an_output_spikes_alone_are_compared(net, vectors):
    found = against(net, replace(vectors, output=None))
    assert found.same
    assert found.outputs == []
    assert found.predictions is None
    assert "no output" in found.notes[0]


def test_what_does_not_fit_is_refused_by_name(net, vectors):
    name = next(iter(vectors.spikes))
    without = {key: train for key, train in vectors.spikes.items() if key != name}
    with pytest.raises(DataError, match=f"lacks '{name}'"):
        against(net, replace(vectors, spikes=without))
    with pytest.raises(DataError, match="has 'other', which the network has not"):
        against(net, changed(vectors, "other", vectors.spikes[name]))
    with pytest.raises(DataError, match=f"'{name}' have shape"):
        against(net, changed(vectors, name, vectors.spikes[name][:3]))
    with pytest.raises(DataError, match="'output' has shape"):
        against(net, replace(vectors, output=vectors.output[:2]))
    with pytest.raises(SnncError, match="shape"):
        against(net, replace(vectors, input=vectors.input[:, :1]))


def test_files_hold_what_was_written(vectors, tmp_path):
    back = read_vectors(write_vectors(tmp_path / "v.npz", vectors))
    assert back.made_by == "snnc"
    assert np.array_equal(back.input, vectors.input)
    assert np.array_equal(back.output, vectors.output)
    assert all(np.array_equal(back.spikes[name], train) for name, train in vectors.spikes.items())
    rows = read_nirdata(write_nirdata(tmp_path / "v.h5", vectors))
    assert set(rows.spikes) == set(vectors.spikes)
    assert all(np.array_equal(rows.spikes[n], t.reshape(*t.shape[:2], -1)) for n, t in vectors.spikes.items())


def test_frames_go_out_and_come_back(tmp_path):
    torch.manual_seed(0)
    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), torch.randn(6, 4, 2, 3)
    net = snnc.compile(ann, 4, "opi", x, frames="mean")
    found = record(net, x)
    assert found.input.shape == (6, 4, 2, 3)
    assert against(net, read_vectors(write_vectors(tmp_path / "v.npz", found))).same
    assert against(net, read_nirdata(write_nirdata(tmp_path / "v.h5", found, framed=True))).same
    read = snnc.load(snnc.save(net, tmp_path / "net.nir"))
    assert read.frames == "mean"
    assert snnc.verify(net, read, x).spikes == 0


def test_nirdata_may_come_as_events(net, vectors, tmp_path):
    write_nirdata(tmp_path / "v.h5", vectors)
    data = nir.read_data(str(tmp_path / "v.h5"))
    for name in vectors.spikes:
        grid = data.nodes[name].observables["spikes"]
        data.nodes[name] = nir.NIRNodeData({"spikes": grid.to_event(grid.n_time_steps * grid.n_neurons)})
    nir.write_data(str(tmp_path / "events.h5"), data)
    assert against(net, read_nirdata(tmp_path / "events.h5")).same
    events = data.nodes[name].observables["spikes"]
    events.idx[0, 1], events.time[0, 1] = events.idx[0, 0], events.time[0, 0]  # twice in one step
    nir.write_data(str(tmp_path / "twice.h5"), data)
    with pytest.raises(DataError, match="other numbers than 0 and 1"):
        read_nirdata(tmp_path / "twice.h5")


def test_nirdata_that_says_something_else_is_refused(net, vectors, tmp_path):
    """Several spikes in one step, and input that changes where the network takes the same at every step."""
    first = next(iter(vectors.spikes))

    def written(node, change):
        write_nirdata(tmp_path / "v.h5", vectors)
        data = nir.read_data(str(tmp_path / "v.h5"))
        for grid in data.nodes[node].observables.values():
            grid.data = change(grid.data.astype("float32"))
        nir.write_data(str(tmp_path / "changed.h5"), data)
        return read_nirdata(tmp_path / "changed.h5")

    assert against(net, written(first, lambda grid: grid)).same
    with pytest.raises(DataError, match="other numbers than 0 and 1"):
        written(first, lambda grid: 2 * grid)
    with pytest.raises(DataError, match="changes from step to step"):
        against(net, written("input", lambda grid: grid * np.arange(grid.shape[1])[:, None]))


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": np.zeros(3)}, "holds no vectors: it holds x"),
        ({"input": np.zeros((2, 3))}, "no vectors"),
        ({"input": np.zeros((2, 3)), "spikes/a": np.zeros((4, 3, 5))}, r"'spikes/a' .* there are 2 samples"),
        ({"input": np.zeros((2, 3)), "spikes/a": np.full((4, 2, 5), 2)}, "other numbers than 0 and 1"),
        ({"input": np.zeros((0, 3)), "spikes/a": np.zeros((4, 0, 5))}, "'input' .* or an empty one"),
        ({"input": np.array(["a", "b"]), "spikes/a": np.zeros((4, 2, 5))}, "'input' .* no array of numbers"),
        ({"input": np.zeros(()), "spikes/a": np.zeros((4, 2, 5))}, "there are 0 samples"),
    ],
)
def test_files_that_hold_none_are_refused(arrays, why, tmp_path):
    np.savez(tmp_path / "v.npz", **arrays)
    assert is_recording(tmp_path / "v.npz")  # else the command would look for a network
    with pytest.raises(SnncError, match=why):
        read_vectors(tmp_path / "v.npz")


def test_files_of_another_kind_are_refused(tmp_path):
    for name, read in (("v.npz", read_vectors), ("v.h5", read_nirdata)):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(LoadError, match=r"v\.(npz|h5)"):
            read(tmp_path / name)


def test_the_command_counts_and_fails_where_it_must(net, vectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snnc.save(net, "net.snn")
    name = next(iter(vectors.spikes))
    write_vectors("good.npz", vectors)
    write_vectors("bad.npz", changed(vectors, name, ~vectors.spikes[name]))

    def ran(*words):
        return CliRunner().invoke(main, list(words))

    assert "The same" in ran("verify", "net.snn", "good.npz").stdout
    found = json.loads(ran("verify", "net.snn", "bad.npz", "--json").stdout)
    assert found["spikes"] == vectors.spikes[name].size
    assert ran("verify", "net.snn", "bad.npz", "--strict").exit_code == 1
    assert "holds its own input" in ran("verify", "net.snn", "good.npz", "--stream").stderr
    assert "Missing option '--data'" in ran("verify", "net.snn", "net.snn").stderr
