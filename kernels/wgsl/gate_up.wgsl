// A gate and its way up: what becomes of the sums of parts/products.wgsl, whose even rows are the gate's and whose odd ones are up's.

// The low bits of the flags: the gate's function, as parts/activations.wgsl numbers it.
const FUNCTION: u32 = 7u;

// [row][n_out / 2], f32.
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

fn store(token_row: u32, row: u32, gate: f32, up: f32) {
    if row >= params.n_part_rows {
        return;
    }
    let column = (params.first_part_row + row) / 2u;
    let function = params.flags & FUNCTION;
    out[token_row * (params.n_out / 2u) + column] = activated(function, gate) * factored(function, up);
}

fn finish(token_row: u32, first: u32, sums: array<f32, ROWS_A_LANE>) {
    store(token_row, first + $eu, sums[$e], sums[$o]);
}
