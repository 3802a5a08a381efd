// Q4_1: one word of nibbles a group; 4 pairs of scale and minimum a word.

const GROUP_WORDS: u32 = 1u;
const GROUPS_A_SCALE: u32 = 4u;
const HAS_SCALES: bool = true;

fn low(bytes: u32, dm: vec2<f32>) -> vec4<f32> {
    return dm.x * vec4<f32>((vec4<u32>(bytes) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u)) + vec4<f32>(dm.y);
}

fn dequantise(group: u32, row: u32, scales: vec4<u32>) -> Group {
    let dm = unpack2x16float(scales[group & 3u]);
    let w = word(group, row);
    return Group(
        low(w.x, dm), low(w.y, dm), low(w.z, dm), low(w.w, dm),
        low(w.x >> 4u, dm), low(w.y >> 4u, dm), low(w.z >> 4u, dm), low(w.w >> 4u, dm),
    );
}

fn bytes_of(group: u32, row: u32) -> Bytes {
    let w = word(group, row);
    return Bytes(w & vec4<u32>(0x0f0f0f0fu), (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu));
}

fn scale_of(group: u32, scales: vec4<u32>) -> vec2<f32> {
    return unpack2x16float(scales[group & 3u]);
}

fn scaled(dm: vec2<f32>, dot: i32, sum: i32) -> f32 {
    return dm.x * f32(dot) + dm.y * f32(sum);
}
