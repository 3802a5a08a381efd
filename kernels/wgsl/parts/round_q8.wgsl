// Rounding of a row to 8 bits with one scale for each 32 values: a lane a group.

fn round_row(at: u32, lane: u32) {
    for (var first = lane * 32u; first < params.width; first = first + 64u * 32u) {
        round_group(at + first, at + min(first + 32u, params.width));
    }
}

fn round_group(first: u32, end: u32) {
    var largest = 0u;
    for (var i = first; i < end; i = i + 1u) {
        largest = max(largest, x[i] & MAGNITUDE);
    }
    let scale = scale_of(largest);
    for (var i = first; i < end; i = i + 1u) {
        let bits = x[i];
        var rounded = 0u;
        if largest >= INFINITY {
            rounded = NOT_A_NUMBER;
        } else if !scale.vanishes {
            let q = steps_of(scale, bits & MAGNITUDE);
            if q > 0u {
                // d q is exact; the power of two goes to its exponent, which stays that of a normal value.
                let exponent = ((scale.m_exponent + scale.dropped) << 23u) - (150u << 23u);
                rounded = (bitcast<u32>(f32(scale.d * q)) + exponent) | (bits & ~MAGNITUDE);
            }
        }
        x[i] = rounded;
    }
}
