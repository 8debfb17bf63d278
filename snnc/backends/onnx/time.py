"""Where time begins and ends, and max pools in time, as ONNX functions in ONNX's own text.

Time is folded as in the graph, `[T * B, ...]`; `Unfold` gives `[T, B, ...]` and `Fold` takes it back. No rank and no
batch size is written anywhere.
"""

from __future__ import annotations

TIME_TEXTS = {
    "Unfold": """<T> (x) => (steps) {
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        rest = Constant <value_ints = [-1]> ()
        T = Constant <value_int: int = @T> ()
        first = Unsqueeze (T, zero)
        shape = Shape (x)
        sample = Slice (shape, one, end)
        unfolded = Concat <axis = 0> (first, rest, sample)
        steps = Reshape (x, unfolded)
    }""",
    "Fold": """(steps) => (x) {
        two = Constant <value_ints = [2]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        rest = Constant <value_ints = [-1]> ()
        shape = Shape (steps)
        sample = Slice (shape, two, end)
        folded = Concat <axis = 0> (rest, sample)
        x = Reshape (steps, folded)
    }""",
    "Encode": """<T> (x) => (y) {
        zero = Constant <value_ints = [0]> ()
        T = Constant <value_int: int = @T> ()
        first = Unsqueeze (T, zero)
        shape = Shape (x)
        repeated = Concat <axis = 0> (first, shape)
        steps = Expand (x, repeated)
        y = snnc.Fold (steps)
    }""",
    "StepCurrent": """<T> (x, shift) => (y) {
        one = Constant <value_ints = [1]> ()
        each = Unsqueeze (shift, one)
        steps = snnc.Unfold <T: int = @T> (x)
        shifted = Add (steps, each)
        y = snnc.Fold (shifted)
    }""",
    "Decode": """<T, skip, late, read> (x) => (y) {
        zero = Constant <value_ints = [0]> ()
        skip = Constant <value_int: int = @skip> ()
        late = Constant <value_int: int = @late> ()
        read = Constant <value_int: int = @read> ()
        begin = Add (skip, late)
        first = Unsqueeze (begin, zero)
        stop = Add (skip, read)
        last = Unsqueeze (stop, zero)
        all = snnc.Unfold <T: int = @T> (x)
        steps = Slice (all, first, last)
        total = ReduceSum <keepdims = 0> (steps, zero)
        counted = Sub (read, late)
        n = Cast <to = 1> (counted)
        y = Div (total, n)
    }""",
    "Means": """(steps) => (means) {
        axis = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        zero = Constant <value_ints = [0]> ()
        ones = Constant <value_ints = [1]> ()
        total = CumSum (steps, axis)
        shape = Shape (steps)
        rank = Shape (shape)
        dims = Sub (rank, ones)
        flat = Expand (ones, dims)
        n = Gather (shape, axis)
        end = Add (n, one)
        number = Range (one, end, one)
        first = Unsqueeze (n, zero)
        column = Concat <axis = 0> (first, flat)
        numbers = Reshape (number, column)
        count = Cast <to = 1> (numbers)
        means = Div (total, count)
    }""",
    "Running": """<T, skip, late, read> (x) => (y) {
        zero = Constant <value_ints = [0]> ()
        skip = Constant <value_int: int = @skip> ()
        late = Constant <value_int: int = @late> ()
        read = Constant <value_int: int = @read> ()
        begin = Unsqueeze (skip, zero)
        counts = Add (skip, late)
        turn = Unsqueeze (counts, zero)
        stop = Add (skip, read)
        last = Unsqueeze (stop, zero)
        steps = snnc.Unfold <T: int = @T> (x)
        early = Slice (steps, begin, turn)
        counted = Slice (steps, turn, last)
        before = snnc.Means (early)
        after = snnc.Means (counted)
        means = Concat <axis = 0> (before, after)
        y = snnc.Fold (means)
    }""",
    "Sums": """(steps) => (x) {
        axis = Constant <value_int = 0> ()
        sums = CumSum (steps, axis)
        x = snnc.Fold (sums)
    }""",
    "Unfolded": """(x, like) => (steps) {
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        rest = Constant <value_ints = [-1]> ()
        other = Shape (like)
        first = Slice (other, zero, one)
        shape = Shape (x)
        sample = Slice (shape, one, end)
        unfolded = Concat <axis = 0> (first, rest, sample)
        steps = Reshape (x, unfolded)
    }""",
    "Pool": """<T> (x$more) => (y) {
        steps = snnc.Unfold <T: int = @T> (x)
        $unfold
        pooled = snnc.$walk (steps$others)
        y = snnc.Fold (pooled)
    }""",
    "Restart": """<T, tau> (x$more) => (y) {
        zero = Constant <value_ints = [0]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        tau = Constant <value_int: int = @tau> ()
        turn = Unsqueeze (tau, zero)
        steps = snnc.Unfold <T: int = @T> (x)
        first = Slice (steps, zero, turn)
        second = Slice (steps, turn, end)
        $unfold
        $cut
        looked = snnc.$walk (first$firsts)
        emitted = snnc.$walk (second$seconds)
        pooled = Concat <axis = 0> (looked, emitted)
        y = snnc.Fold (pooled)
    }""",
    "Numbers": """(steps) => (count) {
        axis = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        zero = Constant <value_ints = [0]> ()
        ones = Constant <value_ints = [1]> ()
        shape = Shape (steps)
        rank = Shape (shape)
        dims = Sub (rank, ones)
        flat = Expand (ones, dims)
        n = Gather (shape, axis)
        end = Add (n, one)
        number = Range (one, end, one)
        first = Unsqueeze (n, zero)
        column = Concat <axis = 0> (first, flat)
        numbers = Reshape (number, column)
        count = Cast <to = 1> (numbers)
    }""",
    "MeansFolded": """(steps) => (x) {
        means = snnc.Means (steps)
        x = snnc.Fold (means)
    }""",
    "Growth": """(steps) => (grown) {
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        last = Constant <value_ints = [-1]> ()
        first = Slice (steps, zero, one)
        nothing = Sub (first, first)
        before = Slice (steps, zero, last)
        shifted = Concat <axis = 0> (nothing, before)
        grown = Sub (steps, shifted)
    }""",
}
