// RMS norm: a workgroup a row; lane l sums the values l, l + 64, …, then the lanes are added as a tree. Where QUANTISED is on, the rows are
// also stored as activations of 8 bits.

struct Params {
    width: u32,
    // The first row of `x`.
    first_row: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], f32.
@group(0) @binding(1) var<storage, read> x: array<f32>;
// [width], f32.
@group(0) @binding(2) var<storage, read> weight: array<f32>;
// [row][width], f32.
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
// [row][width / 32][3], as parts/quantise.wgsl says.
@group(0) @binding(4) var<storage, read_write> bytes: array<vec4<u32>>; //? quantised

var<workgroup> sums: array<f32, 64>;

fn four(source: u32, scale: f32, at: u32) -> vec4<f32> { //? quantised
    let v = vec4<f32>(x[source], x[source + 1u], x[source + 2u], x[source + 3u]); //? quantised
    return v * scale * vec4<f32>(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u]); //? quantised
} //? quantised

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = (params.first_row + workgroup.x) * params.width;
    var sum = 0.0;
    for (var i = lane; i < params.width; i = i + 64u) {
        let value = x[start + i];
        sum = sum + value * value;
    }
    sums[lane] = sum;
    for (var half = 32u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] = sums[lane] + sums[lane + half];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(sums[0] / f32(params.width) + params.eps);
    let to = workgroup.x * params.width;
    for (var i = lane; i < params.width; i = i + 64u) {
        out[to + i] = x[start + i] * scale * weight[i];
    }
    let n_groups = params.width / 32u; //? quantised
    for (var group = lane; group < n_groups; group = group + 64u) { //? quantised
        var v: array<vec4<f32>, 8>; //? quantised
        for (var i = 0u; i < 8u; i = i + 1u) { //? quantised
            v[i] = four(start + group * 32u + i * 4u, scale, group * 32u + i * 4u); //? quantised
        } //? quantised
        let q = quantised_group(v); //? quantised
        let place = (workgroup.x * n_groups + group) * 3u; //? quantised
        bytes[place] = q.bytes0; //? quantised
        bytes[place + 1u] = q.bytes1; //? quantised
        bytes[place + 2u] = q.head; //? quantised
    } //? quantised
}
