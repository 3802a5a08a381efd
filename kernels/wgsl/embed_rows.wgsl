// Embedding: rows of a matrix, chosen by token. A lane a group of 32 values, a row of workgroups a token.

struct Params {
    // Groups of 32 in a row.
    n_groups: u32,
    // The rows of the matrix that this part holds.
    first_part_row: u32,
    n_part_rows: u32,
    // Where the tokens lie in `data`.
    tokens_at: u32,
    // 1: rows are added to those of `out`.
    adds: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Tokens, u32.
@group(0) @binding(2) var<storage, read> data: array<u32>;
// [token][n_groups * 8], f32.
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let group = id.x;
    // Tokens before the part wrap around and are beyond it, too.
    let row = data[params.tokens_at + id.y] - params.first_part_row;
    if group >= params.n_groups || row >= params.n_part_rows {
        return;
    }
    let w = dequantise(group, row, scales_of(group, row));
    let at = (id.y * params.n_groups + group) * 8u;
    if params.adds == 1u {
        out[at + 0u] = out[at + 0u] + w.v0;
        out[at + 1u] = out[at + 1u] + w.v1;
        out[at + 2u] = out[at + 2u] + w.v2;
        out[at + 3u] = out[at + 3u] + w.v3;
        out[at + 4u] = out[at + 4u] + w.v4;
        out[at + 5u] = out[at + 5u] + w.v5;
        out[at + 6u] = out[at + 6u] + w.v6;
        out[at + 7u] = out[at + 7u] + w.v7;
        return;
    }
    out[at] = w.v0;
    out[at + 1u] = w.v1;
    out[at + 2u] = w.v2;
    out[at + 3u] = w.v3;
    out[at + 4u] = w.v4;
    out[at + 5u] = w.v5;
    out[at + 6u] = w.v6;
    out[at + 7u] = w.v7;
}
