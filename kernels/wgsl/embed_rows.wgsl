// Embedding: rows of a matrix, chosen by token. A lane a group of 32 values, a row of workgroups a token.

struct Params {
    // Groups of 32 in a row, and the values of one.
    n_groups: u32,
    width: u32,
    // The rows of the matrix that this part holds.
    first_part_row: u32,
    n_part_rows: u32,
    // Where the tokens lie in `data`.
    tokens_at: u32,
    // 1: rows are added to those of `out`.
    adds: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Tokens, u32.
@group(0) @binding(2) var<storage, read> data: array<u32>;
// [token][width], f32.
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn store(row: u32, column: u32, value: f32) {
    if column < params.width {
        let at = row * params.width + column;
        let scaled = value * params.scale;
        out[at] = select(scaled, out[at] + scaled, params.adds == 1u);
    }
}

fn store_four(row: u32, column: u32, values: vec4<f32>) {
    store(row, column, values.x);
    store(row, column + 1u, values.y);
    store(row, column + 2u, values.z);
    store(row, column + 3u, values.w);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let group = id.x;
    // Tokens before the part wrap around and are beyond it, too.
    let row = data[params.tokens_at + id.y] - params.first_part_row;
    if group >= params.n_groups || row >= params.n_part_rows {
        return;
    }
    let w = dequantise(group, row, scales_of(group, row));
    let column = group * 32u;
    store_four(id.y, column, w.v0);
    store_four(id.y, column + 4u, w.v1);
    store_four(id.y, column + 8u, w.v2);
    store_four(id.y, column + 12u, w.v3);
    store_four(id.y, column + 16u, w.v4);
    store_four(id.y, column + 20u, w.v5);
    store_four(id.y, column + 24u, w.v6);
    store_four(id.y, column + 28u, w.v7);
}
