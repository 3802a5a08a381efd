//! Reading: what the prompt of a typical answer adds to the seconds of a token, as [`crate::Prompt`] says.
//!
//! A prompt goes through in chunks, as through any pipeline. Its last chunk passes every stage and hop: under Latency that is added to what
//! these take. Each chunk before it adds the *pace*, the longest time of any stage or wire for a whole chunk, which has a price of its own.
//! Under Throughput stages are busy with prompts beside tokens, and no pace counts.

use super::{Costs, Hop, Ring};
use crate::problem::{Demand, Objective};

/// What one token bears of a prompt.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// Tokens of it that each layer reads.
    pub(super) tokens: f64,
    /// Steps of it that pass the ring.
    pub(super) passes: f64,
    /// Rows of each of those.
    last_chunk: f64,
    /// Rows of the chunks before, and how many of these there are.
    chunk: f64,
    n_before: f64,
}

// === impl Reading ===

impl Reading {
    pub(super) fn of(demand: &Demand) -> Option<Self> {
        let prompt = demand.prompt.filter(|prompt| prompt.n_tokens > 0 && prompt.weight > 0.0)?;
        let weight = prompt.weight;
        let (n_tokens, chunk_tokens) = (prompt.n_tokens, prompt.chunk_tokens.clamp(1, prompt.n_tokens));
        let n_before = n_tokens.div_ceil(chunk_tokens) - 1;
        let (last_chunk, chunk) = (f64::from(n_tokens - n_before * chunk_tokens), f64::from(chunk_tokens));
        Some(match demand.objective {
            Objective::Latency => Self {
                tokens: weight * last_chunk,
                passes: weight,
                last_chunk,
                chunk,
                n_before: weight * f64::from(n_before),
            },
            // Whoever reads, and when: a joule of it is a joule.
            Objective::Throughput | Objective::Efficiency => {
                Self { tokens: weight * f64::from(n_tokens), passes: 0.0, last_chunk, chunk, n_before: 0.0 }
            }
        })
    }

    pub(super) fn hop_seconds(self, hop: Hop) -> f64 {
        self.passes * (hop.delay + self.last_chunk * hop.wire)
    }
}

// === impl Costs ===

impl Costs<'_> {
    /// What a second of the pace adds to the objective; 0 where it does not count.
    pub(crate) fn pace_price(&self) -> f64 {
        self.reading.map_or(0.0, |reading| reading.n_before)
    }

    fn chunk_rows(&self) -> f64 {
        self.reading.map_or(0.0, |reading| reading.chunk)
    }

    /// Seconds of a whole chunk through one layer.
    pub(crate) fn chunk_layer_seconds(&self, phone: usize) -> f64 {
        self.chunk_rows() * self.problem.phones[phone].reading_seconds()
    }

    /// Seconds of a whole chunk through what is no layer of a stage. The output matrix is not there: the last token alone gets logits.
    pub(crate) fn chunk_besides_seconds(&self, phone: usize, is_head: bool) -> f64 {
        let costs = &self.problem.phones[phone];
        costs.seconds_per_step + if is_head { costs.seconds_embedding } else { 0.0 }
    }

    /// Seconds of a whole chunk through layers `[from, to)` on `phone`.
    pub(crate) fn chunk_seconds(&self, phone: usize, from: usize, to: usize) -> f64 {
        self.chunk_besides_seconds(phone, from == 0) + (to - from) as f64 * self.chunk_layer_seconds(phone)
    }

    /// Seconds for which a whole chunk keeps that hop busy.
    pub(crate) fn chunk_wire_seconds(&self, from: usize, to: usize) -> f64 {
        self.chunk_rows() * self.hop(from, to).wire
    }

    /// The longest time any hop is busy with a whole chunk.
    pub(crate) fn slowest_chunk_wire(&self, phones: &[usize]) -> f64 {
        phones.windows(2).map(|pair| self.chunk_wire_seconds(pair[0], pair[1])).fold(0.0, f64::max)
    }

    /// The longest time of any stage or wire for a whole chunk; 0 where that does not count.
    pub(crate) fn pace(&self, ring: &Ring) -> f64 {
        if self.pace_price() == 0.0 {
            return 0.0;
        }
        let stages = ring.stages().map(|(phone, from, to)| self.chunk_seconds(phone, from, to));
        stages.fold(self.slowest_chunk_wire(&ring.phones), f64::max)
    }
}
