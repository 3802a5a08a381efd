// Matrix times rows: what becomes of the sums of parts/products.wgsl.

const HAS_BIAS: u32 = 1u;
const HAS_RESIDUAL: u32 = 2u;
// The residual is what `out` held.
const IN_PLACE: u32 = 4u;

// [row][n_out], f32.
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
// [row][n_out], f32; anything without HAS_RESIDUAL.
@group(0) @binding(7) var<storage, read> residual: array<f32>;
// [n_out], f32; anything without HAS_BIAS.
@group(0) @binding(8) var<storage, read> bias: array<f32>;

fn store(token_row: u32, row: u32, sum: f32) {
    if row >= params.n_part_rows {
        return;
    }
    let column = params.first_part_row + row;
    let at = token_row * params.n_out + column;
    var result = sum;
    if (params.flags & HAS_BIAS) != 0u {
        result = result + bias[column];
    }
    if (params.flags & IN_PLACE) != 0u {
        result = result + out[at];
    } else if (params.flags & HAS_RESIDUAL) != 0u {
        result = result + residual[at];
    }
    out[at] = result;
}

fn finish(token_row: u32, first: u32, sums: array<f32, ROWS_A_LANE>) {
    store(token_row, first + $ru, sums[$r]);
}
