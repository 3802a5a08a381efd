// A cache of 8 bits: a unit is two groups of 32 values, whose scales share a word. By integers alone.

// Of the group that is quantised: the bits of its values, and what becomes of them.
var<private> bits_of: array<u32, 32>;
var<private> bytes_of: array<u32, 8>;

// Makes bytes of the group's bits; gives its scale as bf16.
fn quantise() -> u32 {
    var largest = 0u;
    for (var i = 0u; i < 32u; i = i + 1u) {
        largest = max(largest, bits_of[i] & MAGNITUDE);
    }
    let scale = scale_of(largest);
    let is_none = scale.vanishes || largest >= INFINITY;
    for (var i = 0u; i < 8u; i = i + 1u) {
        var four = 0u;
        for (var byte = 0u; byte < 4u && !is_none; byte = byte + 1u) {
            let bits = bits_of[4u * i + byte];
            let q = steps_of(scale, bits & MAGNITUDE);
            four = four | (select(q, (256u - q) & 255u, bits > MAGNITUDE) << (8u * byte));
        }
        bytes_of[i] = four;
    }
    if largest >= INFINITY {
        return NOT_A_NUMBER >> 16u;
    }
    // 8 significant bits, whose first is not written.
    return select(((scale.m_exponent + scale.dropped - 16u) << 7u) | (scale.d & 127u), 0u, scale.vanishes);
}

// Keeps unit number `unit` of a token row in the rows of the caches that begin at word `at`.
fn keep(row: u32, at: u32, unit: u32) {
    let width = kv_width();
    let scales_at = at + (width + 3u) / 4u;
    var k_scales = 0u;
    var v_scales = 0u;
    for (var half = 0u; half < 2u; half = half + 1u) {
        let first = (2u * unit + half) * 32u;
        if first >= width {
            break;
        }
        let n_words = (min(width - first, 32u) + 3u) / 4u;
        for (var i = 0u; i < 32u; i = i + 1u) {
            bits_of[i] = 0u;
            if first + i < width { bits_of[i] = key(row, first + i); }
        }
        k_scales = k_scales | (quantise() << (16u * half));
        for (var i = 0u; i < n_words; i = i + 1u) {
            k_cache[at + first / 4u + i] = bytes_of[i];
        }
        for (var i = 0u; i < 32u; i = i + 1u) {
            bits_of[i] = 0u;
            if first + i < width { bits_of[i] = value(row, first + i); }
        }
        v_scales = v_scales | (quantise() << (16u * half));
        for (var i = 0u; i < n_words; i = i + 1u) {
            v_cache[at + first / 4u + i] = bytes_of[i];
        }
    }
    k_cache[scales_at + unit] = k_scales;
    v_cache[scales_at + unit] = v_scales;
}
