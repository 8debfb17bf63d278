"""Makes the pictures of the README, light and dark: `make pictures`.

A small network is trained, compiled and measured, so that every figure comes from a run. The curve is a chart of
the report; the page is photographed by chromium, and left as it is where there is none.
"""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

import snnc
from examples import small
from snnc.files import load_model
from snnc.report import figure
from snnc.report.page import drawn

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
SIZE = (1080, 640)  # pixels of the page's picture
DARK = {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        small.main(8)
        model = load_model("model.pt")
        with np.load("train.npz") as data:
            images = torch.from_numpy(data["x"])
        net = snnc.compile(model, T=8, calibration=images)
        found = snnc.report(net, "test.npz", model, "page.html", samples=797, title="model.snn")
        curve = drawn(found)["accuracy"]
        for look, flags in DARK.items():
            (FOLDER / f"accuracy-{look}.svg").write_text(figure.svg(curve, dark=look == "dark"), encoding="utf-8")
            if chromium:
                shot = f"--screenshot={FOLDER / f'report-{look}.png'}"
                window = f"--window-size={SIZE[0]},{SIZE[1]}"
                page = Path("page.html").resolve().as_uri()
                command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", window, shot]
                subprocess.run([*command, *flags, page], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
