//! A trial: times a segment before it serves, so that its first plan need not guess.
//!
//! Its rows go to the first slot, whose KV cache every session overwrites from position 0 on.

use std::time::{Duration, Instant};

use polyphony_kernels::Row;

use crate::pace::{Figures, Shares};
use crate::segment::{Input, Segment, SegmentError};

/// A trial ends when it has taken this long, with what it knows by then.
const BUDGET: Duration = Duration::from_millis(800);
/// The mean of so many runs counts but for the slowest: a phone with a share of a CPU takes turns, and a hiccup is no pace.
const RUNS: usize = 5;
/// Rows of a decode step that further rows are timed by, and of a prefill chunk.
const BATCH_ROWS: usize = 4;

/// Runs steps of one row, of a few, and of a whole chunk, without and with logits.
///
/// # Errors
/// When a step fails: the segment could not serve either.
pub fn run(segment: &mut Segment) -> Result<(Shares, Figures), SegmentError> {
    let began = Instant::now();
    let n_layers = segment.n_layers().max(1) as f64;
    let capacity = segment.capacity();
    let mean = |segment: &mut Segment, n_rows: usize, n_logits: usize| -> Result<Option<f64>, SegmentError> {
        let mut runs = Vec::with_capacity(RUNS);
        if n_rows <= capacity.max_rows.min(capacity.n_positions) {
            while runs.len() < RUNS && began.elapsed() <= BUDGET {
                runs.push(seconds_of(segment, n_rows, n_logits)?);
            }
        }
        Ok(mean_but_the_slowest(runs))
    };
    // The first step of all touches weights that nothing has touched yet.
    seconds_of(segment, 1, 0)?;
    let one = mean(segment, 1, 0)?;
    let with_head = if segment.holds_head() { mean(segment, 1, 1)? } else { None };
    let few = mean(segment, BATCH_ROWS, 0)?;
    let chunk = mean(segment, capacity.max_rows, 0)?;
    let layer = one.map(|seconds| seconds / n_layers);
    let head = with_head.zip(one).map(|(with, without)| (with - without).max(0.0));
    let shares = Shares {
        head_in_layers: head.zip(layer).map_or(0.0, |(head, layer)| head / layer),
        further_row: few
            .zip(one)
            .map_or(1.0, |(few, one)| ((few / one - 1.0) / (BATCH_ROWS - 1) as f64).clamp(0.0, 1.0)),
    };
    let figures = Figures {
        seconds_per_layer: layer,
        layers_timed: segment.n_layers() as u32,
        prefill_seconds_per_layer_per_token: chunk.map(|seconds| seconds / (n_layers * capacity.max_rows as f64)),
        seconds_besides_layers: if segment.holds_head() { head } else { None },
    };
    Ok((shares, figures))
}

fn mean_but_the_slowest(mut runs: Vec<f64>) -> Option<f64> {
    runs.sort_unstable_by(f64::total_cmp);
    let kept = &runs[..runs.len().saturating_sub(1).max(1).min(runs.len())];
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

fn seconds_of(segment: &mut Segment, n_rows: usize, n_logits: usize) -> Result<f64, SegmentError> {
    let rows: Vec<Row> = (0..n_rows as u32).map(|position| Row { slot: 0, position }).collect();
    let input = if segment.holds_embedding() {
        Input::Tokens(vec![0; n_rows])
    } else {
        // Not zeros: a norm of zeros would make every product one with zero.
        Input::Hidden((0..n_rows * segment.hidden_size()).map(|at| (at % 7) as f32 - 3.0).collect())
    };
    let began = Instant::now();
    segment.step(&rows, input, n_logits)?;
    Ok(began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::mean_but_the_slowest;

    #[test]
    fn a_hiccup_does_not_count() {
        assert_eq!(mean_but_the_slowest(vec![]), None);
        assert_eq!(mean_but_the_slowest(vec![2.0]), Some(2.0));
        assert_eq!(mean_but_the_slowest(vec![1.0, 90.0, 3.0]), Some(2.0));
    }
}
