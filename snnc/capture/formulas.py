"""`torch.einsum` and its like: letters sorted into sums, products with constants, and matrix products of two values."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snnc.capture import gathering, layers, layout, norms, pools, products, routes, spellings
from snnc.capture.lowering import Site
from snnc.capture.refusals import PRODUCT
from snnc.capture.values import Batch, Spelling
from snnc.ir import curved

WHOLE = ("sums over the batch, or moves it", "keep the batch's letter first, in every value and in the result")


def einsum(at: Site, formula: Any, *operands: Any) -> Any:
    """`torch.einsum` of one value or of two, and of any number of constants."""
    values = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    known = all(isinstance(v, (fx.Node, Tensor)) for v in values)
    if not isinstance(formula, str) or not known:
        at.refuse("sums products by a formula that snnc does not read", PRODUCT.hint)
    words, out = _letters(at, formula, values)
    if any(len(set(word)) != len(word) for word in (*words, out)):
        at.refuse("takes a diagonal", "letters that stand once in each value")
    data = [(word, v) for word, v in zip(words, values, strict=True) if isinstance(v, fx.Node)]
    constants = [(word, v) for word, v in zip(words, values, strict=True) if isinstance(v, Tensor)]
    n = data[0][0][0]
    if out[:1] != n or any(word[0] != n for word, _ in data) or any(n in word for word, _ in constants):
        at.refuse(*WHOLE)
    if len(data) > 2 or (len(data) == 2 and constants):
        at.refuse("multiplies more than two factors of which some are data", PRODUCT.hint)
    if len(data) == 2:
        return _bilinear(at, *data[0], *data[1], out)
    word, x = data[0]
    if not constants:
        x, word = _summed(at, x, word, out)
        return _ordered(at, x, word, out)
    return _linear(at, x, word, *_joined(constants), out)


def _letters(at: Site, formula: str, values: Sequence[Any]) -> tuple[list[str], str]:
    """The letters of each value and of the result, with those that "..." stands for written out."""
    left, arrow, out = formula.replace(" ", "").partition("->")
    words = left.split(",")
    if len(words) != len(values):
        at.refuse(f"has a formula of {len(words)} values for {len(values)}", "check the network on one sample")
    ranks = [1 + len(at.known(v)) if isinstance(v, fx.Node) else v.dim() for v in values]
    spare = [c for c in string.ascii_letters if c not in formula]
    more = [
        rank - len(word.replace("...", "")) if "..." in word else 0 for word, rank in zip(words, ranks, strict=True)
    ]
    every = "".join(spare[: max(more)])
    if not arrow:
        single = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        out = ("..." if every else "") + "".join(single)
    if any(count not in (0, len(every)) for count in more) or spare[: max(more)] != list(every):
        at.refuse("spreads dimensions that one value lacks over another", PRODUCT.hint)
    words = [word.replace("...", every) for word in words]
    if any(len(word) != rank for word, rank in zip(words, ranks, strict=True)):
        at.refuse("names other dimensions than its values have", "check the network on one sample")
    return words, out.replace("...", every)


def _joined(constants: Sequence[tuple[str, Tensor]]) -> tuple[str, Tensor]:
    """The product of constants, with every letter of theirs."""
    letters = "".join(dict.fromkeys("".join(word for word, _ in constants)))
    words = ",".join(word for word, _ in constants)
    return letters, torch.einsum(f"{words}->{letters}", *(v.detach() for _, v in constants))


def _summed(at: Site, x: fx.Node, word: str, kept: str) -> tuple[Any, str]:
    """Without the letters that stand nowhere else, over which is summed."""
    gone = tuple(i for i, c in enumerate(word) if c not in kept)
    return (pools.sum_(at, x, gone), "".join(c for c in word if c in kept)) if gone else (x, word)


def _ordered(at: Site, x: Any, word: str, out: str) -> Any:
    """Letters in the order of the result."""
    if word == out:
        return x
    return layout.permute(at, x, [word.index(c) for c in out])


def _linear(at: Site, x: fx.Node, word: str, letters: str, constant: Tensor, out: str) -> Any:
    """A value times a constant: each letter that both have, and the result too, is a group of its own."""
    x, word = _summed(at, x, word, letters + out)
    lost = [c for c in letters if c not in word and c not in out]
    constant = constant.sum([letters.index(c) for c in lost]) if lost else constant
    letters = "".join(c for c in letters if c not in lost)
    sizes = dict(zip(word[1:], at.known(x), strict=True))
    if any(sizes.get(c, n) != n for c, n in zip(letters, constant.shape, strict=True)):
        at.refuse("gives one letter two sizes", "check the network on one sample")
    sizes |= dict(zip(letters, constant.shape, strict=True))
    shared = [c for c in letters if c in word and c in out]
    summed = [c for c in letters if c in word and c not in out]
    new = [c for c in letters if c not in word]
    rows = [c for c in word[1:] if c not in letters]
    if not summed and not new:  # number by number
        places = [c for c in word[1:] if c in letters]
        factor = constant.permute([letters.index(c) for c in places])
        factor = factor.reshape([sizes[c] if c in letters else 1 for c in word[1:]])
        return _ordered(at, spellings.mul(at, x, factor), word, out)
    groups, inner, outer = (math.prod(sizes[c] for c in part) for part in (shared, summed, new))
    weight = constant.permute([letters.index(c) for c in (*shared, *new, *summed)]).reshape(groups * outer, inner)
    if not shared:
        x = arranged(at, x, word, [*([c] for c in rows), summed], sizes)
        x = layers.linear(at, x, weight.contiguous())
        word = "".join((word[0], *rows, *new))
    else:
        x = arranged(at, x, word, [[*shared, *summed], rows], sizes)
        module = nn.Conv1d(groups * inner, groups * outer, 1, groups=groups, bias=False, device="meta")
        module.weight = nn.Parameter(layers.constant(weight[:, :, None]))
        x = at.emit(module, x)
        word = "".join((word[0], *shared, *new, *rows))
    return _ordered(at, _shaped(at, x, [sizes[c] for c in word[1:]]), word, out)


def _bilinear(at: Site, one: str, a: fx.Node, two: str, b: fx.Node, out: str) -> Any:
    """Two values: a matrix product."""
    (a, one), (b, two) = _summed(at, a, one, two + out), _summed(at, b, two, one + out)
    sizes = dict(zip(one[1:], at.known(a), strict=True)) | dict(zip(two[1:], at.known(b), strict=True))
    shared = [c for c in one[1:] if c in two and c in out]
    summed = [c for c in one if c in two and c not in out]
    rows, columns = ([c for c in word[1:] if c not in other] for word, other in ((one, two), (two, one)))
    x = arranged(at, a, one, [shared, rows, summed], sizes)
    y = arranged(at, b, two, [shared, summed, columns], sizes)
    z = at.emit(curved.MatMul(), x, y)
    word = "".join((one[0], *shared, *rows, *columns))
    return _ordered(at, _shaped(at, z, [sizes[c] for c in word[1:]]), word, out)


def arranged(at: Site, x: fx.Node, word: str, groups: list[list[str]], sizes: dict[str, int]) -> fx.Node:
    """A value as `[B, product of group, ...]`, its letters in the order of `groups`."""
    order = [0, *(word.index(c) for group in groups for c in group)]
    x = routes.permute(at, x, *order)
    return _shaped(at, x, [math.prod(sizes[c] for c in group) for group in groups])


def _shaped(at: Site, x: fx.Node, shape: Sequence[int]) -> fx.Node:
    """A value in a shape, which it may have already."""
    result: fx.Node = x if at.known(x) == tuple(shape) else routes.reshape(at, x, Batch(), *shape)
    return result


def matmul(at: Site, x: Any, other: Any) -> Any:
    """A matrix product; by a constant of more than two dimensions a linear layer for each entry of the first ones."""
    constant, value = (x, other) if isinstance(x, Tensor) else (other, x)
    if not isinstance(constant, Tensor) or constant.dim() < 3 or not isinstance(value, fx.Node):
        return products.matmul(at, x, other)
    rank = 1 + len(at.known(value))
    if constant.dim() > rank or (constant.dim() == rank and not at.alike(constant)):
        at.refuse("multiplies by constants that differ from sample to sample", "constants of one sample's shape")
    constant = constant.detach()[0] if constant.dim() == rank else constant.detach()
    front = string.ascii_lowercase[3:][: rank - 3]
    shared = front[len(front) - (constant.dim() - 2) :]
    ones = [d for d, n in enumerate(constant.shape[:-2]) if n == 1]
    own = "".join(c for d, c in enumerate(shared) if d not in ones)
    constant = constant.squeeze(ones)
    formula = f"{own}ab,A{front}bc" if value is other else f"A{front}ab,{own}bc"
    operands = (constant, value) if value is other else (value, constant)
    return einsum(at, f"{formula}->A{front}ac", *operands)


def tensordot(at: Site, x: Any, other: Any, dims: Any = 2, dims_other: Any = None) -> Any:
    """`torch.tensordot`, of a value with a constant."""
    if dims_other is not None:  # ATen
        dims = (dims, dims_other)
    ranks = [1 + len(at.known(v)) if isinstance(v, fx.Node) else v.dim() for v in (x, other)]
    if isinstance(dims, int):
        dims = list(range(ranks[0] - dims, ranks[0])), list(range(dims))
    left, right = ([d % rank for d in run] for run, rank in zip(dims, ranks, strict=True))
    one = list(string.ascii_lowercase[: ranks[0]])
    two = list(string.ascii_uppercase[: ranks[1]])
    for a, b in zip(left, right, strict=True):
        two[b] = one[a]
    out = [c for c in one if c not in two] + [c for c in two if c not in one]
    return einsum(at, f"{''.join(one)},{''.join(two)}->{''.join(out)}", x, other)


def inner(at: Site, x: Any, other: Any) -> Any:
    """`torch.inner`: over the last dimensions."""
    return tensordot(at, x, other, ([-1], [-1]))


def bilinear(at: Site, a: Any, b: Any, weight: Tensor, bias: Any = None) -> Any:
    """`F.bilinear`: `a W b` for each output, with constant weights `[out, in1, in2]`."""
    sizes = at.known(a)
    y = layers.linear(at, a, weight.detach().mT.reshape(-1, weight.shape[1]))  # out and in2 in a row
    y = routes.reshape(at, y, Batch(), *sizes[:-1], weight.shape[0], weight.shape[2])
    y = products.matmul(at, y, routes.unsqueeze(at, b, len(sizes) + 1))
    y = routes.reshape(at, y, Batch(), *sizes[:-1], weight.shape[0])
    return y if bias is None else spellings.add(at, y, bias)


def own_bilinear(at: Site, module: Any, a: Any, b: Any) -> Any:
    """`nn.Bilinear`."""
    return bilinear(at, a, b, module.weight, module.bias)


def cosine_similarity(at: Site, x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """`F.cosine_similarity`: both values normalised, and the sum of their products."""
    value = x1 if isinstance(x1, fx.Node) else x2
    place = at.axis(value, dim)

    def one(x: Any) -> Any:
        if isinstance(x, fx.Node):
            return norms.normalize(at, x, 2.0, place, eps)
        return functional.normalize(x.detach(), dim=place - (at.rank(value) or 0), eps=eps)

    return pools.sum_(at, products.product(at, one(x1), one(x2)), place)


def cdist(at: Site, x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """`torch.cdist`: the norm of the difference between any row of a value and any row of another, or of a constant."""
    if not p > 0:
        at.refuse("counts entries that differ", "an order p above zero")
    one, two = (_rows_of_one(at, v) for v in (x1, x2))
    rows, others = ((at.known(v) if isinstance(v, fx.Node) else v.shape)[-2] for v in (one, two))
    return norms.norm(at, spellings.sub(at, _spread(at, one, -2, others), _spread(at, two, -3, rows)), p, -1)


def _rows_of_one(at: Site, x: Any) -> Any:
    """A value, or the rows of a constant that all samples share."""
    if isinstance(x, fx.Node) or x.dim() == 2:
        return x
    if not at.alike(x):
        at.refuse("measures distances to other constants for each sample", "constants of one sample's shape")
    return x.detach()[0]


def _spread(at: Site, x: Any, place: int, count: int) -> Any:
    """A value repeated along a new dimension; a constant has one of size one, which is enough for it."""
    if isinstance(x, Tensor):
        return x.unsqueeze(place)
    dim = len(at.known(x)) + 2 + place
    return gathering.index_select(at, routes.unsqueeze(at, x, dim), dim, torch.zeros(count, dtype=torch.long))


SPELLINGS: dict[str, Spelling] = {
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    "einsum": einsum,
    "tensordot": tensordot,
    "inner": inner,
    "bilinear": bilinear,
    "cosine_similarity": cosine_similarity,
    "cdist": cdist,
    "_cdist_forward": cdist,
    "_euclidean_dist": cdist,
}
MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.CosineSimilarity: ("cosine_similarity", ("dim", "eps")),
}
OWN: dict[type[nn.Module], Spelling] = {nn.Bilinear: own_bilinear}
