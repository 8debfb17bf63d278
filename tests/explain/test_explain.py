"""Where the error comes from: the split must add up, and must find the cause that was put in."""

import copy
import json
import re
import types

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc import recipes
from snnc.cli import main
from snnc.cli.options import Setting
from snnc.errors import DataError, SnncError
from snnc.explain.cures import advice, command, cure
from snnc.explain.report import Cause, summary
from snnc.explain.sides import Perturbed, matched, observed
from snnc.explain.terms import OWN, TERMS, split
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import calls
from snnc.ir.neurons import IF, GradedIF, OffsetIF
from snnc.networks.network import Network
from snnc.passes import (
    AverageInput,
    CalibrateOffset,
    DelayReadout,
    MaskResidual,
    UseGradedNeurons,
    UseSignedNeurons,
    WaitForInput,
)
from tests.nets import NETS, quantized, sample, spiking

# currents, N*, and the spikes of an IF neuron: theta = 1, v0 = 1/2
VECTORS = {
    "V1": ([2, -2, 2, -2, 2], 2, [1, 0, 1, 0, 0]),
    "V2": ([2, 2, 2, -2, -2], 2, [1, 1, 1, 1, 0]),
    "V7": ([3, -3.25, 0, 0], 0, [1, 0, 0, 0]),
    "V10": ([2, 2, 2, 2], 4, [1, 1, 1, 1]),
    "V11": ([-2, -2, 3, 3], 2, [0, 0, 0, 1]),
}


def one(currents, top=None, a=0.0, neuron=None):
    """The split of a single neuron, theta = 1 and v0 = 1/2."""
    T = len(currents)
    neuron = neuron or IF(T, torch.tensor(1.0), torch.tensor(0.5))
    x = torch.tensor(currents)[:, None]
    out = neuron(x)
    return split(neuron, nn.ReLU(), x.sum(0, keepdim=True), out.sum(0, keepdim=True), torch.tensor([[a]]), T), out


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors(name):
    currents, even, spikes = VECTORS[name]
    found, out = one([float(c) for c in currents])
    assert out.flatten().tolist() == spikes
    assert found.excess.item() == sum(spikes) - even
    assert found.terms["unevenness"].item() == (sum(spikes) - even) / len(currents)


def values(found):
    return {name: error.item() for name, error in found.terms.items()}


def test_only_unevenness():
    """As V2 and V11: the mean current is a level, and its order makes spikes too many or too few."""
    found, _ = one([1.0, 0.0, 0.0, 1.0], a=0.5)
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0, "unevenness": 0}
    found, _ = one([2.0, 2.0, -1.0, -1.0], a=0.5)
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0, "unevenness": 0.25}
    found, _ = one([2.0, 2.0, -2.0, -2.0], a=0.0)
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0, "unevenness": 0.5}
    found, _ = one([-2.0, -2.0, 3.0, 3.0], a=0.5)
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0, "unevenness": -0.25}


def test_only_quantisation():
    found, _ = one([0.4375] * 4, a=0.4375)
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0.0625, "unevenness": 0}
    found, _ = one([0.125] * 4, a=0.125)  # half a level already fires
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0.125, "unevenness": 0}


def test_only_clipping():
    found, _ = one([1.75] * 4, a=1.75)
    assert values(found) == {"inherited": 0, "clipping": -0.75, "quantisation": 0, "unevenness": 0}
    assert found.clipped.all()


def test_only_inherited():
    found, _ = one([0.5] * 4, a=0.25)
    assert values(found) == {"inherited": 0.25, "clipping": 0, "quantisation": 0, "unevenness": 0}


def test_a_neuron_that_emits_more_than_theta_says_so():
    neuron = GradedIF(4, torch.tensor(0.5), torch.tensor(0.25), bits=2)
    found, out = one([1.25] * 4, a=1.25, neuron=neuron)
    assert out.sum() == 5
    assert values(found) == {"inherited": 0, "clipping": 0, "quantisation": 0, "unevenness": 0}
    found, _ = one([2.0] * 4, a=2.0, neuron=neuron)
    assert values(found) == {"inherited": 0, "clipping": -0.5, "quantisation": 0, "unevenness": 0}


def test_the_bound_of_the_ann_is_no_clipping():
    """A ReLU6 that is saturated loses nothing at theta = 6; nor does a trained quantiser at T = L."""
    x = torch.full((1, 1), 64.0)
    neuron = IF(8, torch.tensor(6.0), torch.tensor(3.0))
    found = split(neuron, nn.Hardtanh(0.0, 6.0), x, torch.full((1, 1), 48.0), torch.full((1, 1), 6.0), 8)
    assert set(values(found).values()) == {0.0}
    neuron = IF(4, torch.tensor(1.0), torch.tensor(0.5))
    act = ClipQuant(torch.tensor(1.0), 4)
    x = torch.full((1, 1), 4 * 0.4375)
    found = split(neuron, act, x, torch.full((1, 1), 2.0), act(x / 4), 4)
    assert set(values(found).values()) == {0.0}


# ---- whole networks


def network(name, **options):
    graph, shape = spiking(name, **options)
    ann, _ = NETS[name]()
    return Network(graph, {}), ann.requires_grad_(False), shape


MODELS = {
    "if": (None, 1),
    "offset": (CalibrateOffset(rho=2), 1),
    "graded": (UseGradedNeurons(bits=2), 3),
    "signed": (UseSignedNeurons(), 1),
    "waiting": (WaitForInput(wait=1), 1),
    "average": (AverageInput(), 1),
    "masked": (MaskResidual(tau=2), 1),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", NETS)
def test_terms_add_up_exactly(name, model):
    """Dyadic numbers, T = 4: every term is exact, so the sum is the error itself."""
    then, units = MODELS[model]
    net, ann, shape = network(name, T=4, then=then, units=units)
    x = sample(shape, 8)
    _, seen = observed(net, x)
    plain = Perturbed(ann, {})
    plain.run(x)
    for site_name, site in matched(net, ann).items():
        neuron = dict(net.neurons())[site_name]
        a, layer = plain.env[site], seen[site_name]
        found = split(neuron, ann.get_submodule(site.target), layer.current, layer.output, a, 4)
        assert torch.equal(found.total, layer.output / 4 - a.double()), site_name
        assert found.terms["clipping"].max() <= 0
        assert found.excess.count_nonzero() == 0 or model != "average"


@pytest.mark.parametrize("name", NETS)
def test_all_own_errors_make_the_spiking_network_out_of_the_ann(name):
    """By induction over the layers: with every layer's own error put in, the ANN computes what the SNN does."""
    net, ann, shape = network(name, T=4)
    x = sample(shape, 8)
    output, seen = observed(net, x)
    plain = Perturbed(ann, {})
    plain.run(x)
    errors = {}
    for site_name, site in matched(net, ann).items():
        neuron, layer = dict(net.neurons())[site_name], seen[site_name]
        activation = ann.get_submodule(site.target)
        errors[site] = split(neuron, activation, layer.current, layer.output, plain.env[site], 4).own
    assert not torch.equal(plain.env[next(iter(reversed(ann.graph.nodes)))], output)
    assert torch.equal(Perturbed(ann, errors).run(x), output)


def test_the_report_against_a_plain_computation():
    net, ann, shape = network("mlp", T=4)
    x, y = sample(shape, 30), torch.arange(30) % 4
    found = snnc.explain(net, ann, [(x[:7], y[:7]), (x[7:], y[7:])])
    values = {}
    net.readout(x, observe=lambda node, value, steps: values.setdefault(node.name, []).append(value))
    phi = torch.cat(values["relu2"]).reshape(4, 30, -1).double().mean(0)
    plain = Perturbed(ann, {})
    wanted = plain.run(x)
    a = next(v for n, v in plain.env.items() if n.name == "relu2").double()
    layer = found.layers[1]
    assert layer.name == "relu2"
    assert layer.total.mean == pytest.approx(float((phi - a).mean()), abs=1e-12)
    assert layer.total.rms == pytest.approx(float((phi - a).square().mean().sqrt()), rel=1e-12)
    assert layer.total.relative == pytest.approx(100 * layer.total.rms / float(a.square().mean().sqrt()), rel=1e-12)
    assert sum(layer.terms[name].mean for name in TERMS) == pytest.approx(layer.total.mean, abs=1e-12)
    assert sum(layer.terms[name].share for name in TERMS) == pytest.approx(100)
    assert layer.rate == float((phi * 0 + (torch.cat(values["relu2"]) != 0).reshape(4, 30, -1).double().mean(0)).mean())
    assert layer.dead == 100 * float((phi.sum(0) == 0).double().mean())
    assert layer.silenced == 100 * float(((phi.sum(0) == 0) & (a.sum(0) > 0)).double().mean())
    assert found.agreement == pytest.approx(100 * float((net(x).argmax(1) == wanted.argmax(1)).double().mean()))
    assert found.accuracy == pytest.approx(100 * float((net(x).argmax(1) == y).double().mean()))
    assert found.ann_accuracy == pytest.approx(100 * float((wanted.argmax(1) == y).double().mean()))


def test_neither_batches_nor_chunks_change_what_is_found():
    """In float64: float32 adds up in an order that depends on how many samples there are."""
    net, ann, shape = network("residual", T=4)
    net, ann, x = net.double(), ann.double(), sample(shape, 12).double()
    whole = snnc.explain(net, ann, [x])
    net.chunk = 4
    parts = snnc.explain(net, ann, list(x.split(5)))
    assert parts.layers[2].over == whole.layers[2].over
    assert parts.layers[2].total.mean == pytest.approx(whole.layers[2].total.mean, rel=1e-12)
    assert parts.logit_error == pytest.approx(whole.logit_error, rel=1e-12)
    assert parts.layers[0].logit_share == pytest.approx(whole.layers[0].logit_share, rel=1e-12)


def test_one_layer_explains_all_of_the_output():
    """Behind a single activation the network is linear, so the shares add up."""
    net, ann, shape = network("single", T=4)
    found = snnc.explain(net, ann, sample(shape, 20))
    assert found.layers[0].logit_share == pytest.approx(100)
    assert sum(found.causes[name].logit_share for name in OWN) == pytest.approx(100)
    assert found.layers[0].terms["inherited"].rms == 0
    assert found.layers[0].source is None
    assert found.accuracy is None
    assert f"'{found.layers[0].name}'" in found.summary


def test_a_network_without_error_has_none_to_explain():
    graph, shape = quantized("trained")
    net, _, _ = network("trained", T=4)
    # constant currents: both rounding and floor are exact at T = L in the first layer
    found = snnc.explain(net, graph, sample(shape, 4))
    assert found.layers[0].cause == "none"
    assert found.layers[0].total.rms == 0
    assert found.layers[0].change == "-"
    assert found.layers[1].cause == "unevenness"


def test_inherited_error_names_where_to_look():
    net, ann, shape = network("mlp", T=4)
    layer = snnc.explain(net, ann, sample(shape, 30)).layers[1]
    assert layer.terms["inherited"].rms > layer.own.rms
    assert layer.source == "relu1"


def test_no_error_is_blamed_where_each_makes_up_for_another():
    """Sums of layers whose errors a calibration has set off against each other: no share says anything."""
    layer = types.SimpleNamespace(name="fc", logit_share=-3.0, agreement=99.0, cause="unevenness")
    causes = {name: Cause(share, 99.0) for name, share in (("clipping", -5.0), ("unevenness", -1.0))}
    assert "by itself" in summary([layer], causes, 1.0, (), {})
    assert "-1 %" not in summary([layer], causes, 1.0, (), {})
    causes["unevenness"] = Cause(40.0, 99.0)
    assert "by itself" in summary([layer], causes, 1.0, (), {})
    layer.logit_share = 30.0
    assert "unevenness does most" in summary([layer], causes, 1.0, (), {})


def test_calibrated_layers_are_told_against_what_they_aimed_at():
    """Shares of the output's error do not apply there, and the change of weights is no other network."""
    net, ann, shape = network("mlp", T=4)
    x = sample(shape, 64)
    net = snnc.compile(ann, 4, "best", x, quick=True)
    found = snnc.explain(net, ann, x)
    assert found.calibrated
    assert (found.causes, {layer.logit_share for layer in found.layers}) == ({}, {None})
    worst = max(found.layers, key=lambda layer: layer.total.relative)
    assert f"'{worst.name}' is off the furthest: by {worst.total.relative:.1f} %" in found.summary
    assert "another network" not in " ".join(found.notes)
    assert "snnc compile MODEL --calib DATA --recipe best" in found.summary or "Nothing is lost" in found.summary
    strange = copy.deepcopy(ann)
    strange.get_submodule("fc1").weight.data.neg_()
    assert "another network" in " ".join(snnc.explain(net, strange, x).notes)


def test_nothing_is_advised_where_nothing_is_lost():
    net, ann, shape = network("mlp", T=4)
    x = sample(shape, 64)
    same = net(x).argmax(1) == ann(x).argmax(1)
    found = snnc.explain(net, ann, x[same])
    assert found.agreement == 100
    assert "Nothing is lost" in found.summary
    assert {layer.change for layer in found.layers} == {"-"}


@pytest.mark.parametrize(
    ("info", "told", "line"),
    [
        ({"recipe": "opi", "T": 4}, "more (--T 8), or (--recipe x)", "snnc compile MODEL --recipe opi --T 8"),
        (
            {"recipe": "opi, 6 bits", "T": 4, "calibration_samples": 9}, "larger (--set a-b.c=1.2, or --set d.e=max)",
            "snnc compile MODEL --calib DATA --recipe opi --T 4 --set a-b.c=1.2 --fixed-point 6",
        ),
        ({"recipe": "opi, changed", "T": 2}, "x (--T 4)", "snnc compile MODEL --recipe RECIPE.toml --T 4"),
        ({"recipe": "qcfs", "T": 2}, "x (--recipe cos), or", "snnc compile MODEL --calib DATA --recipe cos --T 2"),
    ],
)  # fmt: skip
def test_advice_is_a_command(info, told, line):
    assert command(info, told) == line


def test_steps_that_are_only_simulated_are_left_out():
    """rho = 4 at T = 1: four steps run, and one is read."""
    net, ann, shape = network("mlp", T=1, cos=CalibrateOffset(rho=4))
    assert all(isinstance(n, OffsetIF) and n.T == 4 for _, n in net.neurons())
    found = snnc.explain(net, ann, sample(shape, 16))
    _, seen = observed(net, sample(shape, 16))
    assert found.T == 1
    assert all(set(layer.output.unique().tolist()) <= {0.0, 0.5, 1.0, 2.0, 4.0} for layer in seen.values())
    assert all(layer.spikes.max() == 1 for layer in seen.values())
    assert "calibrated on each sample" in found.notes[0]
    worst = max(found.causes, key=lambda name: found.causes[name].logit_share)
    assert cure(worst, (), 1) in found.summary  # it was made by hand, and its record names no pass
    assert all(layer.change == advice(layer.cause, net.neurons()[0][1], ()) for layer in found.layers)


def test_a_first_pass_is_left_out():
    """SRP runs tau steps, starts anew, and reads T: the current of the first layer is constant, so S = T z."""
    net, ann, shape = network("mlp", T=4, then=MaskResidual(tau=2))
    x = sample(shape, 16)
    _, seen = observed(net, x)
    plain = Perturbed(ann, {})
    plain.run(x)
    z = next(value for node, value in plain.env.items() if node.name == "fc1")
    assert torch.equal(seen["relu1"].current, 4 * z.double())
    assert seen["relu1"].spikes.max() == 4


def test_a_delayed_readout_is_remarked_upon():
    """It changes the output alone: layers spike as before, and are told over all steps."""
    net, ann, shape = network("mlp", T=4)
    late, _, _ = network("mlp", T=4, then=DelayReadout(share=0.5))
    x = sample(shape, 16)
    plain, delayed = (snnc.explain(one, ann, x) for one in (net, late))
    assert [layer.total for layer in delayed.layers] == [layer.total for layer in plain.layers]
    assert [layer.terms for layer in delayed.layers] == [layer.terms for layer in plain.layers]
    reference = ann(x)
    wrong = late.readout(x)[-1] - reference
    by_hand, scale = (v - v.mean(1, keepdim=True) for v in (wrong.double(), reference.double()))
    assert delayed.logit_error == pytest.approx(100 * float(by_hand.norm() / scale.norm()), rel=1e-6)
    assert delayed.logit_error != plain.logit_error
    assert "leaves out the first 2 steps" in delayed.notes[0]
    assert "leaves out" not in " ".join(plain.notes)


@pytest.mark.parametrize("name", recipes.names())
def test_what_is_advised_is_accepted(name):
    """The options that are named are those of the passes that made the network, and each change compiles."""
    body, shape = NETS["trained" if name == "qcfs" else "mlp"]()
    start, x = snnc.recipe(name), torch.rand(8, *shape)

    def compiled(recipe, T=2):
        return snnc.compile(body, T=T, recipe=recipe, calibration=x)

    net = compiled(start)
    passes = {record["name"] for record in net.info["records"] if record["sites"]}
    neurons = {type(neuron): neuron for _, neuron in net.neurons()}.values()
    told = [cure(cause, passes, 2) for cause in OWN]
    told += [advice(cause, neuron, passes) for neuron in neurons for cause in OWN]
    for option, _, value in (text.partition("=") for text in set(re.findall(r"--set ([\w.=-]+\w)", " ".join(told)))):
        one, field = option.split(".")
        compiled(start.pipeline.set(one, **{field: Setting().convert(f"{one}.{field}={value}", None, None)[2]}))
    for other in set(re.findall(r"--recipe ([\w-]+)", " ".join(told))) - {name}:
        compiled(other)
    for one, field in set(re.findall(r"^([a-z-]+)\.(\w+)$", "\n".join(told), re.MULTILINE)):
        assert field in next(p for p in start.pipeline if p.name == one).options
    assert all(re.search(r"--T|--set|--recipe|^[a-z-]+\.\w+$", text) for text in told)
    assert advice("none", next(iter(neurons)), passes) == "-"


def test_maps_have_no_classes():
    net, ann, shape = network("decoder", T=4)
    found = snnc.explain(net, ann, sample(shape, 4))
    assert found.agreement is None
    assert found.layers[0].agreement is None
    assert found.logit_error > 0


def test_the_ann_must_be_the_one():
    net, _, shape = network("mlp", T=4)
    conv, _ = NETS["residual"]()
    single, _ = NETS["single"]()
    with pytest.raises(SnncError, match="its activation 'relu0' has no neurons"):
        snnc.explain(net, conv, sample(shape))
    with pytest.raises(SnncError, match="no activation 'relu2'"):
        snnc.explain(net, single, sample(shape))
    wide, _ = NETS["mlp"]()
    wide.fc1, wide.fc2 = nn.Linear(6, 9), nn.Linear(9, 8)
    with pytest.raises(SnncError, match="'relu1' has another shape"):
        snnc.explain(net, wide.eval(), sample(shape))


def test_other_weights_are_noticed():
    net, ann, shape = network("mlp", T=4)
    assert "another network" not in " ".join(snnc.explain(net, ann, sample(shape)).notes)
    next(m for _, m in calls(ann, nn.Linear)).weight.data.mul_(1.25)
    assert "another network" in snnc.explain(net, ann, sample(shape)).notes[0]


def test_units_must_agree():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    pipeline = snnc.recipe("opi").pipeline.insert(snnc.PASSES["normalize-thresholds"](), before="insert-neurons")
    net = snnc.compile(model, 2, pipeline, torch.randn(32, 4))
    with pytest.raises(SnncError, match="different units"):
        snnc.explain(net, model, torch.randn(4, 4))


def test_data_that_cannot_be_used():
    net, ann, shape = network("mlp", T=4)
    with pytest.raises(DataError, match="no batches"):
        snnc.explain(net, ann, [])
    with pytest.raises(DataError, match="A label is 9"):
        snnc.explain(net, ann, [(sample(shape), torch.full((4,), 9))])
    with pytest.raises(DataError, match="does not go through"):
        snnc.explain(net, ann, torch.zeros(2, 5))


def test_a_model_in_float64_is_taken():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    net = snnc.compile(model, 4, "opi", torch.randn(64, 4))
    assert snnc.explain(net, model, torch.randn(16, 4)).layers[0].terms["inherited"].relative < 1e-4


@pytest.mark.parametrize("name", [name for name in recipes.names() if name != "qcfs"])
def test_every_recipe_can_be_explained(name):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = torch.randn(64, 1, 8, 8)
    pipeline = snnc.recipe(name).pipeline
    for one in pipeline:
        if one.name in ("encode-input", "expand-input"):  # the ANN has no such layer
            pipeline = pipeline.remove(one.name)
    found = snnc.explain(snnc.compile(model, 2, pipeline, x), model, x)
    (layer,) = found.layers
    assert sum(layer.terms[term].mean for term in TERMS) == pytest.approx(layer.total.mean, abs=1e-12)
    # One layer of constant current: whatever the neuron, only a calibration on the sample moves it from N*.
    assert layer.terms["unevenness"].rms == 0 or name in ("cos", "srp")


# ---- the command


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()  # fmt: skip
    torch.save(model, "ann.pt")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), "other.pt")
    x = np.random.default_rng(0).standard_normal((40, 1, 8, 8)).astype("float32")
    np.savez("data.npz", x=x, y=model(torch.from_numpy(x)).argmax(1).numpy())
    np.savez("unlabelled.npz", x=x)
    snnc.save(snnc.compile(model, 4, "opi", torch.from_numpy(x)), "net.snn")
    return x


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


def test_the_command_says_it_all(files, monkeypatch):
    monkeypatch.setattr("snnc.cli.show.out.width", 200, raising=False)
    said = run("explain", "net.snn", "--ann", "ann.pt", "--data", "data.npz").stdout
    assert "ANN: 100.00 %" in said
    for word in (*TERMS, "too many spikes", "Nothing is lost", "Samples: 40"):
        assert word in said
    content = json.loads(run("explain", "net.snn", "--ann", "ann.pt", "--data", "data.npz", "--json").stdout)
    found = snnc.explain(snnc.load("net.snn"), ann(), files)
    assert content["layers"] == found.to_dict()["layers"]
    assert len(content["layers"]) == 2


def ann():
    from snnc.files import load_model

    return load_model("ann.pt")


@pytest.mark.usefixtures("files")
def test_the_command_needs_no_labels():
    content = json.loads(
        run("explain", "net.snn", "--ann", "ann.pt", "--data", "unlabelled.npz", "--samples", 10, "--json").stdout
    )
    assert content["accuracy"] is None
    assert content["samples"] == 10
    assert content["agreement"] is not None


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("command", "code", "wanted"),
    [
        ("explain net.snn --data data.npz", 2, "Give --ann"),
        ("explain net.snn --ann ann.pt", 2, "--data"),
        ("explain net.snn --ann other.pt --data data.npz", 1, "not the one that was compiled"),
        ("explain net.snn --ann net.snn --data data.npz", 1, "spiking network already"),
        ("explain ann.pt --ann ann.pt --data data.npz", 1, "not a compiled network"),
        ("explain net.snn --ann ann.pt --data nothing.npz", 1, "nothing.npz does not exist"),
        ("explain net.pt2 --ann ann.pt --data data.npz", 1, "cannot be looked into"),
    ],
)
def test_the_command_fails_in_words(command, code, wanted):
    if "pt2" in command:
        snnc.save(snnc.load("net.snn"), "net.pt2")
    result = run(*command.split(), code=code)
    assert wanted in result.stderr
    assert result.stdout == ""
