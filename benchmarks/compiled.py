"""Whether an exported program should carry its compiled form: AOTInductor beside snnc's runtimes.

    python benchmarks/compiled.py --batch 1,32

ResNet-20 of `speed_nets.py`, T = 8, in float32, one thread. Rows are CPU seconds, medians of rounds in which every row
has its turn. A compiled form is one for each batch size here, and for this machine; it needs a C++ compiler to make.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from speed_nets import build, images

import snnc
from snnc.recipes import recipe

warnings.simplefilter("ignore")  # torch's own, of the modules that it imports


@torch.no_grad()
def main() -> None:
    """Compiles and prints seconds, sizes and differences for each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    fast = snnc.compile(build("resnet20"), T=8, recipe=recipe("opi"), calibration=images("resnet20", 32))
    reference = copy.deepcopy(fast)
    fast.runtime, reference.runtime = "fast", "reference"
    with tempfile.TemporaryDirectory() as folder:
        plain, compiled = Path(folder) / "net.pt2", Path(folder) / "compiled.pt2"
        snnc.save(fast, plain)
        program = torch.export.load(plain).module()
        for batch in map(int, args.batch.split(",")):
            x = images("resnet20", batch).contiguous(memory_format=torch.channels_last)
            began = time.process_time(), time.time()
            torch._inductor.aoti_compile_and_package(torch.export.export(program, (x,)), package_path=str(compiled))
            took = time.process_time() - began[0], time.time() - began[1]
            native = torch._inductor.aoti_load_package(str(compiled))
            rows = {
                "fast": fast,
                "reference": reference,
                "pt2": lambda x: program(x)[0],
                "pt2, compiled": lambda x, run=native: run(x)[0],
            }
            want, seconds = reference(x), {name: [] for name in rows}
            differs = {name: float((run(x) - want).abs().max()) for name, run in rows.items()}
            for _ in range(args.rounds):
                for name, run in rows.items():
                    start = time.process_time()
                    run(x)
                    seconds[name].append(time.process_time() - start)
            print(f"batch {batch}: compiled in {took[0]:.0f} s of this process, {took[1]:.0f} s of a clock")
            print(f"  {plain.stat().st_size / 1e6:.1f} MB, compiled {compiled.stat().st_size / 1e6:.1f} MB")
            for name in rows:
                print(f"  {name}: {statistics.median(seconds[name]) * 1e3:.1f} ms, differs by {differs[name]:.1e}")


if __name__ == "__main__":
    main()
