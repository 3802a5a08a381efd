// Codes of 2 to 6 bits, of 4 bits by a table, or of 8 bits with a sign: the planes of src/packing.rs put together.

// Two bits of each of 32 values: word h of two, shifted right by 2 s, has those of the values 16 h + 4 s to 16 h + 4 s + 3.
fn pairs_of(group: u32, row: u32) -> Bytes { //? pairs
    let both = word(pairs_at() + group / 2u, row); //? pairs
    let words = select(both.xy, both.zw, (group & 1u) == 1u); //? pairs
    let shifts = vec4<u32>(0u, 2u, 4u, 6u); //? pairs
    let mask = vec4<u32>(0x03030303u); //? pairs
    return Bytes((vec4<u32>(words.x) >> shifts) & mask, (vec4<u32>(words.y) >> shifts) & mask); //? pairs
} //? pairs

// A bit of each of 32 values: a word, shifted right by s, has those of the values 4 s to 4 s + 3.
fn ones_of(group: u32, row: u32) -> Bytes { //? ones
    let ones = vec4<u32>(word(ones_at() + group / 4u, row)[group & 3u]); //? ones
    let mask = vec4<u32>(0x01010101u); //? ones
    return Bytes((ones >> vec4<u32>(0u, 1u, 2u, 3u)) & mask, (ones >> vec4<u32>(4u, 5u, 6u, 7u)) & mask); //? ones
} //? ones

// The integers of four codes.
fn looked_up(codes: vec4<u32>) -> vec4<u32> { //? table
    var found = vec4<u32>(0u); //? table
    for (var i = 0u; i < 32u; i = i + 8u) { //? table
        let code = (codes >> vec4<u32>(i)) & vec4<u32>(15u); //? table
        let low = select(vec4<u32>(TABLE.x), vec4<u32>(TABLE.y), (code & vec4<u32>(4u)) != vec4<u32>(0u)); //? table
        let high = select(vec4<u32>(TABLE.z), vec4<u32>(TABLE.w), (code & vec4<u32>(4u)) != vec4<u32>(0u)); //? table
        let words = select(low, high, (code & vec4<u32>(8u)) != vec4<u32>(0u)); //? table
        let bytes = (words >> ((code & vec4<u32>(3u)) << vec4<u32>(3u))) & vec4<u32>(255u); //? table
        found = found | (bytes << vec4<u32>(i)); //? table
    } //? table
    return found; //? table
} //? table

// The codes of a group as bytes, with their offset; by a table their integers.
fn bytes_of(group: u32, row: u32) -> Bytes {
    return Bytes(word(group * 2u, row), word(group * 2u + 1u, row)); //? bytes
    let w = word(group, row); //? nibbles
    var low = w & vec4<u32>(0x0f0f0f0fu); //? nibbles
    var high = (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu); //? nibbles
    let pairs = pairs_of(group, row); //? pairs
    let ones = ones_of(group, row); //? ones
    low = low | (pairs.low << vec4<u32>(4u)); //? pairs over nibbles
    high = high | (pairs.high << vec4<u32>(4u)); //? pairs over nibbles
    var low = pairs.low; //? pairs alone
    var high = pairs.high; //? pairs alone
    low = low | (ones.low << vec4<u32>(LOWER_BITS)); //? ones
    high = high | (ones.high << vec4<u32>(LOWER_BITS)); //? ones
    return Bytes(low, high); //? codes
    return Bytes(looked_up(low), looked_up(high)); //? table
}

// Four bytes as numbers, without their offset.
fn numbers(bytes: u32) -> vec4<f32> {
    return vec4<f32>((vec4<u32>(bytes) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)) - vec4<f32>(OFFSET); //? codes
    return vec4<f32>((vec4<i32>(i32(bytes)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u)); //? signed
}

fn scaled_by(bytes: u32, d: f32, m: f32) -> vec4<f32> {
    return d * numbers(bytes); //? no minimum
    return d * numbers(bytes) + vec4<f32>(m); //? minimum
}

fn dequantise(group: u32, row: u32, scales: Scales) -> Group {
    let steps = steps_of(group, scales);
    let d = steps.d * vec2<f32>(steps.factors);
    let m = steps.m * vec2<f32>(steps.minimums);
    let b = bytes_of(group, row);
    return Group(
        scaled_by(b.low.x, d.x, m.x),
        scaled_by(b.low.y, d.x, m.x),
        scaled_by(b.low.z, d.x, m.x),
        scaled_by(b.low.w, d.x, m.x),
        scaled_by(b.high.x, d.y, m.y),
        scaled_by(b.high.y, d.y, m.y),
        scaled_by(b.high.z, d.y, m.y),
        scaled_by(b.high.w, d.y, m.y),
    );
}

// A group's term of the sum, but for the scale of its activations: `dots` are those of either half with the codes, offset and all; `x_sums`
// those of the activations.
fn scaled(steps: Steps, dots: vec2<i32>, x_sums: vec2<i32>) -> f32 {
    let exact = steps.factors * (dots - vec2<i32>(i32(OFFSET)) * x_sums);
    let term = steps.d * f32(exact.x + exact.y);
    return term; //? no minimum
    let minimums = steps.minimums * x_sums; //? minimum
    return term + steps.m * f32(minimums.x + minimums.y); //? minimum
}
