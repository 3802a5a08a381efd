//! A trial: times a segment before it serves, so that its first plan need not guess.
//!
//! Its rows go to the first slot, whose KV cache every session overwrites from position 0 on.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use polyphony_kernels::Row;

use crate::pace::{Figures, Shares};
use crate::segment::{AnySegment, DecoderRow, Input, SegmentError};

/// A trial ends when it has taken this long, with what it knows by then.
const BUDGET: Duration = Duration::from_millis(800);
/// So many runs of each kind. A pace is their mean but for the slowest: a phone with a share of a CPU takes turns, and a hiccup is no
/// pace. A part of a step is the median of what one run differs from the one before.
const RUNS: usize = 5;
/// Rows of a decode step that further rows are timed by, and of a prefill chunk.
const BATCH_ROWS: usize = 4;

/// Trials of segments that are loaded at once, one after the other: each would else measure the others too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Whoever has the turn for longer is not waited for: a driver may hang in it for ever.
const LONGEST_TURN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Runs steps of one row, of a few, and of a whole chunk, without and with logits. Where nothing decodes, prompts of as many tokens.
///
/// # Errors
/// When a step fails: the segment could not serve either.
pub fn run(segment: &mut AnySegment) -> Result<(Shares, Figures), SegmentError> {
    let _turn = turn();
    let began = Instant::now();
    let timed = n_layers_timed(segment);
    let n_layers = timed.max(1) as f64;
    let capacity = segment.capacity();
    if let AnySegment::EncoderDecoder(segment) = segment
        && segment.decodes()
    {
        // A step attends to one position of an encoder's output at least.
        segment.take_encoded(0, values(segment.hidden_size()))?;
    }
    // The first step of all touches weights that nothing has touched yet.
    seconds_of(segment, 1, 0)?;
    let has_head = segment.holds().head;
    let is_over = || began.elapsed() > BUDGET;
    let fits = |n_rows: usize| n_rows <= capacity.max_rows.min(capacity.n_positions);
    // In turn, so that what slows the phone for a while slows all kinds of steps.
    let (mut ones, mut heads, mut further) = (Vec::new(), Vec::new(), Vec::new());
    while ones.len() < RUNS && fits(1) && !is_over() {
        let one = seconds_of(segment, 1, 0)?;
        ones.push(one);
        if has_head && !is_over() {
            heads.push((seconds_of(segment, 1, 1)? - one).max(0.0));
        }
        if fits(BATCH_ROWS) && !is_over() {
            let few = seconds_of(segment, BATCH_ROWS, 0)?;
            further.push(((few / one - 1.0) / (BATCH_ROWS - 1) as f64).clamp(0.0, 1.0));
        }
    }
    let mut chunks = Vec::new();
    while chunks.len() < RUNS && fits(capacity.max_rows) && !is_over() {
        chunks.push(seconds_of(segment, capacity.max_rows, 0)?);
    }
    let layer = mean_but_the_slowest(ones).map(|seconds| seconds / n_layers);
    let head = median(heads);
    let shares = Shares {
        head_in_layers: head.zip(layer).map_or(0.0, |(head, layer)| head / layer),
        further_row: median(further).unwrap_or(1.0),
    };
    let chunk = mean_but_the_slowest(chunks);
    let figures = Figures {
        seconds_per_layer: layer,
        layers_timed: timed as u32,
        prefill_seconds_per_layer_per_token: chunk.map(|seconds| seconds / (n_layers * capacity.max_rows as f64)),
        seconds_besides_layers: if has_head { head } else { None },
    };
    Ok((shares, figures))
}

fn turn() -> Option<MutexGuard<'static, ()>> {
    let began = Instant::now();
    loop {
        match ONE_AT_A_TIME.try_lock() {
            Ok(turn) => return Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if began.elapsed() > LONGEST_TURN => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
        }
    }
}

fn median(mut of: Vec<f64>) -> Option<f64> {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied()
}

fn mean_but_the_slowest(mut runs: Vec<f64>) -> Option<f64> {
    runs.sort_unstable_by(f64::total_cmp);
    let kept = &runs[..runs.len().saturating_sub(1).max(1).min(runs.len())];
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

/// Layers that a step of the trial goes through: of both halves of a model, those that decode.
fn n_layers_timed(segment: &AnySegment) -> usize {
    match segment.n_decoding_layers(segment.holds()) {
        0 => segment.n_encoding_layers(segment.holds()),
        n_layers => n_layers,
    }
}

/// Not zeros: a norm of zeros would make every product one with zero.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|at| (at % 7) as f32 - 3.0).collect()
}

fn seconds_of(segment: &mut AnySegment, n_rows: usize, n_logits: usize) -> Result<f64, SegmentError> {
    let rows = (0..n_rows as u32).map(|position| Row { slot: 0, position });
    let takes_tokens = match segment {
        AnySegment::DecoderOnly(segment) => segment.holds_embedding(),
        AnySegment::EncoderDecoder(segment) => segment.takes_tokens(),
    };
    let input = if takes_tokens {
        Input::Tokens(vec![0; n_rows])
    } else {
        Input::Hidden(values(n_rows * segment.hidden_size()))
    };
    let began = Instant::now();
    match segment {
        AnySegment::DecoderOnly(segment) => drop(segment.step(&rows.collect::<Vec<_>>(), input, n_logits)?),
        AnySegment::EncoderDecoder(segment) if segment.decodes() => {
            let rows: Vec<_> = rows.map(|row| DecoderRow { row, n_encoded: 1 }).collect();
            drop(segment.step(&rows, input, n_logits)?);
        }
        AnySegment::EncoderDecoder(segment) => drop(segment.encode(n_rows, input)?),
    }
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
