"""The peers of `speed.py`: a process in the environment of `peers.txt`, which runs what it is told and gives the time.

One line of input, `peer net T batch`, one line of output: CPU seconds of one run, or `-` where the peer is not there.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")
warnings.simplefilter("ignore")
import torch  # noqa: E402  after the environment that it reads
from speed_nets import build, images  # noqa: E402
from torch import nn  # noqa: E402


def spikingjelly(net: str) -> Callable[[Any, int], None]:
    """SpikingJelly 2.0's conversion, one step at a time."""
    from spikingjelly.activation_based import ann2snn, functional

    snn = ann2snn.Converter(recipe=ann2snn.RateCodingRecipe((images(32),), mode="max")).convert(build(net)).eval()

    def run(x: Any, T: int) -> None:
        functional.reset_net(snn)
        total = 0
        for _ in range(T):
            total = total + snn(x)

    return run


def snntorch(net: str) -> Callable[[Any, int], None]:
    """snnTorch's neurons in the place of the ReLUs, one step at a time."""
    import snntorch as snn
    from snntorch import utils

    model = build(net)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, snn.Leaky(beta=1.0, init_hidden=True, reset_mechanism="subtract"))

    def run(x: Any, T: int) -> None:
        utils.reset(model)
        total = 0
        for _ in range(T):
            total = total + model(x)

    return run


@cache
def peer(which: str, net: str) -> Callable[[Any, int], None] | None:
    """A peer's network, or None where it is not installed."""
    try:
        return {"spikingjelly": spikingjelly, "snntorch": snntorch}[which](net)
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return None


@torch.no_grad()
def main() -> None:
    """Answers until the input ends."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # what peers print is no answer
    for line in sys.stdin:
        which, net, T, batch = line.split()
        run, seconds = peer(which, net), "-"
        if run:
            x = images(int(batch))
            start = time.process_time()
            run(x, int(T))
            seconds = str(time.process_time() - start)
        print(seconds, file=answers, flush=True)


if __name__ == "__main__":
    main()
