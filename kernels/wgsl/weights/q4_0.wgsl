// Q4_0: one word of nibbles a group; 8 scales a word.

const GROUP_WORDS: u32 = 1u;
const GROUPS_A_SCALE: u32 = 8u;
const HAS_SCALES: bool = true;

fn low(bytes: u32, d: f32) -> vec4<f32> {
    return d * (vec4<f32>((vec4<u32>(bytes) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u)) - vec4<f32>(8.0));
}

fn dequantise(group: u32, row: u32, scales: vec4<u32>) -> Group {
    let halves = unpack2x16float(scales[(group >> 1u) & 3u]);
    let d = select(halves.x, halves.y, (group & 1u) == 1u);
    let w = word(group, row);
    return Group(
        low(w.x, d), low(w.y, d), low(w.z, d), low(w.w, d),
        low(w.x >> 4u, d), low(w.y >> 4u, d), low(w.z >> 4u, d), low(w.w >> 4u, d),
    );
}

fn bytes_of(group: u32, row: u32) -> Bytes {
    let w = word(group, row);
    return Bytes(w & vec4<u32>(0x0f0f0f0fu), (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu));
}

fn scale_of(group: u32, scales: vec4<u32>) -> f32 {
    let halves = unpack2x16float(scales[(group >> 1u) & 3u]);
    return select(halves.x, halves.y, (group & 1u) == 1u);
}

// `dot` is of the nibbles as they are, which are 8 too large.
fn scaled(d: f32, dot: i32, sum: i32) -> f32 {
    return d * f32(dot - 8 * sum);
}
