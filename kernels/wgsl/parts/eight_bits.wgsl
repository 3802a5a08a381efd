// 8 bits with one scale for a group: the scale, and how many of it a value is. By integers alone, so that every device gives the same bits.

const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;

// d 2^(m_exponent - 150 + dropped), where d has 8 bits; its biased exponent is m_exponent - 16 + dropped.
struct Scale {
    d: u32,
    dropped: u32,
    m_exponent: u32,
    // That would be under 2^-125: the group becomes zeros.
    vanishes: bool,
}

// The 24 significant bits of a value that is not subnormal.
fn significand(magnitude: u32) -> u32 {
    return (magnitude & 0x7fffffu) | 0x800000u;
}

// By the group's largest magnitude.
fn scale_of(largest: u32) -> Scale {
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
    return Scale(d, dropped, m_exponent, m_exponent + dropped < 18u);
}

// |x| in scales, to the nearest integer, ties to even.
fn steps_of(scale: Scale, magnitude: u32) -> u32 {
    // x / scale = significand(x) / (d 2^shift). Over 17 it is under a half; so it is for a subnormal.
    let shift = scale.m_exponent - (magnitude >> 23u) + scale.dropped;
    if (magnitude >> 23u) == 0u || shift > 17u {
        return 0u;
    }
    let divisor = scale.d << shift;
    var q = significand(magnitude) / divisor;
    let twice = 2u * (significand(magnitude) % divisor);
    if twice > divisor || (twice == divisor && (q & 1u) == 1u) {
        q = q + 1u;
    }
    return q;
}
