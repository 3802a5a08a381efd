// F32: 8 words a group, no scales.

alias Scales = u32;
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    return 0u;
}

fn dequantise(group: u32, row: u32, scales: Scales) -> Group {
    let at = group * 8u;
    return Group(
        bitcast<vec4<f32>>(word(at, row)),
        bitcast<vec4<f32>>(word(at + 1u, row)),
        bitcast<vec4<f32>>(word(at + 2u, row)),
        bitcast<vec4<f32>>(word(at + 3u, row)),
        bitcast<vec4<f32>>(word(at + 4u, row)),
        bitcast<vec4<f32>>(word(at + 5u, row)),
        bitcast<vec4<f32>>(word(at + 6u, row)),
        bitcast<vec4<f32>>(word(at + 7u, row)),
    );
}
