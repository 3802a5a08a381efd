// KV write: a lane a value, a row of workgroups a token row.

struct Params {
    kv_width: u32,
    n_positions: u32,
    // Where the token rows lie in `data`.
    rows_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][kv_width], f32.
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
// [slot][position][kv_width], f32.
@group(0) @binding(4) var<storage, read_write> k_cache: array<f32>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.kv_width {
        return;
    }
    let row = params.rows_at + id.y * 2u;
    let to = (data[row] * params.n_positions + data[row + 1u]) * params.kv_width + id.x;
    let at = id.y * params.kv_width + id.x;
    k_cache[to] = k[at];
    v_cache[to] = v[at];
}
