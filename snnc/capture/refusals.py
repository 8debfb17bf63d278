"""What is refused by name, why, and what to try: one row for each reason, and the names that it holds for.

What snnc learns to convert loses its name here; `tests/test_refusals.py` finds names that are in both places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from snnc.capture.values import Refused
from snnc.errors import Blocker
from snnc.ir.dialect import CONFIG
from snnc.ir.neurons import NEURONS
from snnc.ir.temporal import TIME


@dataclass(frozen=True)
class Reason:
    """Why an operation is refused.

    Attributes:
        why: one clause.
        hint: what to try.
        final: no other door can read it, so nothing is exported to find out.
        alike: its result has the same shape as its first input.
        neuron: the hint says to replace it by an activation.
        inner: it belongs inside a network, and so do the operations before it.
        parts: operations that follow it belong to it, and are not listed as blockers of their own.
    """

    why: str
    hint: str
    final: bool = True
    alike: bool = False
    neuron: bool = False
    inner: bool = True
    parts: frozenset[str] = frozenset()

    def refused(self) -> Refused:
        """The exception that says so."""
        return Refused(self.why, self.hint, reason=self)


ACTIVATION = Reason(
    "is an activation that snnc does not know",
    "replace it by one that it knows, such as nn.GELU, and train again",
    alike=True,
    neuron=True,
)
STATISTICS = Reason(
    "normalises in a way that snnc does not know",
    "use one of the normalisations of torch.nn, and train again",
    alike=True,
)
PRODUCT = Reason(
    "multiplies values in a way that snnc does not know",
    "write it with matmul, nn.MultiheadAttention or nn.TransformerEncoder",
)
LOOKED_UP = Reason(
    "looks vectors up by whole numbers, and spikes tell amounts",
    "capture what comes behind it, with the vectors as input",
)
STATE = Reason(
    "carries a state through time of its own", "put convolutions over time (nn.Conv1d) in its place, and train again"
)
CURVED = Reason(
    "is a function that snnc does not know",
    "rewrite it with layers and functions that snnc knows",
    neuron=True,
)
ELEMENTWISE = Reason(CURVED.why, CURVED.hint, alike=True, neuron=True)
PICKED = Reason(
    "picks values by comparing them, which no spike rate does",
    "return the values themselves, and pick outside of the network",
    inner=False,
)
PLACES = Reason(
    "asks for the place of each maximum", "read the maxima alone, as values or with return_indices=False", inner=False
)
ASSIGNED = Reason(
    "writes into a part of a value",
    "compute the parts by themselves and join them with torch.cat; x = (x - mean) / std does all channels at once",
    alike=True,
)
RANDOM = Reason("is random at inference", "draw random numbers only where self.training is True, and call eval()")
QUANTISED = Reason(
    "computes with integers of a scale of its own",
    "import the float network that it was quantised from; snnc quantises itself",
    parts=frozenset({"dequantizelinear"}),
)
CONTROL = Reason("decides at run time what is computed", "export it with constant shapes and without loops")
SPIKING = Reason("belongs to a spiking network", "capture the network that it was compiled from", alike=True)
OTHER = Reason(
    "is not among the operations that snnc converts", "rewrite it with layers of torch.nn that snnc knows", final=False
)

# What is known of an operation that is refused for how it is spelled: it may be an activation's.
SPELLED = replace(OTHER, neuron=True)

_NAMES: dict[Reason, str] = {
    ACTIVATION: "thresholdedrelu shrink",
    STATISTICS: "crossmaplrn2d meanvariancenormalization",
    PRODUCT: "transformer transformerdecoder transformerdecoderlayer",
    LOOKED_UP: "embeddingbag",
    STATE: "rnn lstm gru rnncell lstmcell grucell",
    ELEMENTWISE: "ceil trunc frac fmod remainder",
    CURVED: "lppool globallppool xor",
    PICKED: """
        argmax argmin topk sort argsort median mode kthvalue hardmax nonzero onehot bincount nms nonmaxsuppression
        uniqueconsecutive unique unique2
    """,
    PLACES: "maxpool1dwithindices maxpool2dwithindices maxpool3dwithindices",
    ASSIGNED: """
        scatteradd indexadd maskedscatter scatterreduce
    """,
    SPIKING: " ".join(kind.__name__.lower() for kind in {*CONFIG, *NEURONS} if issubclass(kind, TIME)),
    RANDOM: """
        nativedropout bernoulli rand randn randlike randnlike randomnormal randomuniform randomnormallike
        randomuniformlike multinomial
    """,
    QUANTISED: """
        quantizelinear dequantizelinear dynamicquantizelinear qlinearconv qlinearmatmul convinteger matmulinteger
    """,
    CONTROL: """
        cond whileloop mapimpl loop scan
        sequenceconstruct sequenceat sequenceinsert splittosequence concatfromsequence optional
    """,
}
REASONS: dict[str, Reason] = {name: reason for reason, names in _NAMES.items() for name in names.split()}


def reason(name: str) -> Reason:
    """Why the operation or module called `name` is refused, and what to try."""
    return REASONS.get(key(name), OTHER)


def key(name: str) -> str:
    """A name as this table has it: torch and ONNX write the same one in several ways."""
    return name.replace("_", "").lower()


def no_network(model: Any) -> Blocker:
    """What to pass in the place of something that is no network."""
    why = f"is a {type(model).__name__}, and no network"
    if isinstance(model, type):
        return Blocker(
            "network", model.__name__, "is a class, and no network", f"one of its instances: {model.__name__}()"
        )
    if isinstance(model, (str, PathLike)):
        return Blocker("network", str(model), why, "snnc.files.load_model of it")
    if isinstance(model, Mapping):
        return Blocker(
            "network", "dict", why, "the module that has these weights, after module.load_state_dict(weights)"
        )
    return Blocker("network", type(model).__name__, why, "a trained nn.Module, an exported program or an ONNX model")
