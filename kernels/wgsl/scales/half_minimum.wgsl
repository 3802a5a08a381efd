// Two f16 a group, the second of which is added; 4 pairs a word.

alias Scales = vec4<u32>;
const GROUPS_A_SCALE: u32 = 4u;

fn scales_of(group: u32, row: u32) -> Scales {
    return word(scales_at() + group / 4u, row);
}

fn steps_of(group: u32, scales: Scales) -> Steps {
    let dm = unpack2x16float(scales[group & 3u]);
    return Steps(dm.x, dm.y, vec2<i32>(1), vec2<i32>(1));
}
