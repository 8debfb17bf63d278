"""Constants that networks make on their way, and writing at constant places: the same function at every door."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snnc
from snnc.capture import blockers, capture
from snnc.structure import leaves
from tests.capture.test_curved import as_onnx

MAPS, TOKENS = (4, 6, 6), (5, 8)
DOORS = ("live", "pt2", "onnx")


class Maps(nn.Module):
    """A layer, what is tried, and another layer."""

    def __init__(self, body, width=4):
        super().__init__()
        self.body, self.front, self.back = body, nn.Conv2d(4, 4, 1), nn.Conv2d(width, 3, 1)
        self.register_buffer("places", torch.tensor([0, 2, 5]))
        self.register_buffer("two", torch.tensor([3, 1]))
        self.register_buffer("mask", torch.arange(36).reshape(6, 6) % 5 > 2)
        self.token = nn.Parameter(torch.randn(1, 2, 6, 6))
        self.weight = nn.Parameter(torch.randn(4, 6, 6))

    def forward(self, x):
        return self.back(self.body(self, self.front(x).relu()))


def through(model, door, x):
    """The model as a door takes it."""
    if door == "onnx":
        return as_onnx(model, x)
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)) if door == "pt2" else model


def same(model, shape, door):
    """The graph, once it has given what the network gives, for two sizes of the batch."""
    torch.manual_seed(1)
    for one in (3, 1):
        x = torch.randn(one, *shape)
        with torch.no_grad():
            wanted = leaves(model.eval()(x.clone()))
            graph = graph if one == 1 else capture(through(model, door, x), shape)  # noqa: F821
            for have, want in zip(leaves(graph(x)), wanted, strict=True):
                torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    return graph


def index_put(m, x):
    y = torch.zeros_like(x)
    y[:, :, m.places] = x[:, :, :3]
    y[:, 1] = 1.5
    z = x.clone()
    z[:, :, 1:3, ::2] = y[:, :, :2, :3]
    z[:, 0, 0, 0] = 0
    return y + 2 * z


def masked_put(m, x):
    y = x.clone()
    y[:, :, m.mask] = -1.0
    return y


def scatter(m, x):
    index = torch.arange(6).flip(0).view(1, 1, 1, 6).expand(x.size(0), 4, 6, 6)
    return x.scatter(3, index, x * 2) + x.scatter(3, index[..., :2], 0.5)


WRITTEN = {
    "index_put": (index_put, DOORS),
    "masked_put": (masked_put, DOORS[:2]),  # whose places the exporter gets wrong
    "scatter": (scatter, DOORS),
    "index_fill": (lambda m, x: x.index_fill(1, m.two, 0.5), DOORS),
    "index_copy": (lambda m, x: x.index_copy(2, m.two, x[:, :, :2]), DOORS),
    "between": (
        lambda m, x: torch.cat(
            [x[:, :2], m.token.expand(x.shape[0], -1, -1, -1), x[:, 2:], torch.ones_like(x[:, :1]), x[:, :2]], 1
        ),
        DOORS,
    ),
    "matrices": (lambda m, x: x @ m.weight + m.weight @ x + x @ m.weight[:1].transpose(1, 2), DOORS),
    "where": (lambda m, x: torch.where(x > 0.1, x, torch.zeros_like(x)) + torch.where(m.mask, x, 1 - x), DOORS),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_constant_places_and_parts(name):
    body, doors = WRITTEN[name]
    torch.manual_seed(0)
    model = Maps(body, 9 if name == "between" else 4)
    for door in doors:
        same(model, MAPS, door)


class Queries(nn.Module):
    """A decoder whose queries are learnt: they stand before the batch, or behind it."""

    def __init__(self, first):
        super().__init__()
        self.first, self.queries = first, nn.Embedding(3, 8)
        self.own, self.cross = (nn.MultiheadAttention(8, 2, batch_first=first) for _ in range(2))
        self.norm, self.classes, self.boxes = nn.LayerNorm(8), nn.Linear(8, 5), nn.Linear(8, 4)

    def forward(self, x):
        if self.first:
            query = self.queries.weight.unsqueeze(0).expand(x.shape[0], -1, -1)
        else:
            x, query = x.transpose(0, 1), self.queries.weight.unsqueeze(1).repeat(1, x.shape[0], 1)
        y = torch.zeros_like(query)
        y = self.norm(y + self.own(query, query, y)[0])
        y = self.norm(y + self.cross(y + query, x, x)[0])
        y = y if self.first else y.transpose(0, 1)
        return {"classes": self.classes(y), "boxes": self.boxes(y).sigmoid()}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("first", [True, False])
def test_learnt_queries(first, door):
    torch.manual_seed(0)
    same(Queries(first), TOKENS, door)


def test_a_decoder_of_torch_with_learnt_queries():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries, self.layer = nn.Parameter(torch.randn(3, 8)), nn.TransformerDecoderLayer(8, 2, 12)
            self.layer.self_attn.batch_first = self.layer.multihead_attn.batch_first = True
            self.last = nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.layer(self.queries.unsqueeze(0).expand(x.size(0), -1, -1), x))

    torch.manual_seed(0)
    same(Decoder(), TOKENS, "live")


class Detector(nn.Module):
    """Boxes, and the anchors that they belong to, once or for each sample."""

    def __init__(self, once=False):
        super().__init__()
        self.once, self.layer, self.boxes = once, nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 1)
        self.register_buffer("fixed", torch.rand(9, 2))

    def forward(self, x):
        y = self.layer(x).relu()
        rows, columns = torch.meshgrid(*(torch.arange(n, dtype=x.dtype) for n in y.shape[-2:]), indexing="ij")
        anchors = torch.stack([columns, rows], -1).reshape(1, -1, 2).expand(x.shape[0], -1, -1)
        return {"boxes": self.boxes(y).flatten(2).transpose(1, 2), "anchors": self.fixed if self.once else anchors}


@pytest.mark.parametrize("door", DOORS)
def test_anchors_of_every_sample_are_an_output(door):
    torch.manual_seed(0)
    same(Detector(), MAPS, door)


def test_a_constant_output_spikes_along():
    """Read out after every step, and from every file."""
    torch.manual_seed(0)
    net, x = Detector().eval(), torch.randn(4, *MAPS)
    snn = snnc.compile(net, 4, "opi", x, input_shape=MAPS)
    anchors = net(x)["anchors"]
    assert torch.equal(snn(x)["anchors"], anchors)
    assert torch.equal(snn.readout(x)["anchors"], anchors.expand(4, *anchors.shape))


@pytest.mark.parametrize("door", DOORS)
def test_a_constant_without_a_batch_is_refused_and_its_hint_works(door, tmp_path):
    torch.manual_seed(0)
    net, x = Detector(once=True).eval(), torch.randn(3, *MAPS)
    model = through(net, door, x)
    (found,) = blockers(model, MAPS)
    assert found.op == "output"
    assert "once for the whole batch" in found.why
    assert "y.expand(x.shape[0], *y.shape)" in found.hint
    if door == "onnx":
        assert "extract_model" in found.hint
        given, new = (str(tmp_path / name) for name in ("old.onnx", "new.onnx"))
        onnx.save(model, given)
        onnx.utils.extract_model(given, new, ["x"], [model.graph.output[0].name])
        torch.testing.assert_close(capture(onnx.load(new), MAPS)(x), net(x)["boxes"])
        return

    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            out = self.net(x)
            y = out["anchors"]
            return {**out, "anchors": y.expand(x.shape[0], *y.shape)}

    same(Expanded(), MAPS, door)


def test_distances():
    """To learnt codes, and between the rows of two values."""

    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last, self.codes = nn.Linear(8, 8), nn.Linear(4, 2), nn.Parameter(torch.randn(4, 8))

        def forward(self, x):
            y = F.gelu(self.layer(x))
            near = (
                torch.cdist(y, self.codes)
                + torch.cdist(self.codes[None], y, 1.0).transpose(1, 2)
                + torch.cdist(y, y[:, :4], 3.0)
            )
            return self.last(near)

    torch.manual_seed(0)
    for door in DOORS[:2]:
        same(Codes(), TOKENS, door)
