// Rounding of a row to 8 bits with one scale for each 32 values: a lane a group.

const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;

// The 24 significant bits of a value that is not subnormal.
fn significand(magnitude: u32) -> u32 {
    return (magnitude & 0x7fffffu) | 0x800000u;
}

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
    // m / 127 = (quotient + rest / 127) 2^(m_exponent - 150), of 17 or 18 bits before the point: 9 or 10 fall away.
    let m_exponent = largest >> 23u;
    let quotient = significand(largest) / 127u;
    let rest = significand(largest) % 127u;
    var dropped = select(9u, 10u, quotient >= 0x20000u);
    let half = 1u << (dropped - 1u);
    let below = quotient & (2u * half - 1u);
    var d = quotient >> dropped;
    if below > half || (below == half && (rest > 0u || (d & 1u) == 1u)) {
        d = d + 1u;
    }
    // A carry out of 8 bits.
    if d == 256u {
        d = 128u;
        dropped = dropped + 1u;
    }
    // The scale is d 2^(m_exponent - 150 + dropped); its biased exponent is m_exponent - 16 + dropped, 2 at least.
    let vanishes = m_exponent + dropped < 18u;
    for (var i = first; i < end; i = i + 1u) {
        let bits = x[i];
        let magnitude = bits & MAGNITUDE;
        // x / scale = significand(x) / (d 2^shift). Over 17 it is under a half; so it is for a subnormal.
        let shift = m_exponent - (magnitude >> 23u) + dropped;
        var rounded = 0u;
        if largest >= INFINITY {
            rounded = NOT_A_NUMBER;
        } else if !vanishes && (magnitude >> 23u) > 0u && shift <= 17u {
            let divisor = d << shift;
            var q = significand(magnitude) / divisor;
            let twice = 2u * (significand(magnitude) % divisor);
            if twice > divisor || (twice == divisor && (q & 1u) == 1u) {
                q = q + 1u;
            }
            if q > 0u {
                // d q is exact; the power of two goes to its exponent, which stays that of a normal value.
                rounded = bitcast<u32>(f32(d * q)) + ((m_exponent + dropped) << 23u) - (150u << 23u);
                rounded = rounded | (bits & ~MAGNITUDE);
            }
        }
        x[i] = rounded;
    }
}
