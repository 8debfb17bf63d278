"""Networks with several inputs and outputs, as authors write them, with dyadic weights; and a batch for each.

`NETWORKS[name]()` gives a module in eval mode. `INPUTS[name](n)` gives n samples of its inputs by name, dyadic too.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import dyadic


class TwoHeads(nn.Module):
    """A classifier with a second head, as a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.kind, self.age = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.body(x))
        return self.kind(h), self.age(h)


class Named(TwoHeads):
    """The same in a dictionary, with a value that is no tensor, and the features themselves."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = torch.relu(self.body(x))
        return OrderedDict(logits=self.kind(h), features=h, loss=None)


class TwoInputs(nn.Module):
    """An image and a vector beside it, which is passed by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen, self.beside = nn.Conv2d(1, 3, 3), nn.Linear(24, 6), nn.Linear(5, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, image: Tensor, *, meta: Tensor) -> Tensor:
        seen = self.seen(torch.relu(self.conv(image)).flatten(1))
        return self.head(torch.relu(seen + torch.relu(self.beside(meta))))


class Siamese(nn.Module):
    """One encoder for both inputs, and what it makes of each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        a, b = self.encoder(left), self.encoder(right)
        return {"same": self.head(a - b), "left": a, "right": b}


class Pyramid(nn.Module):
    """Maps of two scales, as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.lateral, self.up = nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2)
        self.top = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = torch.relu(self.fine(x))
        top = self.top(torch.relu(self.coarse(fine)))
        return [self.lateral(fine) + self.up(top), top]


class Detector(nn.Module):
    """Boxes and scores for each place of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.box, self.score = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.relu(self.body(x))
        boxes = self.box(h).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)
        scores = self.score(h).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3)
        return {"boxes": boxes, "scores": scores}


class Text(nn.Module):
    """Words by their numbers, with places, in a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, 6, padding_idx=0), nn.Embedding(4, 6)
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.words(ids) + self.places(torch.arange(4))
        return self.head(torch.relu(self.hidden(h)).sum(1))


class Nested(nn.Module):
    """Three inputs, one of them whole numbers, and tuples in lists in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(8, 5), nn.Linear(6, 5), nn.Linear(3, 5)
        self.one, self.two = nn.Linear(5, 2), nn.Linear(5, 4)

    def forward(self, x: Tensor, y: Tensor, place: Tensor) -> dict[str, Any]:
        h = torch.relu(self.a(x) + self.b(y) + self.table(place))
        g = torch.relu(self.one(h))
        return {"deep": [(self.two(h), g), {"same": g}], "more": (h,)}


CLASSES = (TwoHeads, Named, TwoInputs, Siamese, Pyramid, Detector, Text, Nested)
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "TwoHeads": {"x": (6,)},
    "Named": {"x": (6,)},
    "TwoInputs": {"image": (1, 4, 6), "meta": (5,)},
    "Siamese": {"left": (6,), "right": (6,)},
    "Pyramid": {"x": (1, 4, 4)},
    "Detector": {"x": (1, 4, 4)},
    "Text": {"ids": (4,)},
    "Nested": {"x": (6,), "y": (3,), "place": ()},
}
ROWS = {"ids": 10, "place": 8}  # of the tables that whole numbers look up


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    """A network with dyadic weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return dyadic(kind(), 3).eval().requires_grad_(False)


def inputs(name: str, samples: int, seed: int = 0) -> dict[str, Tensor]:
    """Samples by the names of the inputs: multiples of 1/4, or places in a table."""
    chance = torch.Generator().manual_seed(seed)
    found = {}
    for key, size in SIZES[name].items():
        high = ROWS.get(key)
        whole = torch.randint(0 if high else -8, high or 9, (samples, *size), generator=chance)
        found[key] = whole if high else whole / 4
    return found


NETWORKS = {kind.__name__: lambda kind=kind: made(kind) for kind in CLASSES}
