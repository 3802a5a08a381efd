// e to the x from multiplications and additions only, as src/cpu/exponential.rs: a driver's own is not the same on every device.

fn exponential(value: f32) -> f32 {
    let x = clamp(value, -87.0, 88.0);
    let n = round(x * 1.44269504);
    let r = x - n * 0.693359375 - n * -2.12194440e-4;
    var p = 1.9875691e-4;
    p = p * r + 1.3981999e-3;
    p = p * r + 8.3334520e-3;
    p = p * r + 4.1665796e-2;
    p = p * r + 1.6666666e-1;
    p = p * r + 0.5;
    // A driver may add the 1 to r first (Mesa does), but not through bits that are put in between: the exponent is below 512, so all of them
    // are zeros, which no compiler knows.
    let exponent = u32(i32(n) + 127);
    let below = bitcast<f32>(bitcast<u32>(p * (r * r) + r) | (exponent >> 9u));
    return (below + 1.0) * bitcast<f32>(exponent << 23u);
}

// What stays below `cap`: cap tanh(x / cap).
fn capped(x: f32, cap: f32) -> f32 {
    return cap * (1.0 - 2.0 / (1.0 + exponential(2.0 * (x / cap))));
}
