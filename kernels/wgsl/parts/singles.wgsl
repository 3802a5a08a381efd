// Heads of any size, four values at a time: the last four may be fewer, and what is not there counts as 0.

// [token row][n_heads][head_size], f32.
@group(0) @binding(2) var<storage, read> q: array<f32>;
// [slot][position][kv_width], f32, or the words of another type.
@group(0) @binding(3) var<storage, read> k_cache: array<f32>; //? kv f32
@group(0) @binding(4) var<storage, read> v_cache: array<f32>; //? kv f32
@group(0) @binding(3) var<storage, read> k_cache: array<u32>; //? kv words
@group(0) @binding(4) var<storage, read> v_cache: array<u32>; //? kv words
// [token row][n_heads][head_size], f32.
@group(0) @binding(5) var<storage, read_write> out: array<f32>; //? whole

// Which of the four values number `i` of a head are there.
fn held(i: u32) -> vec4<bool> {
    return vec4<u32>(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4<u32>(params.head_size);
}

// Four values, number `i` of those of the head that begins at value `at`.
fn query(at: u32, i: u32) -> vec4<f32> {
    let start = at + 4u * i;
    return select(vec4<f32>(0.0), vec4<f32>(q[start], q[start + 1u], q[start + 2u], q[start + 3u]), held(i));
}

// One of the two values that share a word. //? kv f16
fn half(word: u32, value: u32) -> f32 { //? kv f16
    return select(unpack2x16float(word).x, unpack2x16float(word).y, (value & 1u) == 1u); //? kv f16
} //? kv f16

// The word of a row's scales that holds the value's. //? kv q8
fn scales_at(row: u32, value: u32) -> u32 { //? kv q8
    return row * params.row_words + (kv_width() + 3u) / 4u + value / 64u; //? kv q8
} //? kv q8

// One of the four bytes of a word, as it is signed, times its scale: two scales share a word. //? kv q8
fn scaled(word: u32, scales: u32, value: u32) -> f32 { //? kv q8
    let byte = bitcast<i32>(word << (24u - 8u * (value & 3u))) >> 24u; //? kv q8
    return f32(byte) * bitcast<f32>(select(scales << 16u, scales & 0xffff0000u, (value & 32u) > 0u)); //? kv q8
} //? kv q8

// A value of a cache's row.
fn key_value(row: u32, value: u32) -> f32 {
    return k_cache[row * kv_width() + value]; //? kv f32
    return half(k_cache[row * params.row_words + value / 2u], value); //? kv f16
    return scaled(k_cache[row * params.row_words + value / 4u], k_cache[scales_at(row, value)], value); //? kv q8
}

fn value_value(row: u32, value: u32) -> f32 {
    return v_cache[row * kv_width() + value]; //? kv f32
    return half(v_cache[row * params.row_words + value / 2u], value); //? kv f16
    return scaled(v_cache[row * params.row_words + value / 4u], v_cache[scales_at(row, value)], value); //? kv q8
}

// Four values of a cache's row, number `i` of those of the head that begins at value `at` there.
fn key(row: u32, at: u32, i: u32) -> vec4<f32> {
    let start = at + 4u * i;
    let four = vec4<f32>(
        key_value(row, start), key_value(row, start + 1u), key_value(row, start + 2u), key_value(row, start + 3u)
    );
    return select(vec4<f32>(0.0), four, held(i));
}

fn value(row: u32, at: u32, i: u32) -> vec4<f32> {
    let start = at + 4u * i;
    let four = vec4<f32>(
        value_value(row, start), value_value(row, start + 1u), value_value(row, start + 2u), value_value(row, start + 3u)
    );
    return select(vec4<f32>(0.0), four, held(i));
}

fn store(at: u32, i: u32, four: vec4<f32>) { //? whole
    let there = held(i); //? whole
    let to = at + 4u * i; //? whole
    if there.x { out[to] = four.x; } //? whole
    if there.y { out[to + 1u] = four.y; } //? whole
    if there.z { out[to + 2u] = four.z; } //? whole
    if there.w { out[to + 3u] = four.w; } //? whole
} //? whole
