// Activations of 8 bits: a group of 32 values becomes 3 vec4<u32>: 32 signed bytes in order, then d (the bits of f32), the sums of the first
// and of the last 16 bytes (i32), and nothing. The definition is in src/ops/quantise_rows.rs.

struct Quantised {
    bytes0: vec4<u32>,
    bytes1: vec4<u32>,
    head: vec4<u32>,
}

// 16 values.
struct Half {
    bytes: vec4<u32>,
    sum: i32,
}

fn magnitudes(v: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
}

fn packed(q: vec4<i32>) -> u32 {
    let b = vec4<u32>(q) & vec4<u32>(255u);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

fn quantised_half(v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>, per_step: f32) -> Half {
    let q0 = vec4<i32>(round(v0 * per_step));
    let q1 = vec4<i32>(round(v1 * per_step));
    let q2 = vec4<i32>(round(v2 * per_step));
    let q3 = vec4<i32>(round(v3 * per_step));
    let sums = (q0 + q1) + (q2 + q3);
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    return Half(vec4<u32>(packed(q0), packed(q1), packed(q2), packed(q3)), sum);
}

fn quantised_group(v: array<vec4<f32>, 8>) -> Quantised {
    let low = max(max(magnitudes(v[0]), magnitudes(v[1])), max(magnitudes(v[2]), magnitudes(v[3])));
    let high = max(max(magnitudes(v[4]), magnitudes(v[5])), max(magnitudes(v[6]), magnitudes(v[7])));
    let most = max(low, high);
    let largest = max(max(most.x, most.y), max(most.z, most.w));
    let exponent = largest >> 23u;
    if exponent < 28u || exponent > 244u {
        // So small that they are zeros, or so large that they are no number.
        return Quantised(vec4<u32>(0u), vec4<u32>(0u), vec4<u32>(select(0u, 0x7fc00000u, exponent > 244u), 0u, 0u, 0u));
    }
    let upper = (((largest & 0x7fffffu) | 0x800000u) + 0xfffu) >> 12u;
    let per_step = f32(133169152u / upper) * bitcast<f32>((245u - exponent) << 23u);
    let d = f32(upper) * bitcast<f32>(0x3c010204u) * bitcast<f32>((exponent - 11u) << 23u);
    let first = quantised_half(v[0], v[1], v[2], v[3], per_step);
    let last = quantised_half(v[4], v[5], v[6], v[7], per_step);
    let head = vec4<u32>(bitcast<u32>(d), bitcast<u32>(first.sum), bitcast<u32>(last.sum), 0u);
    return Quantised(first.bytes, last.bytes, head);
}
