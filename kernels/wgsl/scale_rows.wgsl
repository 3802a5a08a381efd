// Rows times a number and held below a cap, in place: a lane a value, a row of workgroups a row.

struct Params {
    width: u32,
    scale: f32,
    // 0: there is none.
    cap: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], f32.
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let at = id.y * params.width + id.x;
    var value = x[at] * params.scale;
    if params.cap > 0.0 {
        value = capped(value, params.cap);
    }
    x[at] = value;
}
