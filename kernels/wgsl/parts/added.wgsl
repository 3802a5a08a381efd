// Sums of products that are rounded before they are added. A driver may add without that, and in one kernel otherwise than in another; not through
// bits that are put in between: those of a head's size are all below them, which no compiler knows.

fn added(one: f32, other: f32) -> f32 {
    let none = params.head_size >> 16u;
    return bitcast<f32>(bitcast<u32>(one) | none) + bitcast<f32>(bitcast<u32>(other) | none);
}

fn added_fours(one: vec4<f32>, other: vec4<f32>) -> vec4<f32> {
    let none = vec4<u32>(params.head_size >> 16u);
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(one) | none) + bitcast<vec4<f32>>(bitcast<vec4<u32>>(other) | none);
}
