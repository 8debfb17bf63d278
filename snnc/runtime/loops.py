"""Loops over neurons and steps, as numba compiles them.

Plain Python that numba (an optional dependency) makes into machine code; without it nothing here is called. No loop
reorders, fuses or contracts arithmetic: every operation rounds as the same one of torch does.

Arrays are flat views of tensors `[steps, n]` in memory order, n neurons of all samples. Parameters are patterns that
repeat along n with a period of their own length: see `snnc.runtime.scan`.
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
def scan(mode: int, counts: bool) -> Callable[..., None]:
    """The loop of integrate-and-fire neurons, for one way to form their current.

    Args:
        mode: `ALONE`, `SUM` or `SCALED`.
        counts: spikes are bytes, 0 or 1; otherwise floats, 0 or theta.
    """
    compiler = jit()
    if compiler is None:
        raise ImportError("numba")
    zero = np.float32(0)

    def loop(x, stride, y, factor, theta, v0, state, first, spikes, start, stop):  # type: ignore[no-untyped-def]
        """Writes `spikes` [steps, n] and `state` [n] for neurons start..stop.

        x, y: currents [steps, n], or [1, n] with stride 0. factor, theta, v0: patterns. first: state is unset.
        """
        steps, period = spikes.shape[0], theta.shape[0]
        v = np.empty(BLOCK, np.float32)
        a = start
        while a < stop:
            k = a % period
            m = min(BLOCK, stop - a, period - k)
            b = a + m
            h, f = theta[k : k + m], factor[k : k + m]
            if first:
                v[:m] = v0[k : k + m]
            else:
                v[:m] = state[a:b]
            t = 0
            while t < steps:
                if t + 4 <= steps:  # four steps in registers: a quarter of the passes over v
                    i, d = t * stride, stride
                    x0, x1, x2, x3 = x[i, a:b], x[i + d, a:b], x[i + 2 * d, a:b], x[i + 3 * d, a:b]
                    y0, y1, y2, y3 = y[t, a:b], y[t + 1, a:b], y[t + 2, a:b], y[t + 3, a:b]
                    s0, s1, s2, s3 = spikes[t, a:b], spikes[t + 1, a:b], spikes[t + 2, a:b], spikes[t + 3, a:b]
                    for j in range(m):
                        hj, fj, u = h[j], f[j], v[j]
                        if mode == SCALED:
                            u += x0[j] + fj * np.float32(y0[j])
                        elif mode == SUM:
                            u += x0[j] + y0[j]
                        else:
                            u += x0[j]
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s0[j] = fired
                        else:
                            s0[j] = hj if fired else zero
                        if mode == SCALED:
                            u += x1[j] + fj * np.float32(y1[j])
                        elif mode == SUM:
                            u += x1[j] + y1[j]
                        else:
                            u += x1[j]
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s1[j] = fired
                        else:
                            s1[j] = hj if fired else zero
                        if mode == SCALED:
                            u += x2[j] + fj * np.float32(y2[j])
                        elif mode == SUM:
                            u += x2[j] + y2[j]
                        else:
                            u += x2[j]
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s2[j] = fired
                        else:
                            s2[j] = hj if fired else zero
                        if mode == SCALED:
                            u += x3[j] + fj * np.float32(y3[j])
                        elif mode == SUM:
                            u += x3[j] + y3[j]
                        else:
                            u += x3[j]
                        fired = u - hj >= zero
                        u -= hj if fired else zero
                        if counts:
                            s3[j] = fired
                        else:
                            s3[j] = hj if fired else zero
                        v[j] = u
                    t += 4
                else:
                    x0, y0, s0 = x[t * stride, a:b], y[t, a:b], spikes[t, a:b]
                    for j in range(m):
                        hj, fj, u = h[j], f[j], v[j]
                        if mode == SCALED:
                            u += x0[j] + fj * np.float32(y0[j])
                        elif mode == SUM:
                            u += x0[j] + y0[j]
                        else:
                            u += x0[j]
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
