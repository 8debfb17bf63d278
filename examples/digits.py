"""Trains a small network on scikit-learn's digits, compiles it with every recipe that applies, and measures it.

Run it with `make demo`. Every figure is measured here and now; nothing is stored.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import snnc
from snnc import recipes

SEED = 0
TRAINING = 1000  # of 1797 images; the rest is the test set
STEPS = (1, 2, 4, 8)  # T
LEVELS = 4  # L of the clip-quantised network
FOLDER = Path("build/demo")  # where the demo leaves its files
KEPT = "best"  # the recipe of the network that is saved
ABOUT = 8  # the T whose latency the table shows, and that the saved network has


class QCFS(nn.Module):
    """The clip-quantised activation of Bu et al., ICLR 2022, in the form that its authors published."""

    def __init__(self, levels: int = LEVELS) -> None:
        super().__init__()
        self.levels = levels
        self.lam = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        level = torch.clamp(x / self.lam, 0, 1) * self.levels + 0.5
        # The gradient goes straight through the rounding.
        level = level + (torch.floor(level) - level).detach()
        return level / self.levels * self.lam


class Residual(nn.Module):
    """`activation(x + two convolutions of x)`."""

    def __init__(self, channels: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolution(channels, channels), activation(), *convolution(channels, channels))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.body(x))


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)


def network(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Six activations, two residual blocks, two max pools: 1x8x8 to 10 classes."""
    return nn.Sequential(
        *convolution(1, 16), activation(), Residual(16, activation), nn.MaxPool2d(2),
        *convolution(16, 32), activation(), Residual(32, activation), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 2 * 2, 10),
    )  # fmt: skip


def data() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, always the same, normalised by the training images."""
    x, y = load_digits(return_X_y=True)
    images, labels = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    images, labels = images[order], labels[order]
    images = (images - images[:TRAINING].mean()) / images[:TRAINING].std()
    return TensorDataset(images[:TRAINING], labels[:TRAINING]), TensorDataset(images[TRAINING:], labels[TRAINING:])


def train(model: nn.Module, images: TensorDataset, epochs: int, rate: float, progress: Progress, what: str) -> None:
    """Trains in place; leaves the network in eval mode."""
    loader = DataLoader(images, 50, shuffle=True, generator=torch.Generator().manual_seed(SEED))
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * len(loader))
    model.train()
    for _ in progress.track(range(epochs), description=what):
        for x, y in loader:
            optimiser.zero_grad()
            functional.cross_entropy(model(shifted(x)), y).backward()
            optimiser.step()
            schedule.step()
    model.eval()


def shifted(x: Tensor) -> Tensor:
    """The batch, moved by up to one pixel: digits are few."""
    down, right = (int(v) for v in torch.randint(0, 3, (2,)))
    return functional.pad(x, (1, 1, 1, 1), value=float(x.min()))[..., down : down + 8, right : right + 8]


@torch.no_grad()
def accuracy(model: nn.Module, images: TensorDataset) -> float:
    x, y = images.tensors
    return 100 * float((model(x).argmax(1) == y).float().mean())


def compiled(
    models: dict[str, nn.Module], images: TensorDataset, progress: Progress
) -> Iterator[tuple[str, int, snnc.Network]]:
    """Every recipe at every T. Thresholds and calibration may depend on T, so each T is a network of its own."""
    jobs = [(recipe, T) for recipe in models for T in STEPS]
    for recipe, T in progress.track(jobs, description="compiling and testing"):
        needs_data = recipes.recipe(recipe).needs_data
        yield (
            recipe,
            T,
            snnc.compile(
                models[recipe],
                T=T,
                recipe=recipe,
                calibration=images.tensors[0] if needs_data else None,  # training images, no labels
                input_shape=(1, 8, 8),
                seed=SEED,
                quick=True,  # the options of the recipes as they stand: choosing some takes several times as long
            ),
        )


def show(
    console: Console,
    anns: dict[str, float],
    found: dict[tuple[str, int], float],
    latency: dict[str, snnc.networks.base.Latency],
) -> None:
    """The table, and what its rows and columns mean."""
    table = Table(
        title="Accuracy in % on the test images", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("recipe")
    table.add_column("ANN", justify="right")
    for T in STEPS:
        table.add_column(f"T={T}", justify="right")
    table.add_column("steps", justify="right")
    for recipe, ann in anns.items():
        row = [f"{found[recipe, T]:.1f}" for T in STEPS]
        table.add_row(recipe, f"{ann:.1f}", *row, str(latency[recipe].steps))
    console.print(table)
    for name in anns:
        console.print(f"[bold]{name}[/bold]: {recipes.recipe(name).summary}", highlight=False)
    console.print(f"\n'steps': from the first input to the readout, at T={ABOUT}:", highlight=False)
    for name, cost in latency.items():
        console.print(f"  {name}: {cost}", highlight=False)


def file_round_trip(console: Console, net: snnc.Network, x: Tensor) -> bool:
    """Writes a network, reads it back, compares; gives whether both say the same."""
    path = snnc.save(net, FOLDER / "digits.snn")
    same = torch.equal(net(x), snnc.load(path)(x))
    console.print(
        f"\nSaved the network of recipe {net.info['recipe']} at T={net.T} as {path} "
        f"({path.stat().st_size / 1024:.0f} KiB) and loaded it again: "
        f"the outputs for {len(x)} images {'are equal, bit for bit' if same else 'DIFFER'}.",
        highlight=False,
    )
    return same


def what_next(console: Console, ann: nn.Module, images: TensorDataset) -> None:
    """Leaves what the commands need beside the network, and shows them."""
    x, y = images.tensors
    batch = torch.export.Dim("batch", min=1)
    torch.export.save(torch.export.export(ann, (x[:2],), dynamic_shapes=({0: batch},)), FOLDER / "digits.pt2")
    np.savez(FOLDER / "test.npz", x=x.numpy(), y=y.numpy())
    console.print(f"\nWhat next? Go to the folder with 'cd {FOLDER}', then:", style="bold", highlight=False)
    data = "--ann digits.pt2 --data test.npz"
    for line in (
        f"snnc eval digits.snn {data}",
        f"snnc report digits.snn {data}",
        "snnc export digits.snn -o digits.onnx",
    ):
        console.print(f"  {line}", highlight=False)


def main() -> None:
    start = time.perf_counter()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # images of 8x8 are too small to share out: threads would only wait for each other
    console = Console()
    training, test = data()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        relu = network(nn.ReLU)
        train(relu, training, 30, 0.1, progress, "training the network")
        # The recipe qcfs is for networks that were trained with its activation: the same network, fine-tuned.
        clipped = network(QCFS)
        clipped.load_state_dict(relu.state_dict(), strict=False)
        train(clipped, training, 20, 0.05, progress, f"fine-tuning it with QCFS, L={LEVELS}")

        # An input that is coded in spikes lies in [0, 1], and these images are normalised.
        apart = {"encode-input", "encode-values"}  # for networks and data of other kinds
        plain = [n for n in recipes.names() if not apart & {p.name for p in recipes.recipe(n).pipeline}]
        models = {name: clipped if name == "qcfs" else relu for name in plain}
        anns = {name: accuracy(model, test) for name, model in models.items()}
        found: dict[tuple[str, int], float] = {}
        latency: dict[str, snnc.networks.base.Latency] = {}
        kept: snnc.Network | None = None
        for recipe, T, net in compiled(models, training, progress):
            found[recipe, T] = accuracy(net, test)
            if T == ABOUT:
                latency[recipe] = net.latency
                kept = net if recipe == KEPT else kept
    show(console, anns, found, latency)
    if left := sorted(set(recipes.names()) - set(plain)):
        console.print(f"\nLeft out, being for other networks or data: {', '.join(left)}.", highlight=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    same = kept is not None and file_round_trip(console, kept, test.tensors[0])
    what_next(console, relu, test)
    console.print(f"Done in {time.perf_counter() - start:.0f} s, seed {SEED}.")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
