// Attention: a workgroup a head of a token row. Goes through the positions in blocks of 64 that are counted from position 0, with
// a running largest score and sum (Milakov & Gimelshein 2018, arXiv 1805.02867), so the order depends on the positions that the row sees alone.
// Queries, keys, values and the result are those of parts/quads.wgsl or parts/singles.wgsl, four values at a time.

struct Params {
    n_heads: u32,
    // Heads that share one key head.
    heads_a_group: u32,
    head_size: u32,
    // Values of a cache row.
    kv_width: u32,
    n_positions: u32,
    // Positions seen, the row's own included; 0: all.
    window: u32,
    scale: f32,
    // What scores stay below; 0: there is none.
    cap: f32,
    // Where the token rows lie in `data`.
    rows_at: u32,
    // Where the positions seen by each row lie in `data`; 0: those up to its own.
    lengths_at: u32,
    // 0: none, 1: slopes, 2: by distance, from -n_before to n_after.
    bias_kind: u32,
    n_before: u32,
    n_after: u32,
    // Where the bias lies in `data`: [n_heads] or [n_heads][n_before + 1 + n_after], the bits of f32.
    bias_at: u32,
    // Where the sinks lie in `data`: [n_heads], the bits of f32; 0: there are none.
    sinks_at: u32,
    // Words of a cache row.
    row_words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32, and what the parameters say.
@group(0) @binding(1) var<storage, read> data: array<u32>;

const LOWEST: f32 = -3.0e38;

var<workgroup> weights: array<f32, 64>;
var<workgroup> maxima: array<f32, 64>;

// What a score is raised by where `distance` is the position seen less the row's own.
fn bias_of(head: u32, distance: i32) -> f32 {
    if params.bias_kind == 1u {
        return bitcast<f32>(data[params.bias_at + head]) * f32(distance);
    }
    let before = i32(params.n_before);
    let column = u32(clamp(distance, -before, i32(params.n_after)) + before);
    return bitcast<f32>(data[params.bias_at + head * (params.n_before + 1u + params.n_after) + column]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = params.rows_at + workgroup.y * 2u;
    let slot = data[row];
    let own_position = data[row + 1u];
    var position = own_position;
    if params.lengths_at > 0u {
        position = data[params.lengths_at + workgroup.y] - 1u;
    }
    var first = 0u;
    if params.window > 0u && position + 1u > params.window {
        first = position + 1u - params.window;
    }
    let head_quads = (params.head_size + 3u) / 4u;
    let head_at = (workgroup.y * params.n_heads + workgroup.x) * params.head_size;
    let first_row = slot * params.n_positions;
    // Where in a cache's row the head begins.
    let kv_at = workgroup.x / params.heads_a_group * params.head_size;

    var largest = LOWEST;
    var total = 0.0;
    if params.sinks_at > 0u {
        largest = bitcast<f32>(data[params.sinks_at + workgroup.x]);
        total = 1.0;
    }
    var sum = vec4<f32>(0.0);
    for (var block = first / 64u; block <= position / 64u; block = block + 1u) {
        // A lane a position: its score.
        let own = block * 64u + lane;
        var score = LOWEST;
        var is_none = false;
        if own >= first && own <= position {
            var dots = vec4<f32>(0.0);
            for (var i = 0u; i < head_quads; i = i + 1u) {
                dots = dots + query(head_at, i) * key(first_row + own, kv_at, i);
            }
            score = ((dots.x + dots.y) + (dots.z + dots.w)) * params.scale;
            // By its bits: drivers may take it for granted that there are numbers alone.
            is_none = (bitcast<u32>(score) & 0x7f800000u) == 0x7f800000u;
            if params.cap > 0.0 {
                score = capped(score, params.cap);
            }
            if params.bias_kind > 0u {
                score = score + bias_of(workgroup.x, i32(own) - i32(own_position));
            }
        }
        maxima[lane] = score;
        for (var half = 32u; half > 0u; half = half / 2u) {
            workgroupBarrier();
            if lane < half {
                maxima[lane] = max(maxima[lane], maxima[lane + half]);
            }
        }
        workgroupBarrier();
        let new_largest = max(largest, maxima[0]);
        weights[lane] = exponential(score - new_largest);
        if is_none {
            // No number, and so is what comes of it: a key that was kept as infinite says nothing of how near it is.
            weights[lane] = bitcast<f32>(bitcast<u32>(weights[lane]) | 0x7fc00000u);
        }
        workgroupBarrier();

        // A lane four values of the head: the positions' share in them.
        if lane < head_quads {
            let correction = exponential(largest - new_largest);
            total = total * correction;
            sum = sum * correction;
            let start = max(first, block * 64u);
            let end = min(position, block * 64u + 63u);
            for (var p = start; p <= end; p = p + 1u) {
                let weight = weights[p - block * 64u];
                total = total + weight;
                sum = sum + weight * value(first_row + p, kv_at, lane);
            }
        }
        largest = new_largest;
        workgroupBarrier();
    }
    if lane < head_quads {
        store(head_at, lane, sum / total);
    }
}
