// Attention: a workgroup the queries of one slot that share a key head: some heads of a row, or of a few rows. Goes through the positions in
// blocks of 64 that are counted from position 0, with a running largest score and sum (Milakov & Gimelshein 2018, arXiv 1805.02867), which
// begin anew with every part of 256; those of the parts are added in order. So the order depends on the positions that a row sees alone, and
// not on what other workgroups take: where positions are split, each takes one part, and attention_parts.wgsl adds them.
// Queries, keys, values and the result are those of parts/quads.wgsl or parts/singles.wgsl, four values at a time.

struct Params {
    n_heads: u32,
    // Heads that share one key head.
    heads_a_group: u32,
    head_size: u32,
    n_positions: u32,
    // Positions seen, the row's own included; 0: all.
    window: u32,
    scale: f32,
    // What scores stay below; 0: there is none.
    cap: f32,
    // Where the rows of each workgroup lie in `data`: the first, and how many.
    tiles_at: u32,
    // Where the positions seen by each row lie in `data`; 0: those up to its own.
    lengths_at: u32,
    // Where the bias lies in `data`, the bits of f32; 0: there is none. By distance, from -n_before to n_after:
    // [n_heads][n_before + 1 + n_after]; with n_before as SLOPES says: [n_heads].
    bias_at: u32,
    n_before: u32,
    n_after: u32,
    // Where the sinks lie in `data`: [n_heads], the bits of f32; 0: there are none.
    sinks_at: u32,
    // Words of a cache row.
    row_words: u32,
    // Where row 0 of the queries would lie in their window, in vec4. //? windows
    queries_at: i32, //? windows
    // The first part that any workgroup takes, and how many there are. //? split
    first_part: u32, //? split
    n_parts: u32, //? split
}

const SLOPES: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32, and what the parameters say.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][n_heads][part][1 + fours of a head]: the largest score and the sum of the weights, then the sums of the values. //? split
@group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>; //? split

const LOWEST: f32 = -3.0e38;

var<workgroup> weights$t: array<f32, 64>;
var<workgroup> maxima$t: array<f32, 64>;

// Values of a cache row.
fn kv_width() -> u32 {
    return params.n_heads / params.heads_a_group * params.head_size;
}

// What a score is raised by where `distance` is the position seen less the row's own.
fn bias_of(head: u32, distance: i32) -> f32 {
    if params.n_before == SLOPES {
        return bitcast<f32>(data[params.bias_at + head]) * f32(distance);
    }
    let before = i32(params.n_before);
    let column = u32(clamp(distance, -before, i32(params.n_after)) + before);
    return bitcast<f32>(data[params.bias_at + head * (params.n_before + 1u + params.n_after) + column]);
}

// Where what comes of a part lies. //? split
fn part_at(row: u32, head: u32, part: u32) -> u32 { //? split
    let place = (row * params.n_heads + head) * params.n_parts + (part - params.first_part); //? split
    return place * (1u + (params.head_size + 3u) / 4u); //? split
} //? split

fn leave(at: u32, quad: u32, largest: f32, total: f32, sum: vec4<f32>) { //? split
    if quad == 0u { //? split
        parts[at] = vec4<f32>(largest, total, 0.0, 0.0); //? split
    } //? split
    parts[at + 1u + quad] = sum; //? split
} //? split

// The last position that a row sees.
fn last_of(row: u32, own_position: u32) -> u32 {
    if params.lengths_at > 0u {
        return data[params.lengths_at + row] - 1u;
    }
    return own_position;
}

fn first_of(last: u32) -> u32 {
    return select(0u, last + 1u - params.window, params.window > 0u && last + 1u > params.window);
}

// By its bits: drivers may take it for granted that there are numbers alone.
fn is_no_number(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = params.tiles_at + workgroup.y * 2u;
    let first_row = data[tile];
    let end_row = first_row + data[tile + 1u];
    let workgroups = (params.heads_a_group + HEADS - 1u) / HEADS;
    let group = workgroup.x / workgroups % (params.n_heads / params.heads_a_group);
    let first_head = workgroup.x % workgroups * HEADS;
    let head_quads = (params.head_size + 3u) / 4u;
    let first_place = data[first_row * 2u] * params.n_positions;
    // Where in a cache's row the head begins.
    let kv_at = group * params.head_size;

    // A query that is not there is one that is; what comes of it is not stored.
    let own_row$t = first_row + $tu / HEADS;
    let own_head$t = first_head + $tu % HEADS;
    let is_there$t = own_row$t < end_row && own_head$t < params.heads_a_group;
    let row$t = min(own_row$t, end_row - 1u);
    let head$t = group * params.heads_a_group + min(own_head$t, params.heads_a_group - 1u);
    let query_at$t = (row$t * params.n_heads + head$t) * params.head_size;
    let own_position$t = data[row$t * 2u + 1u];
    let last$t = last_of(row$t, own_position$t);
    let first$t = first_of(last$t);
    var first = first0;
    var last = last0;
    first = min(first, first$t); last = max(last, last$t); //? rows

    var first_part = first / PART;
    var last_part = last / PART;
    let own_part = params.first_part + workgroup.x / workgroups / (params.n_heads / params.heads_a_group); //? split
    first_part = max(first_part, own_part); //? split
    last_part = min(last_part, own_part); //? split

    var largest$t = LOWEST; //? whole
    var total$t = 0.0; //? whole
    if params.sinks_at > 0u { //? whole
        largest$t = bitcast<f32>(data[params.sinks_at + head$t]); //? whole
        total$t = 1.0; //? whole
    } //? whole
    var sum$t$r = vec4<f32>(0.0); //? whole
    let quad$r = lane * ROWS_A_LANE + $ru;
    for (var part = first_part; part <= last_part; part = part + 1u) {
        var part_largest$t = LOWEST;
        var part_total$t = 0.0;
        var part_sum$t$r = vec4<f32>(0.0);
        let last_block = min(last, part * PART + PART - 1u) / 64u;
        for (var block = max(first, part * PART) / 64u; block <= last_block; block = block + 1u) {
            let start = block * 64u;
            // A lane a position: its scores.
            let own = start + lane;
            var dots$t = vec4<f32>(0.0);
            if own >= first && own <= last {
                for (var i = 0u; i < head_quads; i = i + 1u) {
                    let k = key(first_place + own, kv_at, i);
                    dots$t = dots$t + query(query_at$t, i) * k;
                }
            }
            let sees$t = own >= first$t && own <= last$t;
            var score$t = ((dots$t.x + dots$t.y) + (dots$t.z + dots$t.w)) * params.scale;
            let is_none$t = sees$t && is_no_number(score$t);
            if params.cap > 0.0 {
                score$t = capped(score$t, params.cap);
            }
            if params.bias_at > 0u {
                score$t = score$t + bias_of(head$t, i32(own) - i32(own_position$t));
            }
            score$t = select(LOWEST, score$t, sees$t);
            maxima$t[lane] = score$t;
            for (var half = 32u; half > 0u; half = half / 2u) {
                workgroupBarrier();
                if lane < half {
                    maxima$t[lane] = max(maxima$t[lane], maxima$t[lane + half]);
                }
            }
            workgroupBarrier();
            let new_largest$t = max(part_largest$t, maxima$t[0]);
            let weight$t = exponential(score$t - new_largest$t);
            // No number, and so is what comes of it: a key that was kept as infinite says nothing of how near it is.
            weights$t[lane] = select(weight$t, bitcast<f32>(bitcast<u32>(weight$t) | 0x7fc00000u), is_none$t);
            workgroupBarrier();

            // A lane some values of the head: the positions' share in them.
            if quad0 < head_quads {
                let correction$t = exponential(part_largest$t - new_largest$t);
                part_total$t = part_total$t * correction$t;
                part_sum$t$r = part_sum$t$r * correction$t;
                let end_position = min(last, start + 63u);
                for (var p = max(first, start); p <= end_position; p = p + 1u) {
                    let v$r = value(first_place + p, kv_at, min(quad$r, head_quads - 1u));
                    let share$t = weights$t[p - start];
                    part_total$t = part_total$t + share$t; //? row
                    part_sum$t$r = part_sum$t$r + share$t * v$r; //? row
                    let is_seen$t = p >= first$t && p <= last$t; //? rows
                    part_total$t = select(part_total$t, part_total$t + share$t, is_seen$t); //? rows
                    part_sum$t$r = select(part_sum$t$r, part_sum$t$r + share$t * v$r, is_seen$t); //? rows
                }
            }
            part_largest$t = new_largest$t;
            workgroupBarrier();
        }
        // A part that a row does not see changes nothing of it.
        let sees_part$t = first$t / PART <= part && part <= last$t / PART;
        let new_largest$t = max(largest$t, part_largest$t); //? whole
        let before$t = exponential(largest$t - new_largest$t); //? whole
        let now$t = exponential(part_largest$t - new_largest$t); //? whole
        total$t = select(total$t, added(total$t * before$t, part_total$t * now$t), sees_part$t); //? whole
        sum$t$r = select(sum$t$r, added_fours(sum$t$r * before$t, part_sum$t$r * now$t), sees_part$t); //? whole
        largest$t = select(largest$t, new_largest$t, sees_part$t); //? whole
        if is_there$t && sees_part$t && quad$r < head_quads { leave(part_at(row$t, head$t, part), quad$r, part_largest$t, part_total$t, part_sum$t$r); } //? split
    }
    if is_there$t && quad$r < head_quads { store(query_at$t, quad$r, sum$t$r / total$t); } //? whole
}
