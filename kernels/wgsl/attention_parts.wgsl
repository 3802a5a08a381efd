// The parts of attention in one: a lane four values of a head, a row of workgroups a row. As attention.wgsl adds them where a workgroup takes
// all of them.

struct Params {
    n_heads: u32,
    head_size: u32,
    // As attention.wgsl has them.
    window: u32,
    lengths_at: u32,
    sinks_at: u32,
    first_part: u32,
    n_parts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [token row][slot, position], u32, and what the parameters say.
@group(0) @binding(1) var<storage, read> data: array<u32>;
// [token row][n_heads][part][1 + fours of a head]: the largest score and the sum of the weights, then the sums of the values.
@group(0) @binding(2) var<storage, read_write> parts: array<vec4<f32>>;
// [token row][n_heads][head_size], f32.
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let head_quads = (params.head_size + 3u) / 4u;
    if id.x >= params.n_heads * head_quads {
        return;
    }
    let row = id.y;
    let head = id.x / head_quads;
    let quad = id.x % head_quads;
    var last = data[row * 2u + 1u];
    if params.lengths_at > 0u {
        last = data[params.lengths_at + row] - 1u;
    }
    let first = select(0u, last + 1u - params.window, params.window > 0u && last + 1u > params.window);

    var largest = -3.0e38;
    var total = 0.0;
    if params.sinks_at > 0u {
        largest = bitcast<f32>(data[params.sinks_at + head]);
        total = 1.0;
    }
    var sum = vec4<f32>(0.0);
    for (var part = first / PART; part <= last / PART; part = part + 1u) {
        let at = ((row * params.n_heads + head) * params.n_parts + (part - params.first_part)) * (1u + head_quads);
        let new_largest = max(largest, parts[at].x);
        let before = exponential(largest - new_largest);
        let now = exponential(parts[at].x - new_largest);
        total = added(total * before, parts[at].y * now);
        sum = added_fours(sum * before, parts[at + 1u + quad] * now);
        largest = new_largest;
    }
    let to = (row * params.n_heads + head) * params.head_size + quad * 4u;
    for (var i = 0u; i < min(4u, params.head_size - quad * 4u); i = i + 1u) {
        out[to + i] = sum[i] / total;
    }
}
