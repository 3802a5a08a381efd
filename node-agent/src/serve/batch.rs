//! Batches: the token rows that one step takes, of one or several sessions. Pure.

use polyphony_kernels::Row;
use polyphony_protocol::RouteKey;

use crate::segment::Input;

/// The rows of a session that wait for a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub key: RouteKey,
    pub slot: u32,
    /// Position of the first row.
    pub position: u32,
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

/// A job whose rows are laid out in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub key: RouteKey,
    /// Position of the first row.
    pub position: u32,
    pub n_rows: usize,
    /// The tail samples the token after the last row.
    pub sample: bool,
}

/// One step: whose rows it takes, and what goes into the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub parts: Vec<Part>,
    pub step: StepInput,
}

/// What goes into the engine for a step: the rows, in the order that it takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInput {
    pub rows: Vec<Row>,
    pub input: Input,
    /// The last so many rows give logits, one for each sampling part in order; 0 but on the tail.
    pub n_logits: usize,
}

// === impl Job ===

impl Job {
    pub fn n_rows(&self) -> usize {
        match &self.rows {
            JobRows::Tokens(tokens) => tokens.len(),
            JobRows::Hidden { n_rows, .. } => *n_rows,
        }
    }
}

// === impl Part ===

impl Part {
    /// The position after its last row.
    pub fn end(&self) -> u32 {
        self.position.saturating_add(u32::try_from(self.n_rows).unwrap_or(u32::MAX))
    }
}

// === impl Batch ===

impl Batch {
    /// Lays the rows of `jobs` out: on the tail the rows to sample come last, since logits are wanted of those alone.
    pub fn new(jobs: Vec<Job>, is_tail: bool, hidden_size: usize) -> Self {
        let all = || jobs.iter().enumerate().flat_map(|(j, job)| (0..job.n_rows()).map(move |row| (j, row)));
        let samples = |&(j, row): &(usize, usize)| is_tail && jobs[j].sample && row + 1 == jobs[j].n_rows();
        let order: Vec<(usize, usize)> = all().filter(|at| !samples(at)).chain(all().filter(samples)).collect();
        let row = |&(j, row): &(usize, usize)| Row { slot: jobs[j].slot, position: jobs[j].position + row as u32 };
        let rows = order.iter().map(row).collect();
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
        let part = |job: &Job| Part { key: job.key, position: job.position, n_rows: job.n_rows(), sample: job.sample };
        let parts = jobs.iter().map(part).collect();
        Self { parts, step: StepInput { rows, input, n_logits } }
    }

    /// Whether each session has one row in it.
    pub fn is_decode(&self) -> bool {
        self.parts.iter().all(|part| part.n_rows == 1)
    }

    pub fn keys(&self) -> Vec<RouteKey> {
        self.parts.iter().map(|part| part.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyphony_protocol::{Epoch, PlanGeneration, RingId, SessionId};

    fn job(session: u64, position: u32, tokens: &[u32], sample: bool) -> Job {
        let key =
            RouteKey { ring: RingId(1), generation: PlanGeneration(1), session: SessionId(session), epoch: Epoch(0) };
        Job { key, slot: session as u32, position, rows: JobRows::Tokens(tokens.to_vec()), sample }
    }

    #[test]
    fn on_the_tail_the_rows_to_sample_come_last() {
        let jobs = vec![job(0, 3, &[10, 11], true), job(1, 0, &[20, 21], false), job(2, 7, &[30], true)];
        let Batch { parts, step } = Batch::new(jobs.clone(), true, 4);
        assert_eq!(step.input, Input::Tokens(vec![10, 20, 21, 11, 30]));
        assert_eq!(step.rows[3..], [Row { slot: 0, position: 4 }, Row { slot: 2, position: 7 }]);
        assert_eq!(step.n_logits, 2);
        assert_eq!(parts.iter().map(Part::end).collect::<Vec<_>>(), [5, 2, 8]);
        let elsewhere = Batch::new(jobs, false, 4);
        assert_eq!(elsewhere.step.input, Input::Tokens(vec![10, 11, 20, 21, 30]));
        assert_eq!(elsewhere.step.n_logits, 0);
    }
}
