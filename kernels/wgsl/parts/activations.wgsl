// Activation functions of one value, by their numbers in src/ops/activate.rs.

fn activated(function: u32, value: f32) -> f32 {
    if function == 2u {
        return value / (1.0 + exponential(-value));
    }
    if function == 1u {
        return max(value, 0.0);
    }
    // Twice the root of 2 / pi.
    let u2 = 1.5957691 * (value + 0.044715 * value * value * value);
    return value / (1.0 + exponential(-u2));
}
