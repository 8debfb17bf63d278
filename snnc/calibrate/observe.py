"""Looking at what flows through a graph, without changing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.statistics import Gaussian, Histogram
from snnc.errors import DataError, SnncError
from snnc.ir.curved import BENT
from snnc.ir.dialect import (
    ACTIVATIONS,
    AVERAGE_POOLS,
    BATCHNORMS,
    CONVOLUTIONS,
    HEADS,
    MAX_POOLS,
    ROUTES,
    WEIGHTED,
    Add,
    Affine,
    ClipQuant,
    Grid,
    Mean,
    Mix,
    SignedQuant,
    Sub,
)
from snnc.ir.embedding import Embedding
from snnc.ir.graph import module_of
from snnc.ir.rows import Refusal, Table
from snnc.ir.temporal import TIME, Decode, Frames
from snnc.processes import from_all, rank, world
from snnc.structure import Samples, Tree, each, shape_of


class _Watch(fx.Interpreter):
    """Runs a graph and hands every node's value to `see(node, value)`."""

    def __init__(self, graph: fx.GraphModule, see: Any) -> None:
        super().__init__(graph)
        self.see = see

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            self.see(n, value)
        return value


def watch(graph: fx.GraphModule, x: Samples, see: Callable[[fx.Node, Tensor], Any], gradients: bool = False) -> Tree:
    """The graph's output for `x`, with `see(node, value)` called for each value on the way."""
    with torch.set_grad_enabled(gradients):
        return _Watch(graph, see).run(*each(x))


Look = Callable[[fx.Node, Tensor], Tensor]  # puts what counts as a channel of a node's value second


def as_it_is(node: fx.Node, value: Tensor) -> Tensor:
    """Dimension 1 counts as channel."""
    return value


def histograms(
    graph: fx.GraphModule, sites: Iterable[fx.Node], batches: Iterable[Samples], look: Look = as_it_is
) -> dict[str, Histogram]:
    """One sweep over the data, shared by all processes: a histogram of the input of each site, by the site's name.

    Raises:
        DataError: a batch that does not fit the network, or a NaN or infinity on the way.
    """
    sources: dict[fx.Node, list[str]] = {}
    for site in sites:
        sources.setdefault(site.all_input_nodes[0], []).append(site.name)
    return histograms_of(graph, sources, batches, look)


def histograms_of(
    graph: fx.GraphModule,
    sources: dict[fx.Node, list[str]],
    batches: Iterable[Samples],
    look: Look = as_it_is,
) -> dict[str, Histogram]:
    """As `histograms`, of the values of nodes, each under some names."""
    found: dict[str, Histogram] = {}

    def see(node: fx.Node, value: Tensor) -> None:
        if names := sources.get(node):
            if not torch.isfinite(value).all():
                raise DataError(
                    f"The calibration data gives NaN or infinity at '{node.name}'.",
                    "check the data and its normalisation (--mean/--std)",
                )
            value = look(node, value)
            histogram = found.get(names[0]) or Histogram(value.shape[1], value.dim() - 2)
            histogram.update(value)
            found.update(dict.fromkeys(names, histogram))

    for number, batch in enumerate(batches):
        if number % world() != rank():
            continue
        try:
            watch(graph, batch, see)
        except (RuntimeError, ValueError, IndexError) as error:
            raise DataError(
                f"A calibration sample of shape {shape_of(batch)} does not go through the network: "
                f"{_first_line(error)}",
                "samples of the shape that the network was trained on",
            ) from error
    for names in sources.values():
        if (histogram := _merged(found.get(names[0]))) is None:
            raise DataError("The calibration data holds no batch.", "a data set with at least one sample")
        found.update(dict.fromkeys(names, histogram))
    return found


def _merged(own: Histogram | None) -> Histogram | None:
    """The histogram of all that the processes have seen of one site; None where they have seen nothing."""
    if world() == 1:
        return own
    merged: Histogram | None = None
    for part in from_all(None if own is None else (own.rank, own.counts, own.top, own.peak, own.total)):
        if part is not None:
            one = Histogram(len(part[2]), part[0])
            one.counts, one.top, one.peak, one.total = part[1:]
            if merged is None:
                merged = one
            else:
                merged.add(one)
    return merged


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") + "."


Moments = tuple[Tensor, Tensor]  # mean and variance of one sample, both [1, C, ...]


class _Predict(fx.Interpreter):
    """Pushes means and variances through a graph instead of values.

    Inputs are taken to be standard normal and inputs of a layer to be independent between channels; within a channel
    the larger of the independent and the fully correlated variance is taken, since neighbours in an image
    agree. Where batch normalisation said what it put out, that is believed instead.
    """

    def __init__(self, graph: fx.GraphModule, known: Mapping[str, Moments]) -> None:
        super().__init__(graph)
        self.graph_module = graph
        self.known = known
        self.seen: dict[str, Moments] = {}

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Moments:
        x = super().placeholder(target, args, kwargs)
        if not x.is_floating_point():  # places in a table
            return x, torch.zeros_like(x)
        return torch.zeros_like(x), torch.ones_like(x)

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        return None

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_module":
            return super().run_node(n)
        module = module_of(self.graph_module, n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        if isinstance(module, (*ACTIVATIONS, ClipQuant)):
            self.seen[n.name] = args[0]
        mean, var = MOMENTS.at(n.name, module)(module, args)
        if n.name in self.known:
            shape = (1, -1, *[1] * (mean.dim() - 2))
            mu, sigma = (v.to(mean).reshape(shape).expand_as(mean) for v in self.known[n.name])
            mean, var = mu.clone(), sigma.square()
        return mean, var


def _layer_variance(module: Any, var: Tensor) -> Tensor:
    weight, bias = module.weight, module.bias
    module.weight, module.bias = nn.Parameter(weight.square(), requires_grad=False), None
    try:
        independent = module(var)
    finally:
        module.weight, module.bias = weight, bias
    if not isinstance(module, CONVOLUTIONS):
        return independent
    groups = module.groups
    sums = weight.flatten(2).sum(2).square().reshape(groups, -1, weight.shape[1])
    level = var.flatten(2).mean(2).reshape(groups, -1, 1)
    correlated = (sums @ level).reshape(1, -1, *[1] * (var.dim() - 2))
    return torch.maximum(independent, correlated.expand_as(independent))


def _rectify(module: nn.Module, mean: Tensor, var: Tensor) -> Moments:
    """Moments of max(0, z) for normal z; a clip bound caps them."""
    sigma = var.sqrt().clamp_min(1e-12)
    ratio = mean / sigma
    bell = torch.exp(-ratio.square() / 2) / (2 * torch.pi) ** 0.5
    share = torch.special.ndtr(ratio)
    first = mean * share + sigma * bell
    second = (mean.square() + var) * share + mean * sigma * bell
    top = getattr(module, "lam", getattr(module, "max_val", float("inf")))
    top = torch.as_tensor(top).to(mean)
    return torch.minimum(first, top), torch.minimum((second - first.square()).clamp_min(0), top.square() / 4)


def _weighted(module: nn.Module, args: Sequence[Moments]) -> Moments:
    ((mean, var),) = args
    return module(mean), _layer_variance(module, var)


def _activation(module: nn.Module, args: Sequence[Moments]) -> Moments:
    return _rectify(module, *args[0])


def _largest(module: nn.Module, args: Sequence[Moments]) -> Moments:
    """The largest of a few normal values: about one standard deviation above the mean."""
    ((mean, var),) = args
    return module(mean + var.sqrt()), module(var)


def _affine(module: Affine, args: Sequence[Moments]) -> Moments:
    ((mean, var),) = args
    return module(mean), var * module.scale.square()


def _mixed(module: Mix, args: Sequence[Moments]) -> Moments:
    """Neighbours agree, or they do not: the larger variance of the two, as in a layer."""
    ((mean, var),) = args
    independent = Mix(module.dim, module.weight.square())(var)
    return module(mean), torch.maximum(independent, module(var.sqrt()).square())


def _joined(module: nn.Module, args: Sequence[Moments]) -> Moments:
    (_, one), (_, other) = args
    return module(*(mean for mean, _ in args)), one + other


def _alike(module: Any, args: Sequence[Moments]) -> Moments:
    """One frame stands for all."""
    ((mean, var),) = args
    return (mean[:, 0], var[:, 0]) if isinstance(module, Frames) else (mean, var)


def _looked_up(module: Any, args: Sequence[Moments]) -> Moments:
    """Every row is as likely as another."""
    ((places, _),) = args
    mean, var = module.weight.mean(0), module.weight.var(0, unbiased=False)
    shape = (*places.shape, len(mean))
    return mean.expand(shape).clone(), var.expand(shape).clone()


def _moved(module: nn.Module, args: Sequence[Moments]) -> Moments:
    return module(*(mean for mean, _ in args)), module(*(var for _, var in args))


def _head(module: nn.Module, args: Sequence[Moments]) -> Moments:
    """No activation follows it, so its moments are never needed."""
    return args[0]


MOMENTS: Table[Callable[[Any, Sequence[Moments]], Moments]] = Table(
    "moments",
    __name__,
    {
        WEIGHTED: _weighted,
        (*ACTIVATIONS, ClipQuant): _activation,
        MAX_POOLS: _largest,
        Affine: _affine,
        (Add, Sub): _joined,
        Mix: _mixed,
        Embedding: _looked_up,
        (*AVERAGE_POOLS, *ROUTES, Mean): _moved,
        HEADS: _head,
        (*BENT, SignedQuant): Refusal(
            "gives values that are unknown without data",
            "calibration data (--calib DATA, or calibration= in Python), and the recipe 'telescoped'",
        ),
        BATCHNORMS: Refusal("is no layer of a folded network", "fold-batchnorm before it"),
        (*TIME, Grid): Refusal("belongs to a spiking network", "the network that it was compiled from"),
        (Frames, Decode): _alike,  # of a network that ran on each frame
    },
)


@torch.no_grad()
def predict(graph: fx.GraphModule, example: Samples, known: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Gaussian]:
    """Normal approximation of the input of each activation, without data.

    Args:
        graph: a FOLDED graph.
        example: one or more samples; only their shape counts.
        known: mean and standard deviation `[C]` of some nodes' outputs, by name.

    Raises:
        SnncError: the sample does not go through the network.
    """
    run = _Predict(graph, known)
    try:
        run.run(*each(example[:1]))
    except (RuntimeError, ValueError, IndexError) as error:
        raise SnncError(
            f"A sample of shape {shape_of(example)} does not go through the network: {_first_line(error)}",
            "--input-shape, such as --input-shape 3,32,32",
        ) from error
    found = {}
    for name, (mean, var) in run.seen.items():
        m, v = mean[0].flatten(1) if mean.dim() > 2 else mean[0][:, None], var[0].reshape(len(var[0]), -1)
        mu = m.mean(1)
        found[name] = Gaussian(mu, (v.mean(1) + m.var(1, unbiased=False)).sqrt(), mean.dim() - 2)
    return found
