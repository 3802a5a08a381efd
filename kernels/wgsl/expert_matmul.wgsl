// Products of rows with the experts that each has chosen: where those lie, and what becomes of the sums of parts/products.wgsl. A row of
// workgroups a choice.

const HAS_BIAS: u32 = 1u;

// [choice][n_out], f32.
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
// [choice]: numbers of experts, f32.
@group(0) @binding(7) var<storage, read> chosen: array<f32>;
// [expert][n_out], f32; anything without HAS_BIAS.
@group(0) @binding(8) var<storage, read> bias: array<f32>;

// The rows of the part before those of a choice's expert; of one that lies before the part it wraps around. Whatever the number, there is one:
// of what is no number clamp and conversion promise nothing, so the last word is that of integers.
fn rows_before(choice: u32) -> u32 {
    let expert = u32(clamp(chosen[choice], 0.0, f32(params.n_experts - 1u)));
    return min(expert, params.n_experts - 1u) * params.n_out - params.first_part_row;
}

fn store(choice: u32, row: u32, sum: f32) {
    let part_row = rows_before(choice) + row;
    if row >= params.n_out || part_row >= params.n_part_rows {
        return;
    }
    var result = sum;
    if (params.flags & HAS_BIAS) != 0u {
        result = result + bias[params.first_part_row + part_row];
    }
    out[choice * params.n_out + row] = result;
}

fn finish(choice: u32, first: u32, sums: array<f32, ROWS_A_LANE>) {
    store(choice, first + $ru, sums[$r]);
}
