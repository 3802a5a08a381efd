// A cache of f16: a unit is a word, of two values. By integers alone, since devices round what they convert as they please.

// The bits of the f16 nearest to an f32, ties to even, as src/cpu/kv_row.rs.
fn half_of(bits: u32) -> u32 {
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    let exponent = magnitude >> 23u;
    var half = 0u;
    if magnitude > 0x7f800000u {
        half = 0x7e00u;
    } else if exponent > 142u {
        half = 0x7c00u;
    } else if exponent > 112u {
        half = (magnitude - (112u << 23u) + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u;
    } else if exponent > 101u {
        let dropped = 126u - exponent;
        let significand = (magnitude & 0x7fffffu) | 0x800000u;
        half = (significand + (1u << (dropped - 1u)) - 1u + ((significand >> dropped) & 1u)) >> dropped;
    }
    return sign | half;
}

// Keeps unit number `unit` of a token row in the rows of the caches that begin at word `at`.
fn keep(row: u32, at: u32, unit: u32) {
    let first = 2u * unit;
    var k = half_of(key(row, first));
    var v = half_of(value(row, first));
    // The last value of an odd row stands alone.
    if first + 1u < kv_width() {
        k = k | (half_of(key(row, first + 1u)) << 16u);
        v = v | (half_of(value(row, first + 1u)) << 16u);
    }
    k_cache[at + unit] = k;
    v_cache[at + unit] = v;
}
