//! Chance: random numbers without a state that a replay would have to carry.

/// A number in [0, 1) of seed and position: SplitMix64 (Steele, Lea and Flood 2014) over their mix.
pub(super) fn uniform(seed: u64, position: u32) -> f64 {
    let mixed = split_mix(split_mix(seed).wrapping_add(u64::from(position)));
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
