"""What is refused by name, why, and what to try."""

from __future__ import annotations

Reason = tuple[str, str]

ACTIVATION: Reason = ("is an activation that snnc does not know", "replace it by one of torch.nn, and train again")
STATISTICS: Reason = (
    "normalises in a way that snnc does not know",
    "use one of the normalisations of torch.nn, and train again",
)
PRODUCT: Reason = (
    "multiplies values in a way that snnc does not know",
    "write it with matmul, nn.MultiheadAttention or nn.TransformerEncoder",
)
STATE: Reason = ("carries a state through time of its own", "snnc converts feed-forward networks")
CURVED: Reason = ("is a function that snnc does not know", "rewrite it with layers and functions that snnc knows")
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
    ACTIVATION: "thresholdedrelu shrink",
    STATISTICS: "crossmaplrn2d meanvariancenormalization",
    PRODUCT: "transformer transformerdecoder transformerdecoderlayer bilinear",
    STATE: "rnn lstm gru rnncell lstmcell grucell",
    CURVED: """
        prod ceil trunc frac fmod remainder argmax topk sort cumsum median reduceprod hardmax lppool globallppool
        nonzero xor
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
