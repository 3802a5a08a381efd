// 256 values: an f16 times 8 signed bytes, of 32 values each; two such blocks of factors a word.

struct Scales {
    factors: vec2<u32>,
    d: f32,
}
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    let block = group / 8u;
    let both = word(factors_at() + block / 2u, row);
    return Scales(select(both.xy, both.zw, (block & 1u) == 1u), half_at(scales_at(), block, row));
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let four = select(scales.factors.x, scales.factors.y, (group & 4u) == 4u);
    let factor = (i32(four) << ((3u - (group & 3u)) * 8u)) >> 24u;
    return Steps(scales.d, 0.0, vec2<i32>(factor), vec2<i32>(1));
}
