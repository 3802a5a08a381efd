// KV write: a lane a unit of the caches' type, a row of workgroups a token row. The type is that of parts/keep_f32.wgsl, keep_f16.wgsl or
// keep_q8.wgsl.

struct Params {
    kv_width: u32,
    n_positions: u32,
    // Words of a cache's row, and units that it is written in.
    row_words: u32,
    n_units: u32,
    // Where the token rows lie in `data`.
    rows_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][kv_width], the bits of f32.
@group(0) @binding(2) var<storage, read> k: array<u32>;
@group(0) @binding(3) var<storage, read> v: array<u32>;
// [slot][position][row_words], u32.
@group(0) @binding(4) var<storage, read_write> k_cache: array<u32>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<u32>;

fn kv_width() -> u32 {
    return params.kv_width;
}

// The bits of value `i` of a token row's keys.
fn key(row: u32, i: u32) -> u32 {
    return k[row * params.kv_width + i];
}

fn value(row: u32, i: u32) -> u32 {
    return v[row * params.kv_width + i];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_units {
        return;
    }
    let row = params.rows_at + id.y * 2u;
    keep(id.y, (data[row] * params.n_positions + data[row + 1u]) * params.row_words, id.x);
}
