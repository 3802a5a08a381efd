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

fn dot_bytes(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return (dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y)) + (dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w));
}

// The word that holds the scales of `group`; all groups of the same group / GROUPS_A_SCALE share it.
fn scales_of(group: u32, row: u32) -> vec4<u32> {
    if HAS_SCALES {
        return word(params.n_groups * GROUP_WORDS + group / GROUPS_A_SCALE, row);
    }
    return vec4<u32>(0u);
}
