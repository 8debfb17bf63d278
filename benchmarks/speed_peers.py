"""The peers of `speed.py`: a process in the environment of `peers.txt`, which runs what it is told and gives the time.

One line of input, `peer|net|T|batch`, one line of output, JSON: seconds of one run, or why there is none. With
arguments `THREADS peer net T batch` it gives the peak memory of one run instead.
"""

from __future__ import annotations

import json
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
from speed_nets import build, images, peak  # noqa: E402
from torch import nn  # noqa: E402

Run = Callable[[Any, int], Any]  # images and steps


def spikingjelly(net: str, mode: str, device: str = "cpu") -> Run:
    """SpikingJelly 2.0's conversion: one step at a time ("s"), or layer by layer over all steps ("m")."""
    from spikingjelly.activation_based import ann2snn, functional

    rate = ann2snn.RateCodingRecipe((images(net, 8),), mode="max")
    snn = ann2snn.Converter(recipe=rate).convert(build(net)).eval().to(device)
    functional.set_step_mode(snn, mode)

    def run(x: Any, T: int) -> Any:
        functional.reset_net(snn)
        if mode == "m":
            return snn(x.expand(T, *x.shape)).sum(0)
        total = 0
        for _ in range(T):
            total = total + snn(x)
        return total

    return run


def sinabs(net: str, device: str = "cpu") -> Run:
    """Sinabs' neurons in the place of the ReLUs, layer by layer over all steps, which is its only way."""
    from sinabs.activation import SingleSpike
    from sinabs.from_torch import from_model

    @cache
    def made(batch: int) -> nn.Module:
        return from_model(build(net), batch_size=batch, spike_fn=SingleSpike).spiking_model.eval().to(device)

    def run(x: Any, T: int) -> Any:
        snn = made(len(x))
        for module in snn.modules():
            if hasattr(module, "reset_states"):
                module.reset_states()
        return snn(x.repeat_interleave(T, 0)).unflatten(0, (len(x), T)).sum(1)

    return run


def snntorch(net: str, device: str = "cpu") -> Run:
    """snnTorch's neurons in the place of the ReLUs, one step at a time."""
    import snntorch as snn
    from snntorch import utils

    model = build(net).to(device)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, snn.Leaky(beta=1.0, init_hidden=True, reset_mechanism="subtract").to(device))

    def run(x: Any, T: int) -> Any:
        utils.reset(model)
        total = 0
        for _ in range(T):
            total = total + model(x)
        return total

    return run


PEERS: dict[str, Callable[..., Run]] = {
    "SpikingJelly, step": lambda net, *device: spikingjelly(net, "s", *device),
    "SpikingJelly, multi-step": lambda net, *device: spikingjelly(net, "m", *device),
    "Sinabs": sinabs,
    "snnTorch": snntorch,
}


@cache
def peer(which: str, net: str) -> Run:
    """A peer's network."""
    return PEERS[which](net)


@torch.no_grad()
def answer(which: str, net: str, T: int, batch: int) -> dict[str, Any]:
    """Seconds of one run, or why there is none: whatever a peer raises is its answer."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    try:
        run, x = peer(which, net), images(net, batch)
        start = clock()
        run(x, T)
        return {"seconds": clock() - start}
    except Exception as error:
        return {"why": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}


def main() -> None:
    """Answers until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what peers print is no answer
    torch.set_num_threads(int(sys.argv[1]))
    if len(sys.argv) > 2:
        which, net, T, batch = sys.argv[2:]
        peer(which, net)
        before = peak()
        answer(which, net, int(T), int(batch))
        print(json.dumps([before, peak()]), file=answers)
        return
    for line in sys.stdin:
        which, net, T, batch = line.strip().split("|")
        print(json.dumps(answer(which, net, int(T), int(batch))), file=answers, flush=True)


if __name__ == "__main__":
    main()
