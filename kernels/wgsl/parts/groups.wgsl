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

// The word that holds the scales of `group`; all groups of the same group / GROUPS_A_SCALE share it.
fn scales_of(group: u32, row: u32) -> vec4<u32> {
    if HAS_SCALES {
        return word(params.n_groups * GROUP_WORDS + group / GROUPS_A_SCALE, row);
    }
    return vec4<u32>(0u);
}
