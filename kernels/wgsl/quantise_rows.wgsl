// Rows to activations of 8 bits: a lane a group of 32 values, a row of workgroups a row.

struct Params {
    n_groups: u32,
    first_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][n_groups * 8], f32.
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
// [row][n_groups][3], as parts/quantise.wgsl says.
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_groups {
        return;
    }
    let group = (params.first_row + id.y) * params.n_groups + id.x;
    let at = group * 8u;
    let q = quantised_group(array(x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u]));
    out[group * 3u] = q.bytes0;
    out[group * 3u + 1u] = q.bytes1;
    out[group * 3u + 2u] = q.head;
}
