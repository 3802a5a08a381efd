// F32: 8 words a group, no scales.

const GROUP_WORDS: u32 = 8u;
const GROUPS_A_SCALE: u32 = 8u;
const HAS_SCALES: bool = false;

fn dequantise(group: u32, row: u32, scales: vec4<u32>) -> Group {
    let at = group * GROUP_WORDS;
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
