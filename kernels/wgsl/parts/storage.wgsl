// Weights from a storage buffer.

// [word][row of the part], 16 bytes each.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

fn word(index: u32, row: u32) -> vec4<u32> {
    return weights[index * params.n_part_rows + row];
}
