// Heads of any size, four values at a time: the last four may be fewer, and what is not there counts as 0.

// [token row][n_heads][head_size], f32.
@group(0) @binding(2) var<storage, read> q: array<f32>;
// [slot][position][kv_width], f32.
@group(0) @binding(3) var<storage, read> k_cache: array<f32>;
@group(0) @binding(4) var<storage, read> v_cache: array<f32>;
// [token row][n_heads][head_size], f32.
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

// Which of the four values number `i` of a head are there.
fn held(i: u32) -> vec4<bool> {
    return vec4<u32>(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4<u32>(params.head_size);
}

// Four values, number `i` of those of the head that begins at value `at`.
fn query(at: u32, i: u32) -> vec4<f32> {
    let start = at + 4u * i;
    return select(vec4<f32>(0.0), vec4<f32>(q[start], q[start + 1u], q[start + 2u], q[start + 3u]), held(i));
}

fn key(at: u32, i: u32) -> vec4<f32> {
    let start = at + 4u * i;
    let four = vec4<f32>(k_cache[start], k_cache[start + 1u], k_cache[start + 2u], k_cache[start + 3u]);
    return select(vec4<f32>(0.0), four, held(i));
}

fn value(at: u32, i: u32) -> vec4<f32> {
    let start = at + 4u * i;
    let four = vec4<f32>(v_cache[start], v_cache[start + 1u], v_cache[start + 2u], v_cache[start + 3u]);
    return select(vec4<f32>(0.0), four, held(i));
}

fn store(at: u32, i: u32, four: vec4<f32>) {
    let there = held(i);
    let to = at + 4u * i;
    if there.x { out[to] = four.x; }
    if there.y { out[to + 1u] = four.y; }
    if there.z { out[to + 2u] = four.z; }
    if there.w { out[to + 3u] = four.w; }
}
