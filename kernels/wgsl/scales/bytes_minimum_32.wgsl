// 256 values: an f16 times 8 bytes, less another f16 times 8 other bytes, of 32 values each.

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
    let fours = select(scales.factors.xz, scales.factors.yw, (group & 4u) == 4u);
    let factors = vec2<i32>((fours >> vec2<u32>((group & 3u) * 8u)) & vec2<u32>(255u));
    return Steps(scales.dm.x, -scales.dm.y, vec2<i32>(factors.x), vec2<i32>(factors.y));
}
