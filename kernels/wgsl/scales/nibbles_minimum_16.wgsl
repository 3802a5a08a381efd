// 256 values: an f16 times 16 factors of 4 bits, less another f16 times the 4 bits above them, of 16 values each.

struct Scales {
    factors: vec4<u32>,
    dm: vec2<f32>,
}
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    let block = group / 8u;
    return Scales(word(factors_at() + block, row), unpack2x16float(word(scales_at() + block / 4u, row)[block & 3u]));
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let two = scales.factors[(group >> 1u) & 3u] >> ((group & 1u) * 16u);
    let nibbles = (vec4<u32>(two) >> vec4<u32>(0u, 8u, 4u, 12u)) & vec4<u32>(15u);
    let factors = vec4<i32>(nibbles);
    return Steps(scales.dm.x, -scales.dm.y, factors.xy, factors.zw);
}
