"""The loop over neurons and steps for NVIDIA's GPUs, as Triton compiles it.

Triton comes with torch's builds for CUDA. Without it nothing may import this module: see `snnc.runtime.gpu`. The
arithmetic is that of `IF.step`, operation by operation. It holds no product, so that a compiler finds none to contract
with a sum, and the roundings are those of torch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scan(  # type: ignore[no-untyped-def]
    x,  # Triton reads annotations as code
    y,
    shift,
    theta,
    height,
    v0,
    state,
    spikes,
    n,
    period,
    steps,
    dx,
    dc,
    first: tl.constexpr,
    joined: tl.constexpr,
    shifted: tl.constexpr,
    block: tl.constexpr,
):
    """Writes `spikes` [steps, n] and `state` [n] for one block of neurons, which keep their potentials in registers.

    x, y: currents [steps, n]; y is read where `joined`. shift [steps, period], theta, height, v0 [period]: patterns
    that repeat along n. dx, dc: from one step of x and of shift to the next, 0 where one stands for all. first: state
    is unset.
    """
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    k = i % period
    h = tl.load(theta + k, mask=inside, other=1.0)
    high = tl.load(height + k, mask=inside, other=0.0)
    u = tl.load(v0 + k, mask=inside, other=0.0) if first else tl.load(state + i, mask=inside, other=0.0)
    for _ in range(steps):
        z = tl.load(x + i, mask=inside, other=0.0)
        if joined:
            z += tl.load(y + i, mask=inside, other=0.0)
            y += n
        if shifted:
            z += tl.load(shift + k, mask=inside, other=0.0)
            shift += dc
        u += z
        fired = u - h >= 0.0
        u -= tl.where(fired, h, 0.0)
        tl.store(spikes + i, tl.where(fired, high, 0.0), mask=inside)
        x += dx
        spikes += n
    tl.store(state + i, u, mask=inside)
