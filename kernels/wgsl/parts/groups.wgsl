// Groups of 32 weights, unpacked: what every weight type becomes before it is multiplied.

struct Group {
    v0: vec4<f32>,
    v1: vec4<f32>,
    v2: vec4<f32>,
    v3: vec4<f32>,
    v4: vec4<f32>,
    v5: vec4<f32>,
    v6: vec4<f32>,
    v7: vec4<f32>,
}

// Groups of 32 values of 8 bits, in the order of the values, signed.
struct Bytes {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn dot_bytes(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return (dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y)) + (dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w));
}

// Words of nibbles of two rows side by side: the halves of each word are two bytes of the even row and the same two of the odd one.
struct Pair {
    // The first two bytes of each word.
    front: vec4<u32>,
    // The last two.
    back: vec4<u32>,
}

fn pair_of(even: vec4<u32>, odd: vec4<u32>) -> Pair {
    let front = (even & vec4<u32>(0xffffu)) | (odd << vec4<u32>(16u));
    let back = (even >> vec4<u32>(16u)) | (odd & vec4<u32>(0xffff0000u));
    return Pair(front, back);
}

// The sums of the low nibbles of both rows times 16 activations of 8 bits, one multiplication for two: the even row's is at most
// 16 * 15 * 127 = 30480, so the lower 16 bits hold it with its sign, and what it borrows from the odd row's is given back.
fn dot_pair(front: vec4<u32>, back: vec4<u32>, x: vec4<u32>) -> vec2<i32> {
    let nibbles = vec4<u32>(0x000f000fu);
    let x0 = vec4<u32>(vec4<i32>(x << vec4<u32>(24u)) >> vec4<u32>(24u));
    let x1 = vec4<u32>(vec4<i32>(x << vec4<u32>(16u)) >> vec4<u32>(24u));
    let x2 = vec4<u32>(vec4<i32>(x << vec4<u32>(8u)) >> vec4<u32>(24u));
    let x3 = vec4<u32>(vec4<i32>(x) >> vec4<u32>(24u));
    let s = ((front & nibbles) * x0 + ((front >> vec4<u32>(8u)) & nibbles) * x1)
        + ((back & nibbles) * x2 + ((back >> vec4<u32>(8u)) & nibbles) * x3);
    let both = bitcast<i32>((s.x + s.y) + (s.z + s.w));
    let even = (both << 16u) >> 16u;
    return vec2<i32>(even, (both - even) >> 16u);
}

// What a group is scaled by: its integers by d, the sum of its activations by m, where there is a minimum; before that either by the factor
// of their half, which is 1 where there is none.
struct Steps {
    d: f32,
    m: f32,
    factors: vec2<i32>,
    minimums: vec2<i32>,
}

// The f16 at a place of a plane that begins with word `plane`.
fn half_at(plane: u32, place: u32, row: u32) -> f32 {
    let halves = unpack2x16float(word(plane + place / 8u, row)[(place >> 1u) & 3u]);
    return select(halves.x, halves.y, (place & 1u) == 1u);
}
