"""Hints on passes, pipelines, recipes and training."""

import functools
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn

import snnc
from snnc.passes import PASSES
from snnc.passes.base import Pass
from snnc.recipes import names, recipe, require_pass
from tests.followed import NET, X, Y, compiled, tomled
from tests.followed.forms import free, integers, layer, maps

QUICK = {"T": 2, "recipe": "opi", "loss": "labels", "epochs": 1, "held_out": 0, "batch": 6}


@dataclass(frozen=True)
class Setter(Pass):
    """Sets the ceilings."""

    name = "setter"
    takes = (snnc.Stage.SPIKING,)
    uses = (snnc.Context.ceilings,)

    def apply(self, graph, context):
        context.ceilings = {}
        return 0


@dataclass(frozen=True)
class Told(Setter):
    """Says so."""

    provides = (snnc.Context.ceilings,)


@dataclass(frozen=True)
class Reader(Pass):
    """Reads the ceilings."""

    name = "reader"
    takes = (snnc.Stage.SPIKING,)

    def apply(self, graph, context):
        return len(context.ceilings)


@dataclass(frozen=True)
class ToldReader(Reader):
    """Says so."""

    uses = (snnc.Context.ceilings,)


def of(*passes, T=2, network=NET, x=X, **options):
    """A network compiled by passes, each a name or a pass."""
    found = [PASSES[one]() if isinstance(one, str) else one for one in passes]
    return snnc.compile(network, T, snnc.Pipeline(tuple(found)), x, **options)


def then(name, *passes, T=2, network=NET, x=X):
    """By a recipe, with passes behind it."""
    return of(*recipe(name).pipeline, *passes, T=T, network=network, x=x)


def lowered(how):
    plain = recipe("opi").set("insert-neurons", maxpool=how)
    return snnc.compile(layer(nn.AdaptiveMaxPool2d(2)), 2, plain, maps())


def compiled_by(recipes):
    return snnc.compile(NET, 2, recipes, X)


def tuned(data=(X, Y), start=NET, **more):
    return snnc.tune(start, data, **QUICK | more)


def unguessed(shape=None):
    """Linear layers of rows and of all of them: nothing tells how many rows there are."""
    rows = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.BatchNorm1d(3))
    return snnc.compile(rows.eval(), 2, "data-free", input_shape=shape)


@functools.cache
def tokens():
    """A network without a ReLU."""
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)).eval()


def file(path, text):
    return tomled(path, f'name = "mine"\nbase = "cos"\n{text}')


def based(path, base):
    (path / "other.toml").write_text(f'name = "other"\nbase = "{base}"\n')
    return tomled(path, 'name = "mine"\nbase = "other.toml"\n')


class Stopped(Exception):
    """Of a run that ends early."""


def stopping(batches, what="", *_, **__):
    for number, one in enumerate(batches):
        if number == 1 and what == "tuning":
            raise Stopped
        yield one


def interrupted(path):
    """The checkpoint of a run that did not end."""
    with suppress(Stopped):
        tuned(checkpoint=path / "a.checkpoint", save_seconds=0.0, epochs=2, track=stopping)
    return path / "a.checkpoint"


def resumed(path, **more):
    return tuned(checkpoint=path, save_seconds=0.0, resume=True, **{"epochs": 2} | more)


def spoilt(path, **change):
    content = torch.load(path, weights_only=True)
    torch.save(content | change, path)
    return path


NOWHERE = next(name for name in PASSES if all(one.name != name for r in names() for one in recipe(r).pipeline))
LIMITED = ("fold-batchnorm", "quantize-activations")
# The hint, what gets it, and what it says to do: functions of a compiled network and a folder.
ROWS = [
    ("--input-shape, such as --input-shape 3,32,32", lambda n, p: unguessed(), lambda n, p: unguessed((2, 6))),
    # passes
    ("the product in its `provides`", lambda n, p: then("opi", Setter()), lambda n, p: then("opi", Told())),
    ("the product in its `uses`", lambda n, p: then("opi", Reader()), lambda n, p: then("opi", ToldReader())),
    ("{} time steps at most, and 2 to 32 as a rule", lambda n, p: snnc.Context(2**40), lambda n, p: snnc.Context(32)),
    ("pixels over 255, and mean and deviation taken out inside the network",
     lambda n, p: compiled("low-latency", calibration=X - 2), lambda n, p: compiled("low-latency")),
    ("or a recipe without encode-input", lambda n, p: compiled("low-latency", calibration=X - 2),
     lambda n, p: compiled("opi", calibration=X - 2)),
    ("encode-input before it", lambda n, p: of(*LIMITED, "expand-input", "insert-neurons"),
     lambda n, p: of(*LIMITED, "encode-input", "limit-range", "expand-input", "insert-neurons")),
    ("limit-range with a resolution of 2 or more before it",
     lambda n, p: of(*LIMITED, "encode-input", PASSES["limit-range"](1), "expand-input", "insert-neurons", T=1),
     lambda n, p: of(*LIMITED, "encode-input", PASSES["limit-range"](2), "expand-input", "insert-neurons", T=1)),
    ("a recipe without expand-input",
     lambda n, p: of(*LIMITED, "encode-input", "limit-range", "expand-input", "insert-neurons",
     network=nn.Sequential(nn.AvgPool2d(2), layer(nn.Identity(), shape=(3, 4, 4))), x=maps()),
     lambda n, p: of(*LIMITED, "encode-input", "limit-range", "insert-neurons",
     network=nn.Sequential(nn.AvgPool2d(2), layer(nn.Identity(), shape=(3, 4, 4))), x=maps())),
    ("the recipe 'telescoped', or the pass encode-values before this one",
     lambda n, p: compiled("opi", network=tokens()), lambda n, p: compiled("telescoped", network=tokens())),
    ("maxpool = 'running-max'", lambda n, p: lowered("gate"), lambda n, p: lowered("running-max")),
    ("a resolution of {} or more", lambda n, p: of(*LIMITED, PASSES["limit-range"](4), "insert-neurons", T=8),
     lambda n, p: of(*LIMITED, PASSES["limit-range"](8), "insert-neurons", T=8)),
    ("fewer steps, levels or bits",
     lambda n, p: of("fold-batchnorm", PASSES["quantize-activations"](levels=10**6, bits=8), "insert-neurons"),
     lambda n, p: of("fold-batchnorm", PASSES["quantize-activations"](levels=10**4, bits=8), "insert-neurons")),
    ("the recipe 'cos' or 'opi' with calibration data, or 'data-free'", lambda n, p: compiled("qcfs"),
     lambda n, p: (compiled("cos"), compiled("opi"), free())),
    ("'{}' first, then '{}'", lambda n, p: of(*LIMITED, "insert-neurons", "scale-thresholds"),
     lambda n, p: of(*LIMITED, "scale-thresholds", "insert-neurons")),
    ("a recipe without mask-residual, such as 'telescoped'",
     lambda n, p: then("telescoped", "mask-residual", network=tokens()),
     lambda n, p: compiled("telescoped", network=tokens())),
    ("one of the two",
     lambda n, p: recipe("opi").pipeline.insert(Told(), before="fold-batchnorm", after="insert-neurons"),
     lambda n, p: recipe("opi").pipeline.insert(Told(), after="insert-neurons")),
    # recipes
    ("'{}'", lambda n, p: recipe("coz"), lambda n, p: recipe("cos")),
    ("a TOML file", lambda n, p: recipe(p / "none.toml"), lambda n, p: file(p, "")),
    ("a list of values", lambda n, p: file(p, "[choices.calibrate-offset]\nrho = 3\n"),
     lambda n, p: file(p, "[choices.calibrate-offset]\nrho = [3]\n")),
    ("a table [choices.{}]", lambda n, p: file(p, "[choices]\ncalibrate-offset = 3\n"),
     lambda n, p: file(p, "[choices.calibrate-offset]\nrho = [3]\n")),
    ("passes, or a base that ships with snnc, in one of them", lambda n, p: based(p, "mine.toml"),
     lambda n, p: based(p, "cos")),
    ("--recipe {}, which has it", lambda n, p: require_pass(recipe("opi"), "calibrate-offset"),
     lambda n, p: require_pass(recipe("cos"), "calibrate-offset")),
    ("a recipe of your own with that pass", lambda n, p: require_pass(recipe("opi"), NOWHERE),
     lambda n, p: require_pass(tomled(p, recipe("opi").to_toml() + '[[pass]]\nname = "' + NOWHERE + '"\n'),
     NOWHERE)),
    # networks that are told apart from their ANN
    ("the network compiled without {}", lambda n, p: snnc.explain(integers(), NET, (X, Y)),
     lambda n, p: snnc.explain(n, NET, (X, Y))),
    ("the network compiled without {} and {}", lambda n, p: snnc.explain(compiled("low-latency"), NET, (X, Y)),
     lambda n, p: snnc.explain(of(*LIMITED, "insert-neurons"), NET, (X, Y))),
    # training
    ("the network compiled without fixed-point", lambda n, p: tuned(start=integers()), lambda n, p: tuned(start=n)),
    ("labels for all, or for none", lambda n, p: tuned([(X[:6], Y[:6]), X[6:]]),
     lambda n, p: tuned([(X[:6], Y[:6]), (X[6:], Y[6:])])),
    ("fewer shards", lambda n, p: tuned(batch=20, shards=13), lambda n, p: tuned(batch=20, shards=4)),
    ("a run without --resume", lambda n, p: resumed(p / "a.checkpoint"),
     lambda n, p: tuned(checkpoint=p / "a.checkpoint")),
    ("checkpoint=, as in the run before", lambda n, p: tuned(resume=True), lambda n, p: resumed(interrupted(p))),
    ("the file that 'snnc tune' wrote", lambda n, p: resumed(spoilt(interrupted(p), format="other")),
     lambda n, p: resumed(interrupted(p))),
    ("what that run was given, or start anew", lambda n, p: resumed(interrupted(p), lr=0.5),
     lambda n, p: (resumed(interrupted(p)), tuned(lr=0.5, checkpoint=p / "b.checkpoint"))),
    ("start anew", lambda n, p: resumed(spoilt(interrupted(p), progress={"what": 1})),
     lambda n, p: tuned(checkpoint=p / "a.checkpoint")),
    ("a lower learning rate than {}", lambda n, p: tuned(lr=1e30), lambda n, p: tuned(lr=1e-3)),
    ("one with {}", lambda n, p: tuned(kind="quantised", recipe=snnc.Pipeline((PASSES["fold-batchnorm"](),))),
     lambda n, p: tuned(kind="quantised")),
    ("the .snn file of it", lambda n, p: tuned(start=snnc.load(snnc.save(n, p / "net.onnx"))),
     lambda n, p: tuned(start=snnc.load(snnc.save(n, p / "net.snn")))),
    ("1 or more", lambda n, p: snnc.report(n, (X, Y), path=p / "a", samples=0),
     lambda n, p: snnc.report(n, (X, Y), path=p / "a", samples=1)),
    ("a larger batch, more data, or norms 'none'", lambda n, p: tuned(batch=20, shards=12),
     lambda n, p: (tuned(batch=12), tuned(batch=20, shards=12, norms="none"))),
    ("one or more, such as ['best', 'telescoped']", lambda n, p: compiled_by([]),
     lambda n, p: compiled_by(["best", "telescoped"])),
]  # fmt: skip
