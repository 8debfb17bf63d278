"""ONNX's own attention and rotary positions, which torch's exporter writes from opset 23 on, against onnxruntime."""

import numpy as np
import pytest
import torch

from snnc.capture import blockers, capture
from tests.onnx_models import dyadic, model, reference

SEEN = np.tril(np.ones((6, 6), bool))[::-1].copy() | np.eye(6, dtype=bool)
BIAS = dyadic(1, 4, 6, 6)
ANGLES = (np.arange(8)[:, None] * np.float32([1.0, 0.25])).astype(np.float32)
TURNS = {"c": np.cos(ANGLES), "s": np.sin(ANGLES), "i": np.arange(6, dtype=np.int64)[None]}
JOINED = {"x": "N,6,16"}
PARTED = {"x": "N,4,6,4"}
NOW = "a = Relu(x) "
# onnxruntime wants positions for each sample, and exporters spread them.
PLACES = "d = Shape<end=1>(x) l = Constant<value=int64[1] {6}>() z = Concat<axis=0>(d, l) p = Expand(i, z) "

TAKEN = {
    "joined": ("y = Attention<q_num_heads=4, kv_num_heads=4>(a, a, x)", JOINED),
    "parted": ("y = Attention(a, x, a)", PARTED),
    "causal": ("y = Attention<q_num_heads=4, kv_num_heads=4, is_causal=1>(a, a, x)", JOINED),
    "scaled": ("y = Attention<scale=0.3>(a, x, a)", PARTED),
    "truth": ("y = Attention(a, x, a, m)", {**PARTED, "m": SEEN}),
    "truth and causal": ("y = Attention<is_causal=1>(a, x, a, m)", {**PARTED, "m": SEEN}),
    "numbers": ("y = Attention(a, x, a, m)", {**PARTED, "m": BIAS}),
    "numbers and causal": ("y = Attention<is_causal=1>(a, x, a, m)", {**PARTED, "m": BIAS}),
    "few keys": (
        "k, b = Split<axis=1, num_outputs=2>(a) y = Attention(a, k, b)", PARTED,
    ),
    "precision": ("y = Attention<softmax_precision=1>(a, x, a)", PARTED),
    "rotary": ("t = RotaryEmbedding(a, c, s, p) y = Sub(t, h)", {**PARTED, **TURNS}),
    "rotary in pairs": ("t = RotaryEmbedding<interleaved=1>(a, c, s, p) y = Sub(t, h)", {**PARTED, **TURNS}),
    "rotary of joined heads": (
        "t = RotaryEmbedding<num_heads=4, interleaved=1>(a, c, s, p) y = Sub(t, h)", {**JOINED, **TURNS},
    ),
    "rotary of a part": (
        "t = RotaryEmbedding<rotary_embedding_dim=4>(a, c, s, p) y = Sub(t, h)", {"x": "N,2,6,8", **TURNS},
    ),
}  # fmt: skip


def made(body, options):
    half = "h = Constant<value=float {0.5}>() "
    return model(
        (half if "h)" in body else "") + NOW + (PLACES if "p)" in body else "") + body, **{"opset": 23, **options}
    )


@pytest.mark.parametrize(("body", "options"), TAKEN.values(), ids=TAKEN)
def test_what_exporters_write_is_taken(body, options):
    proto = made(body, options)
    graph, x = capture(proto), dyadic(3, *[int(n) for n in options["x"].split(",")[1:]], seed=1)
    with torch.no_grad():
        have = graph(torch.tensor(x)).numpy()
    np.testing.assert_allclose(have, reference(proto, x), rtol=1e-5, atol=1e-6)


REFUSED = {
    "capped": ("y = Attention<softcap=2.0>(a, x, a)", PARTED, "caps"),
    "a cache": ("y = Attention(a, x, a, , x, x)", PARTED, "earlier calls"),
    "heads that do not fit": ("y = Attention<q_num_heads=3, kv_num_heads=3>(a, a, x)", JOINED, "3 heads"),
    "no heads": ("y = Attention(a, a, x)", JOINED, "0 heads"),
    "nothing seen": ("y = Attention(a, x, a, m)", {**PARTED, "m": np.tril(np.ones((6, 6), bool), -1)}, "every value"),
    "positions of samples": (
        "t = RotaryEmbedding(a, c, s, i) y = Sub(t, h)", {**PARTED, **TURNS, "i": np.int64([[0] * 6, [1] * 6])}, "own",
    ),
    "angles that do not fit": (
        "t = RotaryEmbedding(a, c, s) y = Sub(t, h)", {**PARTED, **{k: TURNS[k][None] for k in "cs"}}, "angles",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "options", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_attention_of_constants_is_refused(body, options, says):
    (found,) = blockers(made(body, options))
    assert found.op in ("Attention", "RotaryEmbedding")
    assert says in f"{found.why} {found.hint}"
