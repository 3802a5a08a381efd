// Queries turned, keys turned into their cache, values copied into theirs: a lane two values of the queries, then a lane a unit of the caches'
// type, a row of workgroups a token row. The type is that of parts/keep_f32.wgsl, keep_f16.wgsl or keep_q8.wgsl.

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
    // Words of a cache's row, and units that it is written in.
    row_words: u32,
    n_units: u32,
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
// [slot][position][row_words], u32.
@group(0) @binding(4) var<storage, read_write> k_cache: array<u32>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<u32>;

fn kv_width() -> u32 {
    return params.n_kv_heads * params.head_size;
}

// Where value `i` of the heads of a token row lies, keys counted after queries and values after keys.
fn place(row: u32, i: u32) -> u32 {
    return row * (params.n_heads + 2u * params.n_kv_heads) * params.head_size + i;
}

// Both values of a pair, turned.
fn turned(row: u32, pair: u32, a: f32, b: f32) -> vec2<f32> {
    let angle = params.angles_at + (row * params.n_pairs + pair) * 2u;
    let cosine = bitcast<f32>(data[angle]);
    let sine = bitcast<f32>(data[angle + 1u]);
    return vec2<f32>(a * cosine - b * sine, a * sine + b * cosine);
}

// The bits of value `i` of a token row's keys, turned.
fn key(row: u32, i: u32) -> u32 {
    let head_at = place(row, params.n_heads * params.head_size + i / params.head_size * params.head_size);
    let own = i % params.head_size;
    if own >= 2u * params.n_pairs {
        return bitcast<u32>(qkv[head_at + own]);
    }
    // Neighbours are a pair, or the halves of what turns.
    let is_pairs = params.between == 2u;
    let pair = select(own % params.n_pairs, own / 2u, is_pairs);
    let is_second = select(own / params.n_pairs, own % 2u, is_pairs) == 1u;
    let first = head_at + pair * params.between;
    let both = turned(row, pair, qkv[first], qkv[first + params.within]);
    return bitcast<u32>(select(both.x, both.y, is_second));
}

fn value(row: u32, i: u32) -> u32 {
    return bitcast<u32>(qkv[place(row, (params.n_heads + params.n_kv_heads) * params.head_size + i)]);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let half = (params.head_size + 1u) / 2u;
    let n_turned = params.n_heads * half;
    if id.x >= n_turned + params.n_units {
        return;
    }
    if id.x >= n_turned {
        let row = params.rows_at + id.y * 2u;
        keep(id.y, (data[row] * params.n_positions + data[row + 1u]) * params.row_words, id.x - n_turned);
        return;
    }
    let head = id.x / half;
    let pair = id.x % half;
    let turns = pair < params.n_pairs;
    // Which two values of the head: a pair, or two neighbours that only move.
    let first = select(2u * pair, pair * params.between, turns);
    let second = select(2u * pair + 1u, pair * params.between + params.within, turns);
    let source = place(id.y, head * params.head_size);
    var both = vec2<f32>(qkv[source + first], qkv[source + second]);
    if turns {
        both = turned(id.y, pair, both.x, both.y);
    }
    let to = (id.y * params.n_heads + head) * params.head_size;
    q[to + first] = both.x;
    // The last value of a head of an odd size has no neighbour.
    if second < params.head_size { q[to + second] = both.y; }
}
