// Rows filled up with zeros to whole groups: a lane four values, a row of workgroups a row.

struct Params {
    width: u32,
    // Fours of a row that is filled up.
    n_fours: u32,
    first_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], f32.
@group(0) @binding(1) var<storage, read> x: array<f32>;
// [row][n_fours], f32.
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

fn value(row: u32, column: u32) -> f32 {
    if column < params.width {
        return x[row * params.width + column];
    }
    return 0.0;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_fours {
        return;
    }
    let row = params.first_row + id.y;
    let column = id.x * 4u;
    let four = vec4<f32>(value(row, column), value(row, column + 1u), value(row, column + 2u), value(row, column + 3u));
    out[row * params.n_fours + id.x] = four;
}
