// Products of a matrix with one, four or eight rows of activations, in f32 or with activations of 8 bits. A lane one or more outputs; where
// the columns are split, some lanes of a workgroup share one, and the first adds what comes of them. Every sum in the order of the columns, by
// blocks. Gathered: of each choice of a row the products with the rows of its expert.

struct Params {
    // Where each window's row of activations starts there, in vec4: a byte each.
    starts: u32,
    // Groups of 32 in a row of the matrix.
    n_groups: u32,
    // The groups of this dispatch.
    first_group: u32,
    n_dispatch_groups: u32,
    // The rows of the matrix that this part holds, of `n_out` in all; gathered: of `n_out` for each expert.
    first_part_row: u32,
    n_part_rows: u32,
    n_out: u32,
    // The first row of `out`, and how many of the kernel's there are; gathered: the first choice, and how many.
    first_row: u32,
    n_rows: u32,
    flags: u32,
    // From one row of activations to the next, in vec4: of eight rows two share a window; gathered: all of them.
    stride: u32,
    n_experts: u32, //? gathered
}

// `partial` holds the sums of earlier columns.
const GOES_ON: u32 = 8u;
// More columns follow: the sums go to `partial`.
const UNFINISHED: u32 = 16u;

@group(0) @binding(0) var<uniform> params: Params;
// Windows of 16 KiB on the activations, one a row, or of eight rows one for two: f32, or groups of 3 as parts/quantise.wgsl says.
@group(0) @binding(1$w) var<uniform> window$w: array<vec4<f32>, 1024>; //? f32
@group(0) @binding(1$w) var<uniform> window$w: array<vec4<u32>, 1024>; //? int8
// [row of the kernel, or choice][n_sums], f32; anything without GOES_ON and UNFINISHED.
@group(0) @binding(9) var<storage, read_write> partial: array<f32>;

// Sums of one row of activations.
fn n_sums() -> u32 {
    return params.n_part_rows; //? dense
    return params.n_out; //? gathered
}

fn started(token: u32, row: u32) -> f32 {
    if (params.flags & GOES_ON) != 0u && token < params.n_rows {
        return partial[token * n_sums() + row];
    }
    return 0.0;
}

fn leave(token: u32, row: u32, sum: f32) {
    if token < params.n_rows && row < n_sums() {
        partial[token * n_sums() + row] = sum;
    }
}

fn product(w: Group, x: Group) -> f32 {
    var s = w.v0 * x.v0;
    s = s + w.v1 * x.v1;
    s = s + w.v2 * x.v2;
    s = s + w.v3 * x.v3;
    s = s + w.v4 * x.v4;
    s = s + w.v5 * x.v5;
    s = s + w.v6 * x.v6;
    s = s + w.v7 * x.v7;
    return (s.x + s.y) + (s.z + s.w);
}

// Which row of activations a token of the kernel is: of eight the first four are the first rows of the windows, the others the second.
fn row_of(token: u32) -> u32 {
    return select(token, token % WINDOWS * 2u + token / WINDOWS, TOKENS > WINDOWS);
}

// Where it starts in its window.
fn start_of(token: u32) -> u32 {
    return ((params.starts >> (token % WINDOWS * 8u)) & 255u) + token / WINDOWS * params.stride;
}

// Lanes of a workgroup that have outputs of their own; the others share theirs.
const LANES: u32 = WORKGROUP / SPLITS;

// The sums of the blocks of a round.
var<workgroup> block_sums$t$r: array<f32, WORKGROUP>; //? split

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (workgroup.x * LANES + lane % LANES) * ROWS_A_LANE;
    if first >= n_sums() { //? whole
        return; //? whole
    } //? whole
    // A row beyond the last takes the last one's weights; what comes of it is not stored.
    let at_most$r = min(first + $ru, n_sums() - 1u);
    let row$r = at_most$r; //? dense
    let token$t = row_of($tu); //? dense
    let start$t = start_of($tu); //? dense
    // Nor is what comes of one that lies in another part; where all of a lane's do, it is idle.
    let before = rows_before(params.first_row + workgroup.y); //? gathered
    let is_idle = before + first >= params.n_part_rows && before + min(first + ROWS_A_LANE, n_sums()) - 1u >= params.n_part_rows; //? gathered
    let n_groups = select(params.n_dispatch_groups, 0u, is_idle); //? gathered
    let n_groups = params.n_dispatch_groups; //? dense
    let row$r = min(before + at_most$r, params.n_part_rows - 1u); //? gathered
    let token$t = workgroup.y; //? gathered
    let start$t = start_of($tu) + workgroup.y * params.stride; //? gathered
    let split = lane / LANES;
    var scales$r: Scales;
    var sum$t$r = 0.0;
    if split == 0u { sum$t$r = started(token$t, at_most$r); }
    for (var round = 0u; round < params.n_dispatch_groups; round = round + SPLITS * BLOCK) {
        let begin = round + split * BLOCK;
        let end = min(begin + BLOCK, n_groups);
        var block_sum$t$r = 0.0;
        for (var i = begin; i < end; i = i + 1u) {
            let group = params.first_group + i;
            if i == begin || group % GROUPS_A_SCALE == 0u {
                scales$r = scales_of(group, row$r);
            }
            let w$r = dequantise(group, row$r, scales$r); //? f32
            let at$t = start$t + i * 8u; //? f32
            let low$t = array(window$w[at$t], window$w[at$t + 1u], window$w[at$t + 2u], window$w[at$t + 3u]); //? f32
            let high$t = array(window$w[at$t + 4u], window$w[at$t + 5u], window$w[at$t + 6u], window$w[at$t + 7u]); //? f32
            let x$t = Group(low$t[0], low$t[1], low$t[2], low$t[3], high$t[0], high$t[1], high$t[2], high$t[3]); //? f32
            block_sum$t$r = block_sum$t$r + product(w$r, x$t); //? f32

            let steps$r = steps_of(group, scales$r); //? int8
            let at$t = start$t + i * 3u; //? int8
            let x$t = Bytes(window$w[at$t], window$w[at$t + 1u]); //? int8
            let head$t = window$w[at$t + 2u]; //? int8
            let x_sums$t = bitcast<vec2<i32>>(head$t.yz); //? int8
            let w$r = bytes_of(group, row$r); //? dots
            let dots$t$r = vec2<i32>(dot_bytes(w$r.low, x$t.low), dot_bytes(w$r.high, x$t.high)); //? dots
            let pair$p = pair_of(word(group, row$e), word(group, row$o)); //? paired rows
            let lows$t$p = dot_pair(pair$p.front, pair$p.back, x$t.low); //? paired rows
            let highs$t$p = dot_pair(pair$p.front >> vec4<u32>(4u), pair$p.back >> vec4<u32>(4u), x$t.high); //? paired rows
            let dots$t$e = vec2<i32>(lows$t$p.x, highs$t$p.x); //? paired rows
            let dots$t$o = vec2<i32>(lows$t$p.y, highs$t$p.y); //? paired rows
            block_sum$t$r = block_sum$t$r + bitcast<f32>(head$t.x) * scaled(steps$r, dots$t$r, x_sums$t); //? int8
        }
        sum$t$r = sum$t$r + block_sum$t$r; //? whole
        block_sums$t$r[lane] = block_sum$t$r; //? split
        workgroupBarrier(); //? split
        if split == 0u { //? split
            let n_blocks = min(SPLITS, (params.n_dispatch_groups - round + BLOCK - 1u) / BLOCK); //? split
            for (var i = 0u; i < n_blocks; i = i + 1u) { //? split
                sum$t$r = sum$t$r + block_sums$t$r[i * LANES + lane]; //? split
            } //? split
        } //? split
        workgroupBarrier(); //? split
    }
    if split > 0u || first >= n_sums() { //? split
        return; //? split
    } //? split
    if (params.flags & UNFINISHED) != 0u {
        leave(token$t, first + $ru, sum$t$r);
    } else {
        var sums$t: array<f32, ROWS_A_LANE>;
        sums$t[$r] = sum$t$r;
        if token$t < params.n_rows { finish(params.first_row + token$t, first, sums$t); }
    }
}
