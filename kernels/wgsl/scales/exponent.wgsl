// A byte e a group for 2 to the (e - 128), 16 of them a word.

alias Scales = vec4<u32>;
const GROUPS_A_SCALE: u32 = 16u;

fn scales_of(group: u32, row: u32) -> Scales {
    return word(scales_at() + group / 16u, row);
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let e = (scales[(group >> 2u) & 3u] >> ((group & 3u) * 8u)) & 255u;
    // Below 2 the power is no normal number.
    let d = bitcast<f32>(select((max(e, 1u) - 1u) << 23u, 0x00200000u << min(e, 1u), e < 2u));
    return Steps(d, 0.0, vec2<i32>(1), vec2<i32>(1));
}
