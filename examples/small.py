"""Trains a small network on scikit-learn's digits and writes it here, with its data: what the tutorials start from.

Writes model.pt, train.npz and test.npz into the current folder, in a few seconds.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

TRAINING = 1000  # of 1797 images; the rest is the test set


def network() -> nn.Sequential:
    """Three convolutions: 1x8x8 to 10 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 4 * 4, 10),
    )  # fmt: skip


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, 1, 8, 8]` from 0 to 1, and classes, in an order that never changes."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype("float32").reshape(-1, 1, 8, 8), y[order]


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int = 8, rate: float = 0.01) -> None:
    """Trains in place; leaves the network in eval mode."""
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
        schedule.step()
    model.eval()


def main(epochs: int = 8) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # images of 8x8 are too small to share out
    x, y = data()
    np.savez("train.npz", x=x[:TRAINING], y=y[:TRAINING])
    np.savez("test.npz", x=x[TRAINING:], y=y[TRAINING:])
    images, labels = torch.tensor(x), torch.tensor(y)
    model = network()
    train(model, images[:TRAINING], labels[:TRAINING], epochs)
    torch.save(model, "model.pt")
    with torch.no_grad():
        right = (model(images[TRAINING:]).argmax(1) == labels[TRAINING:]).float().mean()
    print(f"model.pt: {100 * right:.2f} % of the {len(x) - TRAINING} images in test.npz")


if __name__ == "__main__":
    main()
