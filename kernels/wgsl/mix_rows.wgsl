// Rows mixed, each times its share: a lane a value, a row of workgroups a row.

struct Params {
    width: u32,
    // Rows of x that one row of out is made of.
    n_mixed: u32,
    flags: u32,
}

const HAS_RESIDUAL: u32 = 1u;
// The residual is what `out` held.
const IN_PLACE: u32 = 2u;

@group(0) @binding(0) var<uniform> params: Params;
// [row][n_mixed][width], f32.
@group(0) @binding(1) var<storage, read> x: array<f32>;
// [row][n_mixed], f32.
@group(0) @binding(2) var<storage, read> shares: array<f32>;
// [row][width], f32, both; `residual` is anything without HAS_RESIDUAL.
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let first = id.y * params.n_mixed;
    var sum = 0.0;
    for (var j = first; j < first + params.n_mixed; j = j + 1u) {
        sum = sum + shares[j] * x[j * params.width + id.x];
    }
    let at = id.y * params.width + id.x;
    if (params.flags & IN_PLACE) != 0u {
        sum = sum + out[at];
    } else if (params.flags & HAS_RESIDUAL) != 0u {
        sum = sum + residual[at];
    }
    out[at] = sum;
}
