// Matrix times one or four rows of activations. A lane an output; no barrier, no shared memory; every sum in the order of the columns.

struct Params {
    // Where each row of activations starts in its window, in vec4.
    starts: vec4<u32>,
    // Groups of 32 in a row of the matrix.
    n_groups: u32,
    // The groups of this dispatch.
    first_group: u32,
    n_dispatch_groups: u32,
    // The rows of the matrix that this part holds, of `n_out` in all.
    first_part_row: u32,
    n_part_rows: u32,
    n_out: u32,
    // The first row of `out`, and how many of the four there are.
    first_row: u32,
    n_rows: u32,
    flags: u32,
}

const HAS_BIAS: u32 = 1u;
const HAS_RESIDUAL: u32 = 2u;
// The residual is what `out` held.
const IN_PLACE: u32 = 4u;
// `partial` holds the sums of earlier columns.
const GOES_ON: u32 = 8u;
// More columns follow: the sums go to `partial`.
const UNFINISHED: u32 = 16u;

@group(0) @binding(0) var<uniform> params: Params;
// Windows of 16 KiB on the activations, one a row, f32.
@group(0) @binding(2) var<uniform> x0: array<vec4<f32>, 1024>;
@group(0) @binding(3) var<uniform> x1: array<vec4<f32>, 1024>; //? four_rows
@group(0) @binding(4) var<uniform> x2: array<vec4<f32>, 1024>; //? four_rows
@group(0) @binding(5) var<uniform> x3: array<vec4<f32>, 1024>; //? four_rows
// [row][n_out], f32.
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
// [row][n_out], f32; anything without HAS_RESIDUAL.
@group(0) @binding(7) var<storage, read> residual: array<f32>;
// [n_out], f32; anything without HAS_BIAS.
@group(0) @binding(8) var<storage, read> bias: array<f32>;
// [row of the four][n_part_rows], f32; anything without GOES_ON and UNFINISHED.
@group(0) @binding(9) var<storage, read_write> partial: array<f32>;

fn started(row: u32, lane: u32) -> f32 {
    if (params.flags & GOES_ON) != 0u && row < params.n_rows {
        return partial[row * params.n_part_rows + lane];
    }
    return 0.0;
}

fn finish(row: u32, lane: u32, sum: f32) {
    if row >= params.n_rows {
        return;
    }
    if (params.flags & UNFINISHED) != 0u {
        partial[row * params.n_part_rows + lane] = sum;
        return;
    }
    let column = params.first_part_row + lane;
    let at = (params.first_row + row) * params.n_out + column;
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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.x;
    if lane >= params.n_part_rows {
        return;
    }
    var sum0 = started(0u, lane);
    var sum1 = started(1u, lane); //? four_rows
    var sum2 = started(2u, lane); //? four_rows
    var sum3 = started(3u, lane); //? four_rows
    var scales = vec4<u32>(0u);
    var s = vec4<f32>(0.0);
    for (var i = 0u; i < params.n_dispatch_groups; i = i + 1u) {
        let group = params.first_group + i;
        if group % GROUPS_A_SCALE == 0u {
            scales = scales_of(group, lane);
        }
        let w = dequantise(group, lane, scales);

        let a = params.starts.x + i * 8u;
        s = w.v0 * x0[a];
        s = s + w.v1 * x0[a + 1u];
        s = s + w.v2 * x0[a + 2u];
        s = s + w.v3 * x0[a + 3u];
        s = s + w.v4 * x0[a + 4u];
        s = s + w.v5 * x0[a + 5u];
        s = s + w.v6 * x0[a + 6u];
        s = s + w.v7 * x0[a + 7u];
        sum0 = sum0 + ((s.x + s.y) + (s.z + s.w));

        let b = params.starts.y + i * 8u; //? four_rows
        s = w.v0 * x1[b]; //? four_rows
        s = s + w.v1 * x1[b + 1u]; //? four_rows
        s = s + w.v2 * x1[b + 2u]; //? four_rows
        s = s + w.v3 * x1[b + 3u]; //? four_rows
        s = s + w.v4 * x1[b + 4u]; //? four_rows
        s = s + w.v5 * x1[b + 5u]; //? four_rows
        s = s + w.v6 * x1[b + 6u]; //? four_rows
        s = s + w.v7 * x1[b + 7u]; //? four_rows
        sum1 = sum1 + ((s.x + s.y) + (s.z + s.w)); //? four_rows

        let c = params.starts.z + i * 8u; //? four_rows
        s = w.v0 * x2[c]; //? four_rows
        s = s + w.v1 * x2[c + 1u]; //? four_rows
        s = s + w.v2 * x2[c + 2u]; //? four_rows
        s = s + w.v3 * x2[c + 3u]; //? four_rows
        s = s + w.v4 * x2[c + 4u]; //? four_rows
        s = s + w.v5 * x2[c + 5u]; //? four_rows
        s = s + w.v6 * x2[c + 6u]; //? four_rows
        s = s + w.v7 * x2[c + 7u]; //? four_rows
        sum2 = sum2 + ((s.x + s.y) + (s.z + s.w)); //? four_rows

        let d = params.starts.w + i * 8u; //? four_rows
        s = w.v0 * x3[d]; //? four_rows
        s = s + w.v1 * x3[d + 1u]; //? four_rows
        s = s + w.v2 * x3[d + 2u]; //? four_rows
        s = s + w.v3 * x3[d + 3u]; //? four_rows
        s = s + w.v4 * x3[d + 4u]; //? four_rows
        s = s + w.v5 * x3[d + 5u]; //? four_rows
        s = s + w.v6 * x3[d + 6u]; //? four_rows
        s = s + w.v7 * x3[d + 7u]; //? four_rows
        sum3 = sum3 + ((s.x + s.y) + (s.z + s.w)); //? four_rows
    }
    finish(0u, lane, sum0);
    finish(1u, lane, sum1); //? four_rows
    finish(2u, lane, sum2); //? four_rows
    finish(3u, lane, sum3); //? four_rows
}
