// F16: 4 words a group, no scales.

const GROUP_WORDS: u32 = 4u;
const GROUPS_A_SCALE: u32 = 8u;
const HAS_SCALES: bool = false;

fn halves(pair: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}

fn dequantise(group: u32, row: u32, scales: vec4<u32>) -> Group {
    let at = group * GROUP_WORDS;
    let a = word(at, row);
    let b = word(at + 1u, row);
    let c = word(at + 2u, row);
    let d = word(at + 3u, row);
    return Group(
        halves(a.xy), halves(a.zw), halves(b.xy), halves(b.zw),
        halves(c.xy), halves(c.zw), halves(d.xy), halves(d.zw),
    );
}
