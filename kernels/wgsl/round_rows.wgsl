// Rounding of rows to what the wire can carry, in place: a workgroup a row, by parts/round_f16.wgsl or parts/round_q8.wgsl.
// The definitions are in src/ops/round_rows.rs; both take integers alone, so that every device gives the same bits.

struct Params {
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][width], the bits of f32.
@group(0) @binding(1) var<storage, read_write> x: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    round_row(workgroup.x * params.width, lane);
}
