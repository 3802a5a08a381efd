// Activation functions of one value, by their numbers in src/ops/activate.rs.

fn activated(function: u32, value: f32) -> f32 {
    if function == 2u {
        return value / (1.0 + exponential(-value));
    }
    if function == 1u {
        return max(value, 0.0);
    }
    if function == 3u {
        let gate = select(value, 7.0, value > 7.0);
        return gate / (1.0 + exponential(-1.702 * gate));
    }
    // Twice the root of 2 / pi.
    let u2 = 1.5957692 * (value + 0.044715 * value * value * value);
    return value / (1.0 + exponential(-u2));
}

// The other factor of a gate, as the function takes it.
fn factored(function: u32, factor: f32) -> f32 {
    if function == 3u {
        let below = select(factor, 7.0, factor > 7.0);
        return select(below, -7.0, below < -7.0) + 1.0;
    }
    return factor;
}
