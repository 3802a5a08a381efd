// Groups of 32 weights, unpacked: what every weight type becomes before it is multiplied.

struct Group {
    v0: vec4<f32>,
    v1: vec4<f32>,
    v2: vec4<f32>,
    v3: vec4<f32>,
    v4: vec4<f32>,
    v5: vec4<f32>,
    v6: vec4<f32>,
    v7: vec4<f32>,
}

// Groups of 32 values of 8 bits, in the order of the values, signed.
struct Bytes {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn dot_bytes(a: Bytes, b: Bytes) -> i32 {
    let low = (dot4I8Packed(a.low.x, b.low.x) + dot4I8Packed(a.low.y, b.low.y))
        + (dot4I8Packed(a.low.z, b.low.z) + dot4I8Packed(a.low.w, b.low.w));
    let high = (dot4I8Packed(a.high.x, b.high.x) + dot4I8Packed(a.high.y, b.high.y))
        + (dot4I8Packed(a.high.z, b.high.z) + dot4I8Packed(a.high.w, b.high.w));
    return low + high;
}

// The word that holds the scales of `group`; all groups of the same group / GROUPS_A_SCALE share it.
fn scales_of(group: u32, row: u32) -> vec4<u32> {
    if HAS_SCALES {
        return word(params.n_groups * GROUP_WORDS + group / GROUPS_A_SCALE, row);
    }
    return vec4<u32>(0u);
}
