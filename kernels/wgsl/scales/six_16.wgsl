// 256 values: an f16 times 16 factors of 6 bits less 32, of 16 values each; 4 bits in one plane, 2 in another.

struct Scales {
    low: vec2<u32>,
    high: u32,
    d: f32,
}
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    let block = group / 8u;
    let both = word(factors_at() + block / 2u, row);
    let high = word(high_factors_at() + block / 4u, row)[block & 3u];
    return Scales(select(both.xy, both.zw, (block & 1u) == 1u), high, half_at(scales_at(), block, row));
}

// Factor j of 16.
fn factor(j: u32, scales: Scales) -> i32 {
    let four = select(scales.low.x, scales.low.y, (j & 4u) == 4u);
    let low = (four >> ((j & 3u) * 8u + (j >> 3u) * 4u)) & 15u;
    let high = (scales.high >> ((j & 3u) * 8u + (j >> 2u) * 2u)) & 3u;
    return i32(low | (high << 4u)) - 32;
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let j = (group & 7u) * 2u;
    return Steps(scales.d, 0.0, vec2<i32>(factor(j, scales), factor(j + 1u, scales)), vec2<i32>(1));
}
