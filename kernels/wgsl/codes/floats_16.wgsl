// F16 and BF16: 4 words a group, no scales.

alias Scales = u32;
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    return 0u;
}

fn four(pair: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y)); //? f16
    return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u)); //? bf16
}

fn dequantise(group: u32, row: u32, scales: Scales) -> Group {
    let at = group * 4u;
    let a = word(at, row);
    let b = word(at + 1u, row);
    let c = word(at + 2u, row);
    let d = word(at + 3u, row);
    return Group(four(a.xy), four(a.zw), four(b.xy), four(b.zw), four(c.xy), four(c.zw), four(d.xy), four(d.zw));
}
