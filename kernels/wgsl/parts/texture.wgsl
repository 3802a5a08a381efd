// Weights from a texture, which some drivers read far faster than a storage buffer.

// One texel a word: x is the row of the part, y the word of the row.
@group(0) @binding(1) var weights: texture_2d<u32>;

fn word(index: u32, row: u32) -> vec4<u32> {
    return textureLoad(weights, vec2<u32>(row, index), 0);
}
