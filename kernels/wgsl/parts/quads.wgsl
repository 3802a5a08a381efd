// Heads whose size is a multiple of 4, four values at a time.

// [token row][n_heads][head_size], f32.
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>; //? stored
// The same, a window on some rows of it.
@group(0) @binding(2) var<uniform> q: array<vec4<f32>, 1024>; //? windows
// [slot][position][kv_width], f32, or the words of another type.
@group(0) @binding(3) var<storage, read> k_cache: array<vec4<f32>>; //? kv f32
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<f32>>; //? kv f32
@group(0) @binding(3) var<storage, read> k_cache: array<vec2<u32>>; //? kv f16
@group(0) @binding(4) var<storage, read> v_cache: array<vec2<u32>>; //? kv f16
@group(0) @binding(3) var<storage, read> k_cache: array<u32>; //? kv q8
@group(0) @binding(4) var<storage, read> v_cache: array<u32>; //? kv q8
// [token row][n_heads][head_size], f32.
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; //? whole

// Four values, number `i` of those of the head that begins at value `at`.
fn query(at: u32, i: u32) -> vec4<f32> {
    return q[at / 4u + i]; //? stored
    return q[u32(i32(at / 4u + i) + params.queries_at)]; //? windows
}

// Where those of a cache's row lie, in the row; `at` is where the head begins there.
fn four_at(row: u32, at: u32, i: u32) -> u32 {
    return (row * kv_width() + at) / 4u + i; //? kv f32
    return (row * params.row_words + at / 2u) / 2u + i; //? kv f16
    return row * params.row_words + at / 4u + i; //? kv q8
}

fn halves(words: vec2<u32>) -> vec4<f32> { //? kv f16
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)); //? kv f16
} //? kv f16

// Four bytes, as they are signed, times their scale: two scales share a word. //? kv q8
fn scaled(bytes: u32, scales: u32, value: u32) -> vec4<f32> { //? kv q8
    let four = vec4<i32>(vec4<u32>(bytes << 24u, bytes << 16u, bytes << 8u, bytes)) >> vec4<u32>(24u); //? kv q8
    return vec4<f32>(four) * bitcast<f32>(select(scales << 16u, scales & 0xffff0000u, (value & 32u) > 0u)); //? kv q8
} //? kv q8

fn key(row: u32, at: u32, i: u32) -> vec4<f32> {
    let place = four_at(row, at, i);
    return k_cache[place]; //? kv f32
    return halves(k_cache[place]); //? kv f16
    let first = at + 4u * i; //? kv q8
    return scaled(k_cache[place], k_cache[row * params.row_words + (kv_width() + 3u) / 4u + first / 64u], first); //? kv q8
}

fn value(row: u32, at: u32, i: u32) -> vec4<f32> {
    let place = four_at(row, at, i);
    return v_cache[place]; //? kv f32
    return halves(v_cache[place]); //? kv f16
    let first = at + 4u * i; //? kv q8
    return scaled(v_cache[place], v_cache[row * params.row_words + (kv_width() + 3u) / 4u + first / 64u], first); //? kv q8
}

fn store(at: u32, i: u32, four: vec4<f32>) { //? whole
    out[at / 4u + i] = four; //? whole
} //? whole
