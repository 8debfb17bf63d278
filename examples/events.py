"""Makes events of scikit-learn's digits, trains a network on their frames, and reads the spiking one frame by frame.

    python examples/events.py

An event camera sees what changes, so a picture has to move: as in N-MNIST it makes three small saccades, along the
sides of a triangle. Where the logarithm of a pixel's brightness has changed by a threshold, an event leaves, ON or OFF.
The events go into one file, as a recording would, which `snnc.data.read` bins to frames. Every figure is measured here
and now.
"""

import itertools
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import snnc
from snnc.data import Binning, Dataset, read

SEED = 0
T = 8  # frames of a sample
TRAINING = 1297  # of 1797 digits; the rest is the test set
FOLDER = Path("build/events")
CORNERS = ((0.0, 0.0), (2.5, -4.0), (-2.5, -4.0), (0.0, 0.0))  # of the path, in pixels
MOVES = 12  # of a saccade
CHANGE = 0.25  # of the logarithm of brightness, that makes an event
TICK = 1000  # microseconds of a move


def path() -> list[tuple[float, float]]:
    """Where the picture is after each move."""
    return [
        tuple(a + (b - a) * k / MOVES for a, b in zip(start, end, strict=True))
        for start, end in itertools.pairwise(CORNERS)
        for k in range(1, MOVES + 1)
    ]


def moved(images: Tensor, to: tuple[float, float]) -> Tensor:
    """Pictures `[N, H, W]` shifted by some pixels, linear between them."""
    _, height, width = images.shape
    shift = torch.tensor([[1.0, 0.0, -2 * to[0] / width], [0.0, 1.0, -2 * to[1] / height]])
    grid = functional.affine_grid(shift.expand(len(images), 2, 3), (len(images), 1, height, width), align_corners=False)
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def recorded(images: Tensor) -> np.ndarray:
    """Events of pictures `[N, H, W]` from 0 to 1 that move: `[E, 5]` of picture, time, column, row and polarity."""
    told = torch.log(0.1 + images)  # what each pixel has last told
    parts = []
    for step, place in enumerate(path()):
        change = torch.log(0.1 + moved(images, place)) - told
        count = (change.abs() / CHANGE).floor()
        told = told + count * CHANGE * change.sign()
        sample, row, column = count.nonzero(as_tuple=True)
        on = (change[sample, row, column] > 0).long()
        rows = torch.stack([sample, torch.full_like(sample, step * TICK), column, row, on], 1).int()
        parts.append(rows.repeat_interleave(count[sample, row, column].long(), 0))
    events = torch.cat(parts)
    return events[events[:, 0].argsort(stable=True)].numpy()  # by picture, and of each by time


def record(images: Tensor, labels: np.ndarray, file: Path) -> Path:
    """The events of pictures, in a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    events, first = [], [0]
    for part in images.split(500):
        found = recorded(part)
        counts = np.bincount(found[:, 0], minlength=len(part))
        first.extend((first[-1] + counts.cumsum()).tolist())
        events.append(found[:, 1:])
    np.savez(file, events=np.concatenate(events), first=first[:-1], y=labels, size=np.array(images.shape[1:]))
    return file


def network(side: int) -> nn.Sequential:
    """Two convolutions and two pools: 2 x side x side to 10 classes."""
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 10),
    )  # fmt: skip


def summed(data: Dataset) -> tuple[Tensor, Tensor]:
    """The sum of each sample's frames, and the labels."""
    x, y = next(data.batches(len(data)))
    assert isinstance(x, Tensor)
    assert y is not None
    return x.sum(1), y


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, batch: int = 50) -> None:
    """Trains in place; leaves the network in eval mode."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    chance = torch.Generator().manual_seed(SEED)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, epochs * -(-len(x) // batch))
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=chance).split(batch):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[part]), y[part]).backward()
            optimiser.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def so_far(model: nn.Module, data: Dataset) -> list[float]:
    """Accuracy of the network on what the frames up to each step promise the sum to be, in %: T / t of their sum."""
    x, y = next(data.batches(len(data)))
    assert isinstance(x, Tensor)
    assert y is not None
    sums = x.cumsum(1)
    return [
        100 * float((model(sums[:, t] * x.shape[1] / (t + 1)).argmax(1) == y).double().mean())
        for t in range(x.shape[1])
    ]


def main() -> None:
    """Prints a table: accuracy after each frame."""
    start = time.perf_counter()
    torch.manual_seed(SEED)
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    images = functional.pad(functional.interpolate(images, scale_factor=2, mode="bilinear"), (4, 4, 4, 4))[:, 0]
    file = record(images, labels, FOLDER / "digits.npz")
    data = read(file, frames=True, bins=Binning(T))
    print(f"Data: {data.source}")
    order = np.random.default_rng(SEED).permutation(len(data))
    training, test = data.take(order[:TRAINING]), data.take(order[TRAINING:])
    model = network(images.shape[-1])
    train(model, *summed(training), epochs=20)
    net = snnc.compile(model, calibration=training, frames="sum")
    found = snnc.evaluate(net, test, model)
    print(f"ANN, on the sum of all {T} frames: {found.ann_accuracy:.1f} %; {len(test)} test samples")
    print("frame   spiking network   ANN on the frames so far")
    for t, (spiking, ann) in enumerate(zip(found.accuracy, so_far(model, test), strict=True), 1):
        print(f"{t:5}   {spiking:13.1f} %   {ann:22.1f} %")
    x, _ = next(test.batches(100))
    state, wanted = net.start(), net.readout(x)
    for t in range(T):
        output, state = net.step(x[:, t], state)
        assert torch.equal(output, wanted[t])
    print(f"Frame by frame net.step gives the bits of net.readout. Saved as {snnc.save(net, FOLDER / 'digits.snn')}")
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
