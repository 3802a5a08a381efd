// Rotary position embedding, in place: a lane a pair of values, a row of workgroups a token row.

struct Params {
    n_heads: u32,
    head_size: u32,
    // Pairs turned in each head.
    n_pairs: u32,
    // From one value of a pair to the other, and from one pair to the next.
    within: u32,
    between: u32,
    // Where the angles lie in `data`.
    angles_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][n_pairs][cos, sin], the bits of f32.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][n_heads][head_size], f32.
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_heads * params.n_pairs {
        return;
    }
    let head = id.x / params.n_pairs;
    let pair = id.x % params.n_pairs;
    let angle = params.angles_at + (id.y * params.n_pairs + pair) * 2u;
    let cosine = bitcast<f32>(data[angle]);
    let sine = bitcast<f32>(data[angle + 1u]);
    let at = (id.y * params.n_heads + head) * params.head_size + pair * params.between;
    let a = x[at];
    let b = x[at + params.within];
    x[at] = a * cosine - b * sine;
    x[at + params.within] = a * sine + b * cosine;
}
