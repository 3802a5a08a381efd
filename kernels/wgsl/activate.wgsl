// Activation functions of parts/activations.wgsl: a lane a value, a row of workgroups a row.

struct Params {
    width: u32,
    function: u32,
    has_factor: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], f32, all three; `factor` is anything without has_factor.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> factor: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let at = id.y * params.width + id.x;
    var result = activated(params.function, x[at]);
    if params.has_factor == 1u {
        result = result * factored(params.function, factor[at]);
    }
    out[at] = result;
}
