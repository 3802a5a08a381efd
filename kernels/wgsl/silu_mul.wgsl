// The gate of SwiGLU: a lane a value, a row of workgroups a row.

struct Params {
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], f32, all three.
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let at = id.y * params.width + id.x;
    let value = gate[at];
    out[at] = value / (1.0 + exponential(-value)) * up[at];
}
