// Heads whose size is a multiple of 4, four values at a time.

// [token row][n_heads][head_size], f32.
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
// [slot][position][kv_width], f32.
@group(0) @binding(3) var<storage, read> k_cache: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<f32>>;
// [token row][n_heads][head_size], f32.
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

// Four values, number `i` of those of the head that begins at value `at`.
fn query(at: u32, i: u32) -> vec4<f32> {
    return q[at / 4u + i];
}

fn key(at: u32, i: u32) -> vec4<f32> {
    return k_cache[at / 4u + i];
}

fn value(at: u32, i: u32) -> vec4<f32> {
    return v_cache[at / 4u + i];
}

fn store(at: u32, i: u32, four: vec4<f32>) {
    out[at / 4u + i] = four;
}
