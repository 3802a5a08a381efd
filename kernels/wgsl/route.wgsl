// Routing: the experts that a row takes, and their shares. A workgroup a row, a lane an expert.

struct Params {
    n_experts: u32,
    n_chosen: u32,
    // 1: shares are of a softmax over all experts, not over the chosen ones.
    over_all: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [row][n_experts], the bits of f32.
@group(0) @binding(1) var<storage, read> logits: array<u32>;
// [row][n_chosen], f32, both.
@group(0) @binding(2) var<storage, read_write> chosen: array<f32>;
@group(0) @binding(3) var<storage, read_write> shares: array<f32>;

// The logits of the chosen, the largest first.
var<workgroup> best: array<f32, 64>;

// As in src/ops/route.rs.
fn key(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = row.y * params.n_experts;
    for (var expert = lane; expert < params.n_experts; expert = expert + WORKGROUP) {
        let bits = logits[at + expert];
        let own = key(bits);
        // How many come before it.
        var rank = 0u;
        for (var other = 0u; other < params.n_experts; other = other + 1u) {
            let theirs = key(logits[at + other]);
            rank = rank + select(0u, 1u, theirs > own || (theirs == own && other < expert));
        }
        if rank < params.n_chosen {
            best[rank] = bitcast<f32>(bits);
            chosen[row.y * params.n_chosen + rank] = f32(expert);
        }
    }
    workgroupBarrier();
    let largest = best[0];
    var sum = 0.0;
    if params.over_all == 1u {
        for (var other = 0u; other < params.n_experts; other = other + 1u) {
            sum = sum + exponential(bitcast<f32>(logits[at + other]) - largest);
        }
    } else {
        for (var rank = 0u; rank < params.n_chosen; rank = rank + 1u) {
            sum = sum + exponential(best[rank] - largest);
        }
    }
    for (var rank = lane; rank < params.n_chosen; rank = rank + WORKGROUP) {
        shares[row.y * params.n_chosen + rank] = params.scale * (exponential(best[rank] - largest) / sum);
    }
}
