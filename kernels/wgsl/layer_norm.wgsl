// Layer norm: a workgroup a row; lane l sums the values l, l + 64, ..., then the lanes are added as a tree, first for the mean, then for the
// mean square of what differs from it.

struct Params {
    width: u32,
    // The first row of `x`.
    first_row: u32,
    eps: f32,
    has_bias: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], f32.
@group(0) @binding(1) var<storage, read> x: array<f32>;
// [width], f32, both; `bias` is anything without has_bias.
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
// [row][width], f32.
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, 64>;

// The sum of every lane's value, in every lane.
fn total(lane: u32, own: f32) -> f32 {
    sums[lane] = own;
    for (var half = 32u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] = sums[lane] + sums[lane + half];
        }
    }
    workgroupBarrier();
    let result = sums[0];
    workgroupBarrier();
    return result;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = (params.first_row + workgroup.x) * params.width;
    var sum = 0.0;
    for (var i = lane; i < params.width; i = i + 64u) {
        sum = sum + x[start + i];
    }
    let mean = total(lane, sum) / f32(params.width);
    var squares = 0.0;
    for (var i = lane; i < params.width; i = i + 64u) {
        let value = x[start + i] - mean;
        squares = squares + value * value;
    }
    let scale = 1.0 / sqrt(total(lane, squares) / f32(params.width) + params.eps);
    let to = workgroup.x * params.width;
    for (var i = lane; i < params.width; i = i + 64u) {
        var value = (x[start + i] - mean) * scale * weight[i];
        if params.has_bias == 1u {
            value = value + bias[i];
        }
        out[to + i] = value;
    }
}
