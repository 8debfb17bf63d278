"""Functions of fixed-point files that hold counts of spikes in bytes, in ONNX's own text.

A neuron emits N(t) spikes up to step t. With U(t) its whole current up to then, v0 included, and
`level(t) = floor(U(t) / theta)`,

    N(t) = max(N(t-1) - down, min(N(t-1) + up, level(t))),    level no less than 0

where a step emits `up` spikes at most and takes back `down`: that is `IF` (1, 0), `GradedIF` (2^bits - 1, 0),
`SignedIF` (1, 1) and a rectified `BipolarIF` (units, units). A layer is linear, so it makes U out of the counts in
front of it. Values are `[T * B, ...]`, step after step, images with their channels last.
"""

from __future__ import annotations

import re
from string import Template

# The counts after a step, of those `before` it and its `level`. Bytes wrap around: so `less` never goes below zero.
RISES = """more = Add (before, up)
            least = Min (level, more)
            after = Max (before, least)"""
TURNS = """more = Add (before, up)
            least = Min (level, more)
            held = Max (before, down)
            less = Sub (held, down)
            after = Max (less, least)"""

_BYTES = """unit = Constant <value_float = 1.0> ()
        zero = Constant <value_int = 0> ()
        none = Cast <to = 2> (zero)
        rises = Constant <value_int: int = @up> ()
        up = Cast <to = 2> (rises)
        $turns"""
TAKES_BACK = """turns = Constant <value_int: int = @down> ()
        down = Cast <to = 2> (turns)"""

# The counts before the first step: `[B, ...]`, for the steps of a value and the shape of one sample.
_START = """first = Constant <value_ints = [1]> ()
        second = Constant <value_ints = [2]> ()
        sizes = Shape (steps)
        batch = Slice (sizes, first, second)
        sample = Constant <value_ints: ints = @sample> ()
        all = Concat <axis = 0> (batch, sample)
        start = Expand (none, all)"""

# One step of a layer and its neurons. onnxruntime leaves out a bias that is no constant if the zeros are constants, so
# these are made of it.
_STEP = """$parts
            $enter
            nothing = Sub (charged, charged)
            zeros = Cast <to = 3> (nothing)
            rounded = QLinearConv <$geometry> (turned, unit, none, weight, scale, zeros, unit, none, charged)
            $leave
            $fire"""

# Scale and charge for each number of a sample: short patterns would have to be repeated at each step.
_WIDE = """T = Constant <value_int: int = @T> ()
        begin = Constant <value_ints = [0]> ()
        times_ = Unsqueeze (T, begin)
        wide = Concat <axis = 0> (times_, sample)
        scales = Expand (scale, sample)
        charges = Expand (charge, wide)"""

COUNT_TEXTS = {
    # A layer and its neurons, in 8-bit integers: `charge` [T, C] is all that is added to the products up to a step.
    # Several inputs are put one behind the other there, step by step, while they are in the cache.
    "LayerCounts": f"""<T, sample, up$more> (x$others, weight, scale, charge) => (y) {{
        {_BYTES}
        ends = Constant <value_ints = [0, 2]> ()
        $before
        steps = snnc.Unfold <T: int = @T> (x)
        $unfold
        {_START}
        end, counts = Scan <num_scan_inputs = $count, body = step
                (uint8[$dims] before, uint8[$dims] part0,$givens int32[?] charged)
                => (uint8[$dims] after, uint8[$dims] emitted) {{
            {_STEP}
            emitted = Identity (after)
        }}> (start, steps$reads, charge)
        y = snnc.Fold (counts)
    }}""",
    # The same, step after step.
    "LayerSteps": f"""<T, sample, up$more> (x$others, weight, scale, charge) => (y) {{
        {_BYTES}
        ends = Constant <value_ints = [0, 2]> ()
        $before
        steps = snnc.Unfold <T: int = @T> (x)
        {_START}
        $steps
    }}""",
    # Neurons on a current that is summed already.
    "SumCounts": f"""<T, sample, up$more> (x, scale, charge) => (y) {{
        {_BYTES}
        steps = snnc.Unfold <T: int = @T> (x)
        {_START}
        {_WIDE}
        end, counts = Scan <num_scan_inputs = 2, body = step
                (uint8[$dims] before, float[$dims] given, float[$less] charged)
                => (uint8[$dims] after, uint8[$dims] emitted) {{
            whole = Add (given, charged)
            quotient = Mul (whole, scales)
            level = QuantizeLinear (quotient, unit, none)
            $fire
            emitted = Identity (after)
        }}> (start, steps, charges)
        y = snnc.Fold (counts)
    }}""",
    # Neurons on a current that is the same at each step, [B, ...].
    "SteadyCounts": f"""<T, sample, up$more> (x, scale, charge) => (y) {{
        {_BYTES}
        ahead = Constant <value_ints = [0]> ()
        steps = Unsqueeze (x, ahead)
        {_START}
        scales = Expand (scale, sample)
        rest = Expand (charge, all)
        begin = Constant <value_int = 0> ()
        step = Constant <value_int = 1> ()
        T = Constant <value_int: int = @T> ()
        clock = Range (begin, T, step)
        done, end, counts = Scan <num_scan_inputs = 1, body = step
                (float[$dims] sum, uint8[$dims] before, int64 t)
                => (float[$dims] whole, uint8[$dims] after, uint8[$dims] emitted) {{
            whole = Add (sum, x)
            quotient = Mul (whole, scales)
            level = QuantizeLinear (quotient, unit, none)
            $fire
            emitted = Identity (after)
        }}> (rest, start, clock)
        y = snnc.Fold (counts)
    }}""",
    # Sums of bytes that a byte holds.
    "ByteSums": """<T> (x, weight) => (y) {
        unit = Constant <value_float = 1.0> ()
        zero = Constant <value_int = 0> ()
        none = Cast <to = 2> (zero)
        nothing = Cast <to = 3> (zero)
        turned = Transpose <perm = [0, 3, 1, 2]> (x)
        summed = QLinearConv <$geometry> (turned, unit, none, weight, unit, nothing, unit, none)
        y = Transpose <perm = [0, 2, 3, 1]> (summed)
    }""",
    # A convolution of bytes as one product: `rows` and `columns` of the pixels of each window, in the padded image.
    "Product": """(x, pads, flat, rows, columns, back, weight) => (y) {
        line = Constant <value_ints = [-1]> ()
        padded = Pad (x, pads)
        pixels = Reshape (padded, flat)
        places = Add (rows, columns)
        index = Reshape (places, line)
        windows = Gather <axis = 1> (pixels, index)
        one = Reshape (windows, back)
        total = MatMulInteger (one, weight)
        y = Cast <to = 1> (total)
    }""",
    # What a neuron that waits has read up to each step: that of a later one.
    "Later": """<T> (x, index) => (y) {
        steps = snnc.Unfold <T: int = @T> (x)
        later = Gather <axis = 0> (steps, index)
        y = snnc.Fold (later)
    }""",
    # Sums of a current [B, ...] that is the same at each step; `times` [T, 1, ...] counts the steps.
    "Ramp": """(x, times) => (y) {
        begin = Constant <value_ints = [0]> ()
        one = Unsqueeze (x, begin)
        steps = Mul (one, times)
        y = snnc.Fold (steps)
    }""",
    # The spikes of each step, from what was counted up to it; of sums the currents.
    "Spikes": """<T> (x) => (y) {
        floats = Cast <to = 1> (x)
        steps = snnc.Unfold <T: int = @T> (floats)
        grown = snnc.Growth (steps)
        y = snnc.Fold (grown)
    }""",
}

IMAGES = {
    "enter": "turned = Transpose <perm = [0, 3, 1, 2]> (given)",
    "leave": "level = Transpose <perm = [0, 2, 3, 1]> (rounded)",
}
# Features [B, F] as one image of B pixels, so that a batch is one product.
FEATURES = {
    "enter": """wide = Unsqueeze (given, ends)
            turned = Transpose <perm = [0, 3, 1, 2]> (wide)""",
    "leave": """narrow = Transpose <perm = [0, 2, 3, 1]> (rounded)
            level = Squeeze (narrow, ends)""",
}


def written_out(T: int, inputs: int, texts: dict[str, str]) -> str:
    """The steps of a layer one after the other, for a function of `inputs` values; `texts` fill in a step.

    Its bias is a constant then, for which onnxruntime has a faster kernel, and its weights are held T times.
    """
    step = Template(_STEP).safe_substitute(texts)
    local = set(re.findall(r"^\s*(\w+) = ", step, re.MULTILINE)) | {
        "before",
        "charged",
        *(f"part{k}" for k in range(inputs)),
    }
    name = re.compile(rf"\b({'|'.join(sorted(local))})\b")
    lines = [f"{', '.join(f'part{k}_{t}' for t in range(T))} = Split <axis = 0> (x{k or ''})" for k in range(inputs)]
    for t in range(T):
        lines += [f"at_{t} = Constant <value_int = {t}> ()", f"charged_{t} = Gather <axis = 0> (charge, at_{t})"]
        before = "start" if t == 0 else f"after_{t - 1}"
        lines.append(re.sub(r"\bbefore_\d+\b", before, name.sub(rf"\1_{t}", step)))
    return "\n".join([*lines, f"y = Concat <axis = 0> ({', '.join(f'after_{t}' for t in range(T))})"])
