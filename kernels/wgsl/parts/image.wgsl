// Weights from a storage image: a texture without levels of detail, of which software drivers look each texel's up.

// One texel a word: x is the row of the part, y the word of the row.
@group(0) @binding(1) var weights: texture_storage_2d<rgba32uint, read>;

fn word(index: u32, row: u32) -> vec4<u32> {
    return textureLoad(weights, vec2<u32>(row, index));
}
