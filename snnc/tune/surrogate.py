"""Gradients for what has none: levels, rates and spikes.

A count of spikes is a floor, and the derivative of a floor is zero almost everywhere. The straight-through estimator
lets the floor's gradient be 1 and differentiates the rest as it stands. For a quantiser with `n` levels of height
`theta / n` that starts from `v0`,

    u = (z n + v0) / theta        q = theta / n * clip(floor(u), 0, n)

that gives, with "inside" meaning 0 <= floor(u) <= n,

    dq/dz      = 1 inside, 0 outside
    dq/dtheta  = (q - z - v0 / n) / theta inside, 1 above, 0 below
    dq/dv0     = 1 / n inside, 0 outside

With `v0 = shift * theta` tied to the bound, the last two add up to `(q - z) / theta`: the gradient that automatic
differentiation gives for QCFS (Bu et al., ICLR 2022, arXiv 2303.04347; the formula printed there is not this one, and
its authors' code says so).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnc.ir.neurons import fires


class Levels(torch.autograd.Function):
    """Clip-quantisation with a trained bound: `Levels.apply(z, lam, L, shift)`, as `ClipQuant` computes it.

    `z` is `[B, ...]`; `lam` is `[]` or `[C, 1, ...]`.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, lam: Tensor, L: int, shift: float) -> Tensor:
        level = torch.floor(z * L / lam + shift)
        ctx.save_for_backward(z, lam, level)
        ctx.L = L
        return level.clamp(0, L) * lam / L

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,) = grads
        z, lam, level = ctx.saved_tensors
        above = (level > ctx.L).to(grad)
        inside = (level >= 0).to(grad) - above
        passed = grad * inside
        bound = passed * (level / ctx.L - z / lam) + grad * above
        return passed, bound.sum_to_size(lam.shape), None, None


class Rate(torch.autograd.Function):
    """A neuron's mean output over time as a function of its mean input: `Rate.apply(z, phi, theta, v0, T, shape)`.

    The value is `phi` `[B, ...]`, the mean of the spikes that were really emitted; the gradient is that of the even
    drive `z` `[B, ...]` with `phi` in the place of `q`. The order of the spikes affects the value, but not the
    gradient. With u = (z T + v0) / theta,

        "rectangle"   the straight-through gradient at the head of this file: slope 1 for 0 <= u < T + 1
        "triangle"    each of the jumps at u = 1 .. T smeared over a triangle from one below it to one above: slope
                      min(u, 1, T + 1 - u), and 0 outside

    and dphi/dtheta = (phi - slope (z + v0 / T)) / theta, dphi/dv0 = slope / T. The first has an area of T + 1 jumps
    where there are T. At T = 1 the second is that of `Spike` with a triangle.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, phi: Tensor, theta: Tensor, v0: Tensor, T: int, shape: str) -> Tensor:
        ctx.save_for_backward(z, phi, theta, v0)
        ctx.T, ctx.shape = T, shape
        return phi.view_as(phi)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None, None]:
        # Half of a training step was spent here once: few passes over memory, and sums before divisions.
        (grad,) = grads
        z, phi, theta, v0 = ctx.saved_tensors
        T, kind = ctx.T, grad.dtype
        even = z.to(kind) + (v0 / T).to(kind)
        level = even / (theta / T).to(kind)
        if ctx.shape == "rectangle":
            passed = torch.ops.aten.hardtanh_backward(grad, level, -1e-30, T + 1.0)  # which leaves both ends out
        else:
            middle = (T + 1) / 2
            passed = level.sub_(middle).abs_().neg_().add_(middle).clamp_(0, 1).mul_(grad)
        start = passed.sum_to_size(v0.shape) / T
        height = ((grad * phi).sum_to_size(theta.shape) - even.mul_(passed).sum_to_size(theta.shape)) / theta
        return passed, None, height, start, None, None


class Straight(torch.autograd.Function):
    """One value with the gradient of another, of the same shape: `Straight.apply(source, value)` is `value`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Spike(torch.autograd.Function):
    """One comparison, with a surrogate derivative: `Spike.apply(u, theta, shape)` is 1 where `u >= theta`.

    The derivative with respect to `u` has area 1 around the threshold. "rectangle": `1 / theta` within half a theta;
    "triangle": `(1 - |u - theta| / theta) / theta` within one (Bellec et al., NeurIPS 2018; Wu et al. 2018).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, shape: str) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.shape = shape
        return fires(u, theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        u, theta = ctx.saved_tensors
        far = (u / theta - 1).abs()
        slope = (far < 0.5).to(grad) if ctx.shape == "rectangle" else (1 - far).clamp_min(0)
        passed = grad * slope / theta
        # The comparison looks at u / theta, so a larger theta moves the threshold and widens the surrogate alike.
        return passed, -(passed * u / theta).sum_to_size(theta.shape), None
