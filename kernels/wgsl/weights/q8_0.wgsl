// Q8_0: two words of signed bytes a group; 8 scales a word.

const GROUP_WORDS: u32 = 2u;
const GROUPS_A_SCALE: u32 = 8u;
const HAS_SCALES: bool = true;

fn signed(bytes: u32, d: f32) -> vec4<f32> {
    return d * vec4<f32>((vec4<i32>(i32(bytes)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}

fn dequantise(group: u32, row: u32, scales: vec4<u32>) -> Group {
    let halves = unpack2x16float(scales[(group >> 1u) & 3u]);
    let d = select(halves.x, halves.y, (group & 1u) == 1u);
    let a = word(group * GROUP_WORDS, row);
    let b = word(group * GROUP_WORDS + 1u, row);
    return Group(
        signed(a.x, d), signed(a.y, d), signed(a.z, d), signed(a.w, d),
        signed(b.x, d), signed(b.y, d), signed(b.z, d), signed(b.w, d),
    );
}

fn bytes_of(group: u32, row: u32) -> Bytes {
    return Bytes(word(group * GROUP_WORDS, row), word(group * GROUP_WORDS + 1u, row));
}

fn scale_of(group: u32, scales: vec4<u32>) -> f32 {
    let halves = unpack2x16float(scales[(group >> 1u) & 3u]);
    return select(halves.x, halves.y, (group & 1u) == 1u);
}

fn scaled(d: f32, dot: i32, sum: i32) -> f32 {
    return d * f32(dot);
}
