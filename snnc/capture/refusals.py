"""What is refused by name, why, and what to try."""

from __future__ import annotations

Reason = tuple[str, str]

ACTIVATION: Reason = ("is an activation that no spike rate equals", "replace it by ReLU, and train again")
STATISTICS: Reason = (
    "normalises each sample by its own statistics",
    "use BatchNorm, whose statistics are constants, and train again",
)
PRODUCT: Reason = (
    "multiplies values that both depend on the input",
    "snnc converts networks of convolutions and linear layers",
)
LETTERS: Reason = (
    "sums products by a formula of letters, which snnc does not read",
    "write it with nn.Linear or a convolution, its weights constant",
)
STATE: Reason = ("carries a state through time of its own", "snnc converts feed-forward networks")
CURVED: Reason = ("is not linear, and no neuron computes it", "rewrite it with ReLU and linear layers, and train again")
PLACES: Reason = ("asks for the place of each maximum", "read the maxima alone, as values or with return_indices=False")
RANDOM: Reason = ("is random at inference", "call eval() before capture, and pass training=self.training")
QUANTISED: Reason = (
    "computes with integers of a scale of their own",
    "import the float network that it was quantised from; snnc quantises itself",
)
CONTROL: Reason = ("decides at run time what is computed", "export it with constant shapes and without loops")
SPIKING: Reason = ("belongs to a spiking network", "capture the network that it was compiled from")
OTHER: Reason = ("is not among the operations that snnc converts", "rewrite it with layers of torch.nn that snnc knows")

_NAMES: dict[Reason, str] = {
    ACTIVATION: """
        leakyrelu prelu rrelu elu celu selu gelu silu mish hardswish hardsigmoid sigmoid logsigmoid tanh hardshrink
        softplus softsign softshrink tanhshrink glu erf expit thresholdedrelu shrink swish
    """,
    STATISTICS: """
        layernorm groupnorm instancenorm instancenorm1d instancenorm2d instancenorm3d localresponsenorm rmsnorm
        normalize crossmaplrn2d nativelayernorm nativegroupnorm layernormalization groupnormalization lrn
        instancenormalization meanvariancenormalization lpnormalization rmsnormalization
    """,
    PRODUCT: """
        multiheadattention transformer transformerencoder transformerencoderlayer transformerdecoder bmm bilinear
        transformerdecoderlayer scaleddotproductattention baddbmm attention
    """,
    LETTERS: "einsum",
    STATE: "rnn lstm gru rnncell lstmcell grucell",
    CURVED: """
        abs sign exp log sqrt rsqrt reciprocal pow square sin cos std var norm where ceil trunc frac fmod remainder
        prod min argmax topk sort cumsum median amin logsumexp
        reduceprod reducemin reducel1 reducel2 reducelogsumexp reducelogsum reducesumsquare ceil hardmax
        lppool globallppool equal less greater lessorequal greaterorequal not and or xor nonzero cumsum
    """,
    PLACES: "maxpool1dwithindices maxpool2dwithindices maxpool3dwithindices",
    SPIKING: "if offsetif signedif delayedif encode decode runningmax gatedmax stepmax",
    RANDOM: """
        nativedropout bernoulli rand randn randlike randnlike randomnormal randomuniform randomnormallike
        randomuniformlike multinomial
    """,
    QUANTISED: """
        quantizelinear dequantizelinear dynamicquantizelinear qlinearconv qlinearmatmul convinteger matmulinteger
    """,
    CONTROL: "loop scan sequenceconstruct sequenceat sequenceinsert splittosequence concatfromsequence optional",
}
_REASONS = {name: reason for reason, names in _NAMES.items() for name in names.split()}


def reason(name: str) -> Reason:
    """Why the operation or module called `name` is refused, and what to try."""
    return _REASONS.get(_key(name), OTHER)


def keeps_shape(name: str) -> bool:
    """True for what may be skipped while the rest is looked at: its output is shaped like its input."""
    return reason(name) in (ACTIVATION, STATISTICS)


def _key(name: str) -> str:
    return name.replace("_", "").lower()
