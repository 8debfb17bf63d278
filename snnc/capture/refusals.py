"""What is refused by name, why, and what to try: one row for each reason, and the names that it holds for.

What snnc learns to convert loses its name here; `tests/test_refusals.py` finds names that are in both places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from snnc.capture.values import Refused
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
        alike: its result has the shape of its first input.
        neuron: what to try puts an activation in its place.
        inner: it belongs inside a network, so what stands before it does too.
        parts: what its result then goes through belongs to it, and is no blocker of its own.
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
    "is an activation that no spike rate equals", "replace it by ReLU, and train again", alike=True, neuron=True
)
HALVES = Reason(
    "multiplies one half of its channels by a gate made of the other",
    "give the layer before it half as many channels, put ReLU in its place, and train again",
    neuron=True,
)
STATISTICS = Reason(
    "normalises each sample by its own statistics",
    "use BatchNorm, whose statistics are constants, and train again",
    alike=True,
)
# What a normalisation does with a sample's length or deviation before it has divided by it.
_SCALED = frozenset(
    {"add", "clamp", "clampmin", "clip", "max", "maximum", "sqrt", "rsqrt", "pow", "reciprocal", "expand", "expandas"}
    | {"unsqueeze", "squeeze", "cast", "identity", "div", "divide", "truediv", "mul", "multiply"}
)
LENGTH = Reason(
    "divides each sample by its own length",
    "where it comes last, return what it is given and normalise that outside; elsewhere use BatchNorm, and train again",
    alike=True,
)
NORM = replace(LENGTH, alike=False, parts=_SCALED)
DEVIATION = replace(STATISTICS, alike=False, parts=_SCALED)
PRODUCT = Reason(
    "multiplies values that both depend on the input",
    "take it out, be it a gate, attention or squeeze-and-excitation, put layers of constant weights in its place, and "
    "train again",
)
LETTERS = Reason(
    "sums products by a formula of letters, which snnc does not read",
    "write it with nn.Linear or a convolution, its weights constant",
)
LOOKED_UP = Reason(
    "looks vectors up by whole numbers, and spikes tell amounts",
    "capture what comes behind it, with the vectors as input",
)
STATE = Reason(
    "carries a state through time of its own", "put convolutions over time (nn.Conv1d) in its place, and train again"
)
GATED = Reason(
    "multiplies a value by a function of itself, as hard swish, SiLU and GELU do",
    "replace that activation by ReLU, and train again",
    alike=True,
    neuron=True,
)
CURVED = Reason(
    "is not linear, and no neuron computes it",
    "rewrite it with ReLU and linear layers, and train again",
    neuron=True,
)
ELEMENTWISE = Reason(CURVED.why, CURVED.hint, alike=True, neuron=True)
PICKED = Reason(
    "picks values by comparing them, which no spike rate does",
    "return the values themselves, and pick outside of the network",
    inner=False,
)
COMPARED = Reason(
    "compares values, and no spike rate is a truth value",
    "clip with ReLU or clamp; where it comes last, return the values themselves",
    alike=True,
    neuron=True,
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
    ACTIVATION: """
        leakyrelu prelu rrelu elu celu selu gelu silu mish hardswish hardsigmoid sigmoid logsigmoid tanh hardshrink
        softplus softsign softshrink tanhshrink erf expit thresholdedrelu shrink swish
    """,
    HALVES: "glu",
    STATISTICS: """
        layernorm groupnorm instancenorm instancenorm1d instancenorm2d instancenorm3d localresponsenorm rmsnorm
        crossmaplrn2d nativelayernorm nativegroupnorm layernormalization groupnormalization lrn
        instancenormalization meanvariancenormalization rmsnormalization fusedrmsnorm
    """,
    LENGTH: "normalize lpnormalization",
    NORM: "norm vectornorm linalgnorm linalgvectornorm reducel1 reducel2 reducesumsquare",
    DEVIATION: "std var stdmean varmean",
    PRODUCT: """
        multiheadattention transformer transformerencoder transformerencoderlayer transformerdecoder bmm bilinear
        transformerdecoderlayer scaleddotproductattention baddbmm attention cosinesimilarity cdist
        scaleddotproductflashattention scaleddotproductflashattentionforcpu scaleddotproductattentionmath
    """,
    LETTERS: "einsum",
    LOOKED_UP: "embedding embeddingbag",
    STATE: "rnn lstm gru rnncell lstmcell grucell",
    ELEMENTWISE: "abs sign exp log sqrt rsqrt reciprocal pow square sin cos ceil trunc frac fmod remainder",
    CURVED: """
        where prod amin logsumexp reduceprod reducemin reducelogsumexp reducelogsum
        lppool globallppool and or xor not
    """,
    PICKED: """
        argmax argmin topk sort argsort median mode kthvalue hardmax nonzero onehot bincount nms nonmaxsuppression
        uniqueconsecutive unique unique2
    """,
    COMPARED: "equal eq ne lt gt le ge less greater lessequal greaterequal lessorequal greaterorequal isnan isinf",
    PLACES: "maxpool1dwithindices maxpool2dwithindices maxpool3dwithindices",
    ASSIGNED: """
        setitem slicescatter selectscatter indexput scatter scatteradd indexcopy indexfill indexadd maskedfill
        maskedscatter copy scatternd scatterelements
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
