// Activations of 8 bits: a group of 32 values becomes 3 vec4<u32>: 32 signed bytes in order, then for the first 16 and for the last 16
// d (the bits of f32) and the sum of the bytes (i32). The definition is in src/ops/quantise_rows.rs.

struct Quantised {
    bytes0: vec4<u32>,
    bytes1: vec4<u32>,
    head: vec4<u32>,
}

// 16 values.
struct Half {
    bytes: vec4<u32>,
    d: f32,
    sum: i32,
}

fn rounded(v: vec4<f32>, per_step: f32) -> vec4<i32> {
    return vec4<i32>(clamp(round(v * per_step), vec4<f32>(-127.0), vec4<f32>(127.0)));
}

fn packed(q: vec4<i32>) -> u32 {
    let b = vec4<u32>(q) & vec4<u32>(255u);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

fn quantised_half(v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>) -> Half {
    let m = max(max(abs(v0), abs(v1)), max(abs(v2), abs(v3)));
    let largest = max(max(m.x, m.y), max(m.z, m.w));
    // Below this the reciprocal overflows; such values are as good as 0.
    let held = largest > 1.0e-30;
    let per_step = select(0.0, 127.0 / max(largest, 1.0e-30), held);
    let d = select(0.0, largest / 127.0, held);
    let q0 = rounded(v0, per_step);
    let q1 = rounded(v1, per_step);
    let q2 = rounded(v2, per_step);
    let q3 = rounded(v3, per_step);
    let sums = (q0 + q1) + (q2 + q3);
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    return Half(vec4<u32>(packed(q0), packed(q1), packed(q2), packed(q3)), d, sum);
}

fn quantised_group(v: array<vec4<f32>, 8>) -> Quantised {
    let low = quantised_half(v[0], v[1], v[2], v[3]);
    let high = quantised_half(v[4], v[5], v[6], v[7]);
    let head = vec4<u32>(bitcast<u32>(low.d), bitcast<u32>(low.sum), bitcast<u32>(high.d), bitcast<u32>(high.sum));
    return Quantised(low.bytes, high.bytes, head);
}
