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

    def fire(u: Any, theta: Any) -> Any:
        # u - theta >= 0 and not u >= theta: the form of `snnc.neurons.fires`.
        fired = u - theta >= zero
        return fired, u - (theta if fired else zero)

    fire = compiler(fire)

    def current(x: Any, y: Any, factor: Any) -> Any:
        if mode == ALONE:
            return x
        if mode == SUM:
            return x + y
        return x + factor * np.float32(y)

    current = compiler(current)

    def spike(fired: Any, theta: Any) -> Any:
        return fired if counts else (theta if fired else zero)

    spike = compiler(spike)

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
            v[:m] = v0[k : k + m] if first else state[a:b]
            t = 0
            while t + 4 <= steps:  # four steps in registers: a quarter of the passes over v
                i = t * stride
                x0, x1, x2, x3 = x[i, a:b], x[i + stride, a:b], x[i + 2 * stride, a:b], x[i + 3 * stride, a:b]
                y0, y1, y2, y3 = y[t, a:b], y[t + 1, a:b], y[t + 2, a:b], y[t + 3, a:b]
                s0, s1, s2, s3 = spikes[t, a:b], spikes[t + 1, a:b], spikes[t + 2, a:b], spikes[t + 3, a:b]
                for j in range(m):
                    hj, fj = h[j], f[j]
                    fired, u = fire(v[j] + current(x0[j], y0[j], fj), hj)
                    s0[j] = spike(fired, hj)
                    fired, u = fire(u + current(x1[j], y1[j], fj), hj)
                    s1[j] = spike(fired, hj)
                    fired, u = fire(u + current(x2[j], y2[j], fj), hj)
                    s2[j] = spike(fired, hj)
                    fired, u = fire(u + current(x3[j], y3[j], fj), hj)
                    s3[j] = spike(fired, hj)
                    v[j] = u
                t += 4
            while t < steps:
                xt, yt, st = x[t * stride, a:b], y[t, a:b], spikes[t, a:b]
                for j in range(m):
                    fired, u = fire(v[j] + current(xt[j], yt[j], f[j]), h[j])
                    st[j] = spike(fired, h[j])
                    v[j] = u
                t += 1
            state[a:b] = v[:m]
            a = b

    return compiler(loop)
