"""Loops over neurons and steps, as numba compiles them.

Plain Python that numba (an optional dependency) makes into machine code; without it nothing here is called. No loop
reorders, fuses or contracts arithmetic: every operation rounds as the same one of torch does.

Arrays are flat views of tensors `[steps, n]` in memory order, n neurons of all samples. Parameters are patterns that
repeat along n with a period of their own length: see `snnc.runtime.cpu.scan`.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 2048  # neurons at a time: their potentials stay in the first-level cache over all steps
ALONE, SUM, SCALED = 0, 1, 2  # what is added to the current: nothing, another one, bytes times a factor


@functools.cache
def jit() -> Callable[..., Any] | None:
    """Numba's compiler, or None where there is no numba."""
    try:
        numba: Any = importlib.import_module("numba")  # here: half a second, and not everywhere
    except ImportError:
        return None
    logging.getLogger("numba").setLevel(logging.WARNING)

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options = {"nogil": True, "error_model": "numpy", "fastmath": False}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # there is nowhere to write a cache to
            return numba.njit(**options)(function)

    return compile_


@functools.cache
def scan_loop(mode: int, shifted: bool, counts: bool) -> Callable[..., None]:
    """The loop of integrate-and-fire neurons, for one way to form their current.

    Args:
        mode: `ALONE`, `SUM` or `SCALED`.
        shifted: each step has a current of its own, which is added last.
        counts: spikes are bytes, 0 or 1; otherwise floats, 0 or theta.
    """
    compiler = jit()
    if compiler is None:
        raise ImportError("numba")
    zero = np.float32(0)

    # One step stands here five times. As a function of its own it would be as fast, but compiled, and in the closure of
    # the loop; and such loops numba never finds in its cache again, which costs seconds in each process.
    def loop(x, y, shift, factor, theta, v0, state, first, spikes, start, stop):  # type: ignore[no-untyped-def]
        """Writes `spikes` [steps, n] and `state` [n] for neurons start..stop.

        x, y: currents [steps, n]. shift, factor, theta, v0: patterns, of which shift has one a step. Of x, y and shift
        one row stands for all steps. first: state is unset.
        """
        steps, period = spikes.shape[0], theta.shape[0]
        dx, dy, dc = min(1, x.shape[0] - 1), min(1, y.shape[0] - 1), min(1, shift.shape[0] - 1)
        v = np.empty(BLOCK, np.float32)
        a = start
        while a < stop:
            k = a % period
            m = min(BLOCK, stop - a, period - k)
            b, e = a + m, k + m
            h, f = theta[k:e], factor[k:e]
            if first:
                v[:m] = v0[k:e]
            else:
                v[:m] = state[a:b]
            t = 0
            while t < steps:
                if t + 4 <= steps:  # four steps in registers: a quarter of the passes over v
                    p, q, r = t + 1, t + 2, t + 3
                    x0, x1, x2, x3 = x[t * dx, a:b], x[p * dx, a:b], x[q * dx, a:b], x[r * dx, a:b]
                    y0, y1, y2, y3 = y[t * dy, a:b], y[p * dy, a:b], y[q * dy, a:b], y[r * dy, a:b]
                    c0, c1, c2, c3 = shift[t * dc, k:e], shift[p * dc, k:e], shift[q * dc, k:e], shift[r * dc, k:e]
                    s0, s1, s2, s3 = spikes[t, a:b], spikes[p, a:b], spikes[q, a:b], spikes[r, a:b]
                    for j in range(m):
                        hj, u = h[j], v[j]
                        z = x0[j]
                        if mode == SUM:
                            z += y0[j]
                        elif mode == SCALED:
                            z += f[j] * np.float32(y0[j])
                        if shifted:
                            z += c0[j]
                        u += z
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s0[j] = fired
                        else:
                            s0[j] = hj if fired else zero
                        z = x1[j]
                        if mode == SUM:
                            z += y1[j]
                        elif mode == SCALED:
                            z += f[j] * np.float32(y1[j])
                        if shifted:
                            z += c1[j]
                        u += z
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s1[j] = fired
                        else:
                            s1[j] = hj if fired else zero
                        z = x2[j]
                        if mode == SUM:
                            z += y2[j]
                        elif mode == SCALED:
                            z += f[j] * np.float32(y2[j])
                        if shifted:
                            z += c2[j]
                        u += z
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s2[j] = fired
                        else:
                            s2[j] = hj if fired else zero
                        z = x3[j]
                        if mode == SUM:
                            z += y3[j]
                        elif mode == SCALED:
                            z += f[j] * np.float32(y3[j])
                        if shifted:
                            z += c3[j]
                        u += z
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s3[j] = fired
                        else:
                            s3[j] = hj if fired else zero
                        v[j] = u
                    t += 4
                else:
                    x0, y0, c0, s0 = x[t * dx, a:b], y[t * dy, a:b], shift[t * dc, k:e], spikes[t, a:b]
                    for j in range(m):
                        hj, u = h[j], v[j]
                        z = x0[j]
                        if mode == SUM:
                            z += y0[j]
                        elif mode == SCALED:
                            z += f[j] * np.float32(y0[j])
                        if shifted:
                            z += c0[j]
                        u += z
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s0[j] = fired
                        else:
                            s0[j] = hj if fired else zero
                        v[j] = u
                    t += 1
            state[a:b] = v[:m]
            a = b

    return compiler(loop)
