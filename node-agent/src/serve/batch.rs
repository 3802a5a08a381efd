//! Batches: the token rows that one step takes, of one or several sessions. Pure.

use std::time::Instant;

use polyphony_kernels::Row;
use polyphony_protocol::RouteKey;

use crate::segment::Input;

/// The part of a session that goes into a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub key: RouteKey,
    pub slot: u32,
    /// Position of the first row.
    pub position: u32,
    /// Positions of the encoder's output that the rows attend to, in whose stead the decoder sees a start token; 0 without an encoder.
    pub n_encoded: u32,
    pub rows: JobRows,
    /// The tail samples the token after the last row.
    pub sample: bool,
}

/// What the rows of a job are.
#[derive(Clone, Debug, PartialEq)]
pub enum JobRows {
    Tokens(Vec<u32>),
    /// `n_rows × hidden_size` values.
    Hidden {
        n_rows: usize,
        values: Vec<f32>,
    },
}

/// One step: its jobs, and their rows in the order that the engine takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub jobs: Vec<Job>,
    pub rows: Vec<Row>,
    /// By row, as its job has it.
    pub n_encoded: Vec<u32>,
    pub input: Input,
    /// The last so many rows give logits, one for each sampling job in order; 0 but on the tail.
    pub n_logits: usize,
    pub began: Instant,
}

// === impl Job ===

impl Job {
    pub fn n_rows(&self) -> usize {
        match &self.rows {
            JobRows::Tokens(tokens) => tokens.len(),
            JobRows::Hidden { n_rows, .. } => *n_rows,
        }
    }

    fn row(&self, index: usize) -> Row {
        let first = self.position.saturating_sub(self.n_encoded.saturating_sub(1));
        Row { slot: self.slot, position: first + index as u32 }
    }
}

// === impl Batch ===

impl Batch {
    /// Lays the rows of `jobs` out: on the tail the rows to sample come last, since logits are wanted of those alone.
    pub fn new(jobs: Vec<Job>, is_tail: bool, hidden_size: usize, now: Instant) -> Self {
        let all = || jobs.iter().enumerate().flat_map(|(j, job)| (0..job.n_rows()).map(move |row| (j, row)));
        let samples = |&(j, row): &(usize, usize)| is_tail && jobs[j].sample && row + 1 == jobs[j].n_rows();
        let order: Vec<(usize, usize)> = all().filter(|at| !samples(at)).chain(all().filter(samples)).collect();
        let rows = order.iter().map(|&(j, row)| jobs[j].row(row)).collect();
        let n_encoded = order.iter().map(|&(j, _)| jobs[j].n_encoded).collect();
        let n_logits = all().filter(samples).count();
        let input = match jobs.first().map(|job| &job.rows) {
            Some(JobRows::Hidden { .. }) => Input::Hidden(
                order
                    .iter()
                    .flat_map(|&(j, row)| match &jobs[j].rows {
                        JobRows::Hidden { values, .. } => &values[row * hidden_size..(row + 1) * hidden_size],
                        JobRows::Tokens(_) => &[],
                    })
                    .copied()
                    .collect(),
            ),
            _ => Input::Tokens(
                order
                    .iter()
                    .filter_map(|&(j, row)| match &jobs[j].rows {
                        JobRows::Tokens(tokens) => Some(tokens[row]),
                        JobRows::Hidden { .. } => None,
                    })
                    .collect(),
            ),
        };
        Self { jobs, rows, n_encoded, input, n_logits, began: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyphony_protocol::{Epoch, PlanGeneration, RingId, SessionId};

    fn job(session: u64, position: u32, tokens: &[u32], sample: bool) -> Job {
        let key =
            RouteKey { ring: RingId(1), generation: PlanGeneration(1), session: SessionId(session), epoch: Epoch(0) };
        Job { key, slot: session as u32, position, n_encoded: 0, rows: JobRows::Tokens(tokens.to_vec()), sample }
    }

    #[test]
    fn on_the_tail_the_rows_to_sample_come_last() {
        let jobs = vec![job(0, 3, &[10, 11], true), job(1, 0, &[20, 21], false), job(2, 7, &[30], true)];
        let batch = Batch::new(jobs.clone(), true, 4, Instant::now());
        assert_eq!(batch.input, Input::Tokens(vec![10, 20, 21, 11, 30]));
        assert_eq!(batch.rows[3..], [Row { slot: 0, position: 4 }, Row { slot: 2, position: 7 }]);
        assert_eq!(batch.n_logits, 2);
        assert_eq!(batch.n_encoded, [0; 5]);
        let elsewhere = Batch::new(jobs, false, 4, Instant::now());
        assert_eq!(elsewhere.input, Input::Tokens(vec![10, 11, 20, 21, 30]));
        assert_eq!(elsewhere.n_logits, 0);
    }

    #[test]
    fn a_decoder_counts_from_its_start_token() {
        let asked_with_four = Job { n_encoded: 4, ..job(1, 3, &[0, 20, 21], true) };
        let batch = Batch::new(vec![asked_with_four, job(0, 3, &[10], false)], false, 4, Instant::now());
        let positions: Vec<_> = batch.rows.iter().map(|row| row.position).collect();
        assert_eq!((positions, batch.n_encoded), (vec![0, 1, 2, 3], vec![4, 4, 4, 0]));
    }
}
