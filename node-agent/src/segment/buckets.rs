//! Buckets of distances: the learned biases of T5's self-attention, spread over the distances (Raffel et al. 2019, arXiv 1910.10683).

use polyphony_kernels::{Engine, PositionBias};
use polyphony_model::{Encoder, Hyperparameters, Role};

use super::SegmentError;
use super::loaded::Loaded;

/// From this distance on all are in the last bucket; no file says another.
const FARTHEST: u32 = 128;

/// The biases of an encoder, whose positions see both ways.
pub(super) fn of_encoder(
    engine: &mut dyn Engine,
    loaded: &Loaded,
    of: &Hyperparameters,
    shape: Encoder,
) -> Result<PositionBias, SegmentError> {
    let (from, to) = (-i64::from(FARTHEST), i64::from(FARTHEST));
    let buckets: Vec<u32> = (from..=to).map(|relative| encoder_bucket(relative, shape.n_buckets)).collect();
    let biases = loaded.table(Role::EncoderRelativeBias)?;
    let table = engine.load_vector(&spread(biases, of.n_heads as usize, &buckets))?;
    Ok(PositionBias::Distances { table, n_before: FARTHEST, n_after: FARTHEST })
}

/// The biases of a decoder, whose positions see those before them.
pub(super) fn of_decoder(
    engine: &mut dyn Engine,
    loaded: &Loaded,
    of: &Hyperparameters,
    shape: Encoder,
) -> Result<PositionBias, SegmentError> {
    let buckets: Vec<u32> = (0..=FARTHEST).rev().map(|distance| bucket(distance, shape.n_buckets)).collect();
    let biases = loaded.table(Role::DecoderRelativeBias)?;
    let table = engine.load_vector(&spread(biases, of.n_heads as usize, &buckets))?;
    Ok(PositionBias::Distances { table, n_before: FARTHEST, n_after: 0 })
}

/// `[head][distance]` of `[bucket][head]`.
fn spread(biases: &[f32], n_heads: usize, buckets: &[u32]) -> Vec<f32> {
    let of = |head: usize| buckets.iter().map(move |bucket| biases[*bucket as usize * n_heads + head]);
    (0..n_heads).flat_map(of).collect()
}

/// The bucket of a position seen that is `relative` after the row's own; half of them are for those after it.
fn encoder_bucket(relative: i64, n_buckets: u32) -> u32 {
    let half = n_buckets / 2;
    let distance = relative.unsigned_abs().min(u64::from(FARTHEST)) as u32;
    bucket(distance, half) + if relative > 0 { half } else { 0 }
}

/// Distances below half the buckets have one each; the others share the rest by the logarithm of their distance up to [`FARTHEST`].
fn bucket(distance: u32, n_buckets: u32) -> u32 {
    let exact = n_buckets / 2;
    if distance < exact {
        return distance;
    }
    let [distance, exact_end, farthest] = [distance, exact, FARTHEST].map(f64::from);
    let share = (distance / exact_end).ln() / (farthest / exact_end).ln() * f64::from(n_buckets - exact);
    // A distance on an edge belongs to the bucket that begins there; its logarithm may come out a trifle below.
    (exact + (share + 1e-9) as u32).min(n_buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_fall_into_the_buckets_of_the_paper() {
        // 32 buckets of a decoder: 16 of one distance each, then 16 up to 128.
        let decoder = [0, 1, 15, 16, 18, 19, 127, 128, 5000].map(|distance| bucket(distance, 32));
        assert_eq!(decoder, [0, 1, 15, 16, 16, 17, 31, 31, 31]);
        // 8 buckets of an encoder: four each way, 16 exactly on the edge between the last two.
        let before = [0, -1, -2, -15, -16, -128, -9999].map(|relative| encoder_bucket(relative, 8));
        assert_eq!(before, [0, 1, 2, 2, 3, 3, 3]);
        let after = [1, 2, 15, 16, 9999].map(|relative| encoder_bucket(relative, 8));
        assert_eq!(after, [5, 6, 6, 7, 7]);
    }
}
