// Queries turned, keys turned into their cache, values copied into theirs: a lane two values, a row of workgroups a token row.

struct Params {
    n_heads: u32,
    n_kv_heads: u32,
    head_size: u32,
    // Pairs turned in each head; the values after them are copied.
    n_pairs: u32,
    // From one value of a pair to the other, and from one pair to the next.
    within: u32,
    between: u32,
    n_positions: u32,
    // Where the angles and the token rows lie in `data`.
    angles_at: u32,
    rows_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32, and [token row][n_pairs][cos, sin], the bits of f32.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][n_heads + 2 n_kv_heads][head_size], f32: queries, keys, values.
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
// [token row][n_heads][head_size], f32.
@group(0) @binding(3) var<storage, read_write> q: array<f32>;
// [slot][position][n_kv_heads][head_size], f32.
@group(0) @binding(4) var<storage, read_write> k_cache: array<f32>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let half = (params.head_size + 1u) / 2u;
    let head = id.x / half;
    let n_all = params.n_heads + 2u * params.n_kv_heads;
    if head >= n_all {
        return;
    }
    let pair = id.x % half;
    let turned = pair < params.n_pairs && head < params.n_heads + params.n_kv_heads;
    // Which two values of the head: a pair, or two neighbours that only move.
    let first = select(2u * pair, pair * params.between, turned);
    let second = select(2u * pair + 1u, pair * params.between + params.within, turned);
    // The last value of a head of an odd size has no neighbour.
    let has_second = second < params.head_size;
    let source = (id.y * n_all + head) * params.head_size;
    var a = qkv[source + first];
    var b = qkv[source + second];
    if turned {
        let angle = params.angles_at + (id.y * params.n_pairs + pair) * 2u;
        let cosine = bitcast<f32>(data[angle]);
        let sine = bitcast<f32>(data[angle + 1u]);
        let x = a;
        a = x * cosine - b * sine;
        b = x * sine + b * cosine;
    }
    let row = params.rows_at + id.y * 2u;
    let place = (data[row] * params.n_positions + data[row + 1u]) * params.n_kv_heads;
    if head < params.n_heads {
        let to = (id.y * params.n_heads + head) * params.head_size;
        q[to + first] = a;
        if has_second { q[to + second] = b; }
    } else if head < params.n_heads + params.n_kv_heads {
        let to = (place + head - params.n_heads) * params.head_size;
        k_cache[to + first] = a;
        if has_second { k_cache[to + second] = b; }
    } else {
        let to = (place + head - params.n_heads - params.n_kv_heads) * params.head_size;
        v_cache[to + first] = a;
        if has_second { v_cache[to + second] = b; }
    }
}
