"""Input channels at several resolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import fx, nn

from snnc.errors import SnncError
from snnc.ir.dialect import CONVOLUTIONS, Affine, Concat, Pad
from snnc.ir.graph import Stage, insert, module_of
from snnc.passes.encode_input import encoder
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class ExpandInput(Pass):
    """Feeds the image at three resolutions at once: input channel expansion (ICE).

    With N the resolution at which the input is quantised (`encode-input`, `limit-range`), each channel becomes three,
    for n = N - 1, N + 1, N in this order:

        k_n = min(floor(n x), T)        value k_n / N

    Three staggered grids tell more values of x apart than one does, at the same T. The first layers are widened, the
    weights of each copy the original ones over the number of copies: about the same function, and a place to
    start retraining from.

    No data. What it costs: 3 neurons a pixel, and 3 `repeat` times the weights of the first layers.

    Options:
        repeat: times that the three stand side by side, as in the released code, whose 2 makes 18 channels of 3. A
            repeated input is the same function with the sum of the weights: it only changes how training gets there.
    """

    name = "expand-input"
    takes = (Stage.QUANTIZED,)
    source = "ICE: Yan, Zhou, Wong (arXiv 2211.08410), order and repetition of the released code"

    repeat: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("repeat", 1 <= self.repeat <= 64, "1 to 64, such as 2")

    def over_frames(self, T: int) -> Self | None:
        raise self.unframed("makes spikes of a picture that stays")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        node = encoder(graph)
        if node is None or module_of(graph, node).lam.numel() > 1:
            raise SnncError("the input is not quantised, or has no resolution of its own.", "encode-input before it")
        source = node.all_input_nodes[0]
        if source.op != "placeholder":
            context.notes.append("the input is expanded already")
            return 0
        quant = module_of(graph, node)
        N = float(quant.L / quant.lam)
        if N < 2 - 1e-6:
            raise SnncError(
                f"the input has a resolution of {N:g}, and of {N - 1:g} there is no level.",
                "limit-range with a resolution of 2 or more before it, or a recipe without expand-input",
            )
        users = list(node.users)
        for layer in _first_layers(graph, node):
            _widen(layer, 3 * self.repeat)
        # Linear layers count along the last dimension, everything else along the first behind the batch.
        dim = -1 if all(isinstance(module_of(graph, user), nn.Linear) for user in users) else 1
        coarse, fine = (Affine(torch.tensor(n / N), torch.tensor(0.0)) for n in (N - 1, N + 1))
        last = insert(graph, f"{source.name}_coarse", coarse, source)
        first = insert(graph, f"{source.name}_fine", fine, source)
        grids = insert(graph, f"{source.name}_grids", Concat(dim), last)
        grids.args, node.args = (last, first, source), (grids,)
        if self.repeat > 1:
            copies = insert(graph, f"{source.name}_copies", Concat(dim), node)
            copies.args = (node,) * self.repeat
            for user in users:
                user.replace_input_with(node, copies)
        return len(users)


def _first_layers(graph: fx.GraphModule, node: fx.Node) -> list[Any]:
    """Modules that have a number for each input channel.

    Raises:
        SnncError: one that cannot be widened.
    """
    found = []
    for user in node.users:
        module = module_of(graph, user) if user.op == "call_module" else None
        if isinstance(module, Affine | nn.Flatten | Pad):
            behind = _first_layers(graph, user)
            sizes = [len(layer.kernel_size) for layer in behind if isinstance(layer, CONVOLUTIONS)]
            fits = not isinstance(module, Pad) or len(module.pads) <= 2 * min(sizes, default=0)
            fits &= not isinstance(module, nn.Flatten) or module.start_dim == 1
            found += [*behind, *([module] if isinstance(module, Affine) else [])]
        else:
            fits = isinstance(module, nn.Linear) or (isinstance(module, CONVOLUTIONS) and module.groups == 1)
            found.append(module)
        if not fits:
            raise SnncError(
                f"'{user.name}' reads the input, and has no weights to widen.",
                "a recipe without expand-input",
            )
    return found


def _widen(layer: Any, copies: int) -> None:
    """Lets a layer read `copies` of its input, one behind the other along the channels. In place."""
    if isinstance(layer, Affine):
        for name in ("scale", "shift"):
            value = getattr(layer, name)
            if value.dim() and value.shape[0] > 1:
                setattr(layer, name, value.repeat(copies, *[1] * (value.dim() - 1)))
        return
    weight = layer.weight.repeat(1, copies, *[1] * (layer.weight.dim() - 2)) / copies
    layer.weight = nn.Parameter(weight, requires_grad=False)
    size = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
    setattr(layer, size, getattr(layer, size) * copies)
