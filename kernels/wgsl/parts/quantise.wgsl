// Activations of 8 bits: a group of 32 values becomes 3 vec4<u32>: 32 signed bytes in order, then d (the bits of f32), the sum of the bytes
// (i32), 0, 0. The definition is in src/ops/quantise_rows.rs.

struct Quantised {
    bytes0: vec4<u32>,
    bytes1: vec4<u32>,
    head: vec4<u32>,
}

fn rounded(v: vec4<f32>, per_step: f32) -> vec4<i32> {
    return vec4<i32>(clamp(round(v * per_step), vec4<f32>(-127.0), vec4<f32>(127.0)));
}

fn packed(q: vec4<i32>) -> u32 {
    let b = vec4<u32>(q) & vec4<u32>(255u);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

fn quantised_group(v: array<vec4<f32>, 8>) -> Quantised {
    let m = max(max(max(abs(v[0]), abs(v[1])), max(abs(v[2]), abs(v[3]))), max(max(abs(v[4]), abs(v[5])), max(abs(v[6]), abs(v[7]))));
    let largest = max(max(m.x, m.y), max(m.z, m.w));
    // Below this the reciprocal overflows; such values are as good as 0.
    let held = largest > 1.0e-30;
    let per_step = select(0.0, 127.0 / max(largest, 1.0e-30), held);
    let d = select(0.0, largest / 127.0, held);
    let q0 = rounded(v[0], per_step);
    let q1 = rounded(v[1], per_step);
    let q2 = rounded(v[2], per_step);
    let q3 = rounded(v[3], per_step);
    let q4 = rounded(v[4], per_step);
    let q5 = rounded(v[5], per_step);
    let q6 = rounded(v[6], per_step);
    let q7 = rounded(v[7], per_step);
    let sums = ((q0 + q1) + (q2 + q3)) + ((q4 + q5) + (q6 + q7));
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    return Quantised(
        vec4<u32>(packed(q0), packed(q1), packed(q2), packed(q3)),
        vec4<u32>(packed(q4), packed(q5), packed(q6), packed(q7)),
        vec4<u32>(bitcast<u32>(d), bitcast<u32>(sum), 0u, 0u),
    );
}
