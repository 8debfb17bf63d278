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

from snnc.neurons import fires


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
    """A neuron's mean output over time as a function of its mean input: `Rate.apply(z, phi, theta, v0, T)`.

    The value is `phi` `[B, ...]`, the mean of the spikes that were really emitted; the gradient is that of the even
    drive `z` `[B, ...]` at the head of this file, with `phi` in the place of `q`. What the order of the spikes did is
    in the value and not in the gradient.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, phi: Tensor, theta: Tensor, v0: Tensor, T: int) -> Tensor:
        ctx.save_for_backward(z, phi, theta, v0)
        ctx.T = T
        return phi.view_as(phi)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        # Half of a training step was spent here once: few passes over memory, and sums before divisions.
        (grad,) = grads
        z, phi, theta, v0 = ctx.saved_tensors
        even = z.to(grad.dtype) + (v0 / ctx.T).to(grad.dtype)
        level = even / (theta / ctx.T).to(grad.dtype)
        # Inside is 0 <= level < T + 1, and hardtanh leaves both ends out. Above it phi is theta, below it phi is 0,
        # and that makes dq/dtheta 1 and 0.
        passed = torch.ops.aten.hardtanh_backward(grad, level, -1e-30, ctx.T + 1.0)
        start = passed.sum_to_size(v0.shape) / ctx.T
        height = ((grad * phi).sum_to_size(theta.shape) - even.mul_(passed).sum_to_size(theta.shape)) / theta
        return passed, None, height, start, None


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
