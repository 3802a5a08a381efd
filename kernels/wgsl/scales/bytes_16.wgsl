// 256 values: an f16 times 16 signed bytes, of 16 values each.

struct Scales {
    factors: vec4<u32>,
    d: f32,
}
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    let block = group / 8u;
    return Scales(word(factors_at() + block, row), half_at(scales_at(), block, row));
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let two = scales.factors[(group >> 1u) & 3u] >> ((group & 1u) * 16u);
    let factors = (vec2<i32>(i32(two)) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u);
    return Steps(scales.d, 0.0, factors, vec2<i32>(1));
}
