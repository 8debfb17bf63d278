"""Files of safetensors, written by hand as the format has them."""

import json

import torch

NAMES = {torch.float32: "F32", torch.int64: "I64"}


def safetensors(weights, edit=None):
    """The bytes of such a file; `edit` may change its header in place."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, value in weights.items():
        raw = value.numpy().tobytes()
        place = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": place}
        data += raw
    if edit:
        edit(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
