"""The loops for NVIDIA's GPUs, as Triton compiles them.

Triton comes with torch's builds for CUDA. Without it nothing may import this module: see `snnc.runtime.gpu.scan`. The
arithmetic of neurons is that of `IF.step`, operation by operation. That of `scan` holds no product but where all
numbers are integers, so that a compiler finds none to contract with a sum, and the roundings are those of torch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scan(  # type: ignore[no-untyped-def]
    x,  # Triton reads annotations as code
    y,
    factor,
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
    scaled: tl.constexpr,
    shifted: tl.constexpr,
    block: tl.constexpr,
):
    """Writes `spikes` [steps, n] and `state` [n] for one block of neurons, which keep their potentials in registers.

    x, y: currents [steps, n]; y is read where `joined`, and where `scaled` it is bytes, times factor [period]. shift
    [steps, period], theta, height, v0 [period]: patterns that repeat along n. dx, dc: from one step of x and of shift
    to the next, 0 where one stands for all. first: state is unset.
    """
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    k = i % period
    h = tl.load(theta + k, mask=inside, other=1.0)
    high = tl.load(height + k, mask=inside, other=0.0)
    u = tl.load(v0 + k, mask=inside, other=0.0) if first else tl.load(state + i, mask=inside, other=0.0)
    f = tl.load(factor + k, mask=inside, other=0.0)
    for _ in range(steps):
        z = tl.load(x + i, mask=inside, other=0.0)
        if joined:
            if scaled:
                z += tl.load(y + i, mask=inside, other=0).to(tl.float32) * f
            else:
                z += tl.load(y + i, mask=inside, other=0.0)
            y += n
        if shifted:
            z += tl.load(shift + k, mask=inside, other=0.0)
            shift += dc
        u += z
        fired = u - h >= 0.0
        u -= tl.where(fired, h, 0.0)
        tl.store(spikes + i, tl.where(fired, high, 0.0).to(spikes.dtype.element_ty), mask=inside)
        x += dx
        spikes += n
    tl.store(state + i, u, mask=inside)


@triton.jit
def layer(  # type: ignore[no-untyped-def]
    x,
    weight,
    unit,
    bias,
    y,
    factor,
    shift,
    theta,
    height,
    v0,
    state,
    out,
    places,
    steps,
    dx,
    dy,
    dc,
    rows,
    columns,
    out_rows,
    out_columns,
    channels: tl.constexpr,
    outputs: tl.constexpr,
    room: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
    down: tl.constexpr,
    along: tl.constexpr,
    above: tl.constexpr,
    before: tl.constexpr,
    apart_down: tl.constexpr,
    apart_along: tl.constexpr,
    each: tl.constexpr,
    fires: tl.constexpr,
    first: tl.constexpr,
    joined: tl.constexpr,
    scaled: tl.constexpr,
    shifted: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    """A convolution of bytes with 8-bit weights, and where it `fires` the neurons behind it: no current is stored.

    Writes out [steps, places, outputs], places being samples x out_rows x out_columns, and state [places, outputs], for
    `block_m` places and `block_n` outputs. One sum is a 32-bit integer; what follows is exact in float32, as all its
    numbers are integers below 2^24.

    x: [steps, samples, rows, columns, channels]. dx, dy: from one step of x, and of out, to the next. weight:
    [outputs, tall, room], a line of the kernel being [wide, channels] padded with 0 to room; [tall, wide, outputs]
    where `each` channel has an output of its own. unit, bias: [outputs]; the current is sum * unit + bias, and where
    `joined` a value y like out, bytes times factor [outputs] where `scaled`. shift, dc, theta, height, v0, first: as in
    `scan`. down, along: strides. above, before: padding. apart_down, apart_along: dilation.
    """
    m = tl.program_id(0).to(tl.int64) * block_m + tl.arange(0, block_m)
    n = tl.program_id(1) * block_n + tl.arange(0, block_n)
    inside_n = n < outputs
    inside = (m < places)[:, None] & inside_n[None, :]
    at = m[:, None] * outputs + n[None, :]
    top = (m // out_columns % out_rows) * down - above
    left = (m % out_columns) * along - before
    corner = ((m // out_columns // out_rows * rows + top) * columns + left) * channels
    scale = tl.load(unit + n, mask=inside_n, other=0.0)[None, :]
    rest = tl.load(bias + n, mask=inside_n, other=0.0)[None, :]
    f = tl.load(factor + n, mask=inside_n, other=0.0)[None, :]
    h = tl.load(theta + n, mask=inside_n, other=1.0)[None, :]
    high = tl.load(height + n, mask=inside_n, other=0.0)[None, :]
    if first:
        u = tl.load(v0 + n, mask=inside_n, other=0.0)[None, :] + tl.full((block_m, block_n), 0.0, tl.float32)
    else:
        u = tl.load(state + at, mask=inside, other=0.0)
    for _ in range(steps):
        total = tl.full((block_m, block_n), 0, tl.int32)
        if each:
            for tap in range(tall * wide):
                i, j = tap // wide * apart_down, tap % wide * apart_along
                seen = (m < places) & (top + i >= 0) & (top + i < rows) & (left + j >= 0) & (left + j < columns)
                place = corner + (i * columns + j) * channels
                a = tl.load(x + place[:, None] + n[None, :], mask=seen[:, None] & inside_n[None, :], other=0)
                b = tl.load(weight + tap * outputs + n, mask=inside_n, other=0)
                total += a.to(tl.int32) * b.to(tl.int32)[None, :]
        else:
            for part in range(tall * (room // block_k)):
                line = part // (room // block_k)
                k = part % (room // block_k) * block_k + tl.arange(0, block_k)
                i, j = line * apart_down, k // channels * apart_along
                seen = ((m < places) & (top + i >= 0) & (top + i < rows))[:, None] & (k < wide * channels)[None, :]
                seen &= (left[:, None] + j[None, :] >= 0) & (left[:, None] + j[None, :] < columns)
                place = (corner + i * columns * channels)[:, None] + (j * channels + k % channels)[None, :]
                a = tl.load(x + place, mask=seen, other=0)
                b = tl.load(weight + (n * tall + line)[None, :] * room + k[:, None], mask=inside_n[None, :], other=0)
                total = tl.dot(a, b, total, out_dtype=tl.int32)
        z = total.to(tl.float32) * scale + rest
        if joined:
            if scaled:
                z += tl.load(y + at, mask=inside, other=0).to(tl.float32) * f
            else:
                z += tl.load(y + at, mask=inside, other=0.0)
            y += dy
        if shifted:
            z += tl.load(shift + n, mask=inside_n, other=0.0)[None, :]
            shift += dc
        if fires:
            u += z
            fired = u - h >= 0.0
            u -= tl.where(fired, h, 0.0)
            z = tl.where(fired, high, 0.0)
        tl.store(out + at, z.to(out.dtype.element_ty), mask=inside)
        x += dx
        out += dy
    if fires:
        tl.store(state + at, u, mask=inside)
