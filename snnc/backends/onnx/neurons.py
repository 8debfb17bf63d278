"""Every neuron model as an ONNX function, in ONNX's own text: what `functions` fills in and parses.

The state is walked by one `Scan`, whose body is one step and does what the neuron's `step` does, in the same order.
`$emits` is `charge`, the count times theta, or in functions called `Unit...` the `count` itself; `$u` is that "Unit".
A body's values have a number of dimensions, `$rank`, since older runtimes do not infer it.
"""

from __future__ import annotations

# One iteration of offset calibration, number `$k`.
SHIFT = """count$k, fired$k, silent$k, residual$k = snnc.Probe$rank (window, start$k, theta)
        $wants
        start$after, wanted$after = snnc.Shift (start$k, wanted$k, fired$k, silent$k, theta, margin)"""
FIRST = "wanted0 = snnc.Wanted (count0, residual0, theta, most)"

NEURON_TEXTS = {
    "Start": """(steps, v0) => (v) {
        one = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        shape = Shape (steps)
        sample = Slice (shape, one, end)
        v = Expand (v0, sample)
    }""",
    "Walk": """(steps, theta, v0) => (spikes, v) {
        start = snnc.Start (steps, v0)
        v, spikes = Scan <num_scan_inputs = 1, body = step (float[$dims] before, float[$dims] current)
                => (float[$dims] after, float[$dims] $emits) {
            u = Add (before, current)
            fired = GreaterOrEqual (u, theta)
            count = Cast <to = 1> (fired)
            charge = Mul (count, theta)
            after = Sub (u, charge)
        }> (start, steps)
    }""",
    "IF": """<T> (x, theta, v0) => (y) {
        steps = snnc.Unfold <T: int = @T> (x)
        spikes, v = snnc.${u}Walk$rank (steps, theta, v0)
        y = snnc.Fold (spikes)
    }""",
    "SignedIF": """<T> (x, theta, v0) => (y) {
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        steps = snnc.Unfold <T: int = @T> (x)
        start = snnc.Start (steps, v0)
        none = snnc.Start (steps, zero)
        v, tracer, spikes = Scan <num_scan_inputs = 1, body = step
                (float[$dims] before, float[$dims] held, float[$dims] current)
                => (float[$dims] after, float[$dims] holds, float[$dims] $emits) {
            u = Add (before, current)
            fired = GreaterOrEqual (u, theta)
            up = Cast <to = 1> (fired)
            negative = Less (u, zero)
            owing = GreaterOrEqual (held, one)
            back = And (negative, owing)
            down = Cast <to = 1> (back)
            count = Sub (up, down)
            charge = Mul (count, theta)
            after = Sub (u, charge)
            holds = Add (held, count)
        }> (start, none, steps)
        y = snnc.Fold (spikes)
    }""",
    "GradedIF": """<T, bits> (x, theta, v0) => (y) {
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        two = Constant <value_float = 2.0> ()
        bits = Constant <value_int: int = @bits> ()
        exponent = Cast <to = 1> (bits)
        power = Pow (two, exponent)
        most = Sub (power, one)
        steps = snnc.Unfold <T: int = @T> (x)
        start = snnc.Start (steps, v0)
        v, spikes = Scan <num_scan_inputs = 1, body = step (float[$dims] before, float[$dims] current)
                => (float[$dims] after, float[$dims] $emits) {
            u = Add (before, current)
            quotient = Div (u, theta)
            whole = Floor (quotient)
            guess = Clip (whole, zero, most)
            reached = Mul (guess, theta)
            over = Greater (reached, u)
            less = Cast <to = 1> (over)
            next = Add (guess, one)
            beyond = Mul (next, theta)
            under = LessOrEqual (beyond, u)
            more = Cast <to = 1> (under)
            lowered = Sub (guess, less)
            exact = Add (lowered, more)
            count = Clip (exact, zero, most)
            charge = Mul (count, theta)
            after = Sub (u, charge)
        }> (start, steps)
        y = snnc.Fold (spikes)
    }""",
    "BipolarIF": """<T, units> (x, theta, v0) => (y) {
        units = Constant <value_int: int = @units> ()
        most = Cast <to = 1> (units)
        least = Neg (most)
        one = Constant <value_float = 1.0> ()
        steps = snnc.Unfold <T: int = @T> (x)
        start = snnc.Start (steps, v0)
        $none
        v, $held_out spikes = Scan <num_scan_inputs = 1, body = step
                (float[$dims] before, $held_in float[$dims] current)
                => (float[$dims] after, $holds_out float[$dims] $emits) {
            u = Add (before, current)
            quotient = Div (u, theta)
            whole = Floor (quotient)
            guess = Clip (whole, least, most)
            reached = Mul (guess, theta)
            over = Greater (reached, u)
            less = Cast <to = 1> (over)
            lowered = Sub (guess, less)
            next = Add (lowered, one)
            beyond = Mul (next, theta)
            under = LessOrEqual (beyond, u)
            more = Cast <to = 1> (under)
            exact = Add (lowered, more)
            $bounded
            charge = Mul (count, theta)
            after = Sub (u, charge)
            $holds
        }> (start, $none_in steps)
        y = snnc.Fold (spikes)
    }""",
    "WaitingIF": """<T, wait> (x, theta, v0) => (y) {
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        nothing = Constant <value_float = 0.0> ()
        wait = Constant <value_int: int = @wait> ()
        waits = Unsqueeze (wait, zero)
        turn = Add (waits, one)
        steps = snnc.Unfold <T: int = @T> (x)
        gathered = Slice (steps, zero, turn)
        first = ReduceSum <keepdims = 1> (gathered, zero)
        rest = Slice (steps, turn, end)
        shape = Shape (steps)
        sample = Slice (shape, one, end)
        quiet = Concat <axis = 0> (waits, sample)
        last = Expand (nothing, quiet)
        shifted = Concat <axis = 0> (first, rest, last)
        spikes, v = snnc.${u}Walk$rank (shifted, theta, v0)
        y = snnc.Fold (spikes)
    }""",
    "AverageIF": """<T> (x, theta, v0) => (y) {
        zero = Constant <value_ints = [0]> ()
        begin = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        T = Constant <value_int: int = @T> ()
        n = Cast <to = 1> (T)
        steps = snnc.Unfold <T: int = @T> (x)
        total = ReduceSum <keepdims = 0> (steps, zero)
        shape = Shape (total)
        wide = Mul (v0, n)
        start = Expand (wide, shape)
        bound = Mul (theta, n)
        clock = Range (begin, T, one)
        v, spikes = Scan <num_scan_inputs = 1, body = step (float[$dims] before, int64[] t)
                => (float[$dims] after, float[$dims] $emits) {
            u = Add (before, total)
            fired = GreaterOrEqual (u, bound)
            count = Cast <to = 1> (fired)
            taken = Mul (count, bound)
            after = Sub (u, taken)
            $height
        }> (start, clock)
        y = snnc.Fold (spikes)
    }""",
    "Probe": """(window, start, theta) => (count, fired, silent, residual) {
        far = Constant <value_float = 8.507059e37> ()
        depth = Constant <value_float = -1000.0> ()
        zero = Constant <value_float = 0.0> ()
        none = snnc.Start (window, zero)
        most = snnc.Start (window, far)
        deep = Mul (theta, depth)
        least = snnc.Start (window, deep)
        residual, count, fired, silent = Scan <num_scan_inputs = 1, body = step
                (float[$dims] before, float[$dims] had, float[$dims] lowest, float[$dims] highest, float[$dims] current)
                => (float[$dims] after, float[$dims] has, float[$dims] low, float[$dims] high) {
            u = Add (before, current)
            fires = GreaterOrEqual (u, theta)
            spike = Cast <to = 1> (fires)
            if_fired = Where (fires, u, far)
            low = Min (lowest, if_fired)
            away = Neg (far)
            if_silent = Where (fires, away, u)
            high = Max (highest, if_silent)
            has = Add (had, spike)
            charge = Mul (spike, theta)
            after = Sub (u, charge)
        }> (start, none, most, least, window)
    }""",
    "Wanted": """(count, residual, theta, most) => (wanted) {
        quotient = Div (residual, theta)
        whole = Floor (quotient)
        lowest = Neg (count)
        above = Max (whole, lowest)
        room = Sub (most, count)
        wanted = Min (above, room)
    }""",
    "Shift": """(start, wanted, fired, silent, theta, margin) => (moved, left) {
        zero = Constant <value_float = 0.0> ()
        excess = Sub (fired, theta)
        excess_margin = Add (excess, margin)
        down = Max (excess_margin, theta)
        lack = Sub (theta, silent)
        lack_margin = Add (lack, margin)
        up = Max (lack_margin, theta)
        lowered = Sub (start, down)
        raised = Add (start, up)
        more = Greater (wanted, zero)
        fewer = Less (wanted, zero)
        either = Where (more, raised, start)
        moved = Where (fewer, lowered, either)
        sign = Sign (wanted)
        left = Sub (wanted, sign)
    }""",
    "OffsetIF": """<T, rho, iterations, guard, eps> (x, theta, v0) => (y) {
        begin = Constant <value_ints = [0]> ()
        far = Constant <value_float = 1e30> ()
        eps = Constant <value_float: float = @eps> ()
        rho = Constant <value_int: int = @rho> ()
        guard = Constant <value_int: int = @guard> ()
        guards = Cast <to = 9> (guard)
        width = Cast <to = 1> (rho)
        most = Where (guards, width, far)
        $shift_margin
        last = Unsqueeze (rho, begin)
        steps = snnc.Unfold <T: int = @T> (x)
        window = Slice (steps, begin, last)
        start0 = snnc.Start (steps, v0)
        $shifts
        spikes, v = snnc.${u}Walk$rank (steps, theta, start$last)
        y = snnc.Fold (spikes)
    }""",
    "ResidualMaskIF": """<T, tau> (x, theta, v0) => (y) {
        zero = Constant <value_ints = [0]> ()
        end = Constant <value_ints = [9223372036854775807]> ()
        tau = Constant <value_int: int = @tau> ()
        turn = Unsqueeze (tau, zero)
        margin = Constant <value_float = $mask_margin> ()
        steps = snnc.Unfold <T: int = @T> (x)
        first = Slice (steps, zero, turn)
        second = Slice (steps, turn, end)
        looked, residual = snnc.${u}Walk$rank (first, theta, v0)
        bound = Mul (theta, margin)
        positive = Greater (residual, bound)
        mask = Cast <to = 1> (positive)
        emitted, v = snnc.${u}Walk$rank (second, theta, v0)
        masked = Mul (emitted, mask)
        spikes = Concat <axis = 0> (looked, masked)
        y = snnc.Fold (spikes)
    }""",
}
