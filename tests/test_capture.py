"""Capture: every door gives the same graph, and every spelling its module; what cannot be converted is refused by name."""

import io
import pickle

import pytest
import torch
from torch import fx

from snnc import dialect
from snnc.capture import blockers, capture
from snnc.graph import Stage, calls, verify
from tests.zoo import ZOO, sample


def signature(graph: fx.GraphModule):
    """What two graphs of the same network share: names, classes, options and wiring."""
    rows, place = [], {}
    for number, node in enumerate(graph.graph.nodes):
        place[node] = number
        inputs = [place[n] for n in node.all_input_nodes]
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            config = dialect.pack(module)["config"]
            rows.append((node.name, type(module).__name__, {k: v for k, v in config.items() if not isinstance(v, torch.Tensor)}, inputs))
    return rows


def state(graph):
    return {k: v for k, v in graph.state_dict().items() if not k.endswith("num_batches_tracked")}


def archived(net, shape, batch=2):
    file = io.BytesIO()
    dynamic = ({0: torch.export.Dim.AUTO},) if batch > 1 else None
    torch.export.save(torch.export.export(net, (torch.randn(batch, *shape),), dynamic_shapes=dynamic), file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize("name", ZOO)
def test_every_door_gives_the_same_graph(name):
    net, shape = ZOO[name]()
    graphs = [
        capture(net, shape),
        capture(pickle.loads(pickle.dumps(net)), shape),
        capture(archived(net, shape)),
        capture(archived(net, shape, 1)),
    ]
    x = sample(shape)
    with torch.no_grad():
        want = net(x)
        for graph in graphs:
            verify(graph, Stage.ANN)
            torch.testing.assert_close(graph(x), want, rtol=1e-6, atol=1e-6)
            assert signature(graph) == signature(graphs[0])
            torch.testing.assert_close(state(graph), state(graphs[0]))
