// An f16 a group, 8 of them a word.

alias Scales = vec4<u32>;
const GROUPS_A_SCALE: u32 = 8u;

fn scales_of(group: u32, row: u32) -> Scales {
    return word(scales_at() + group / 8u, row);
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let halves = unpack2x16float(scales[(group >> 1u) & 3u]);
    return Steps(select(halves.x, halves.y, (group & 1u) == 1u), 0.0, vec2<i32>(1), vec2<i32>(1));
}
