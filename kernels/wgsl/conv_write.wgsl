// What a short convolution goes over, into its cache: a lane a value, a row of workgroups a token row.

struct Params {
    width: u32,
    n_positions: u32,
    // Where the token rows lie in `data`.
    rows_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][3][width], f32.
@group(0) @binding(2) var<storage, read> x: array<f32>;
// [slot][position][width], f32.
@group(0) @binding(3) var<storage, read_write> cache: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let row = params.rows_at + id.y * 2u;
    let to = (data[row] * params.n_positions + data[row + 1u]) * params.width + id.x;
    let at = id.y * 3u * params.width + id.x;
    cache[to] = x[at] * x[at + 2u * params.width];
}
