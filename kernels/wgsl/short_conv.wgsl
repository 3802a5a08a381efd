// A short causal convolution of every channel, gated: a lane a channel, a row of workgroups a token row.

struct Params {
    width: u32,
    n_positions: u32,
    n_taps: u32,
    // Where the token rows lie in `data`.
    rows_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][3][width], f32: the gate is the second.
@group(0) @binding(2) var<storage, read> x: array<f32>;
// [width][n_taps], f32.
@group(0) @binding(3) var<storage, read> taps: array<f32>;
// [slot][position][width], f32.
@group(0) @binding(4) var<storage, read> cache: array<f32>;
// [token row][width], f32.
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let row = params.rows_at + id.y * 2u;
    let end = data[row + 1u] + 1u;
    let n_seen = min(end, params.n_taps);
    let slot_at = data[row] * params.n_positions;
    var sum = 0.0;
    for (var t = 0u; t < n_seen; t = t + 1u) {
        let tap = taps[(id.x + 1u) * params.n_taps - n_seen + t];
        sum = sum + tap * cache[(slot_at + end - n_seen + t) * params.width + id.x];
    }
    out[id.y * params.width + id.x] = sum * x[(id.y * 3u + 1u) * params.width + id.x];
}
