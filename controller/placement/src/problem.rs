//! The problem: what a model asks for, what phones and links give, what the deployment wants. Plain data.

mod links;

use serde::{Deserialize, Serialize};

use crate::Plan;
pub use links::{Access, Link, Links, Measured};

/// The longest time of a layer, an end or a hop that is believed; a longer one means a broken measurement or a
/// link that is as good as none.
pub const MAX_SECONDS: f64 = 3600.0;
/// The shortest time of a layer that is believed.
pub const MIN_LAYER_SECONDS: f64 = 1e-9;

/// Everything the planner looks at. Equal problems give equal plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub model: ModelCosts,
    /// The phones that may be used; policies (battery, heat, cordon) have been applied by the caller.
    /// Names are unique.
    pub phones: Vec<PhoneCosts>,
    pub links: Links,
    pub demand: Demand,
    /// The plan in force. It is kept when no other plan is strictly better.
    pub previous: Option<Plan>,
}

/// What a model costs, whoever runs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelCosts {
    /// Weight bytes of each layer, in order; its length is the number of layers.
    pub layer_bytes: Vec<u64>,
    /// Bytes of the token embedding, held by the head of the ring.
    pub embedding_bytes: u64,
    /// Bytes of the output norm and the output matrix, held by the tail. With tied embeddings this
    /// includes the shared matrix, since head and tail are usually two phones.
    pub head_bytes: u64,
    /// Bytes that are in both `embedding_bytes` and `head_bytes`: the tied matrix. A phone that is head
    /// and tail at once holds them once. 0 when nothing is tied.
    pub shared_bytes: u64,
    /// Bytes of KV cache that one token takes in one layer.
    pub kv_bytes_per_token_per_layer: u64,
    /// Working memory of a segment, whatever its size.
    pub activation_bytes: u64,
    /// One hidden state on the wire, header included.
    pub hop_bytes: u64,
    /// Multiply-adds of one token in one layer.
    pub layer_multiply_adds: u64,
    /// Multiply-adds of one token in the output matrix.
    pub head_multiply_adds: u64,
    /// The logits of one token as f32. They never travel here; LinguaLinked's programme counts them on their way
    /// from the tail to the head.
    #[serde(default)]
    pub logits_bytes: u64,
}

/// What one phone has and how fast it is, measured or derived from its speed.
///
/// A step takes the next token of each of its rows, one row a session, through a stage. A step of n rows through
/// l layers takes `seconds_per_step + l × (seconds_per_layer + (n − 1) × seconds_per_layer_per_further_row)`, and
/// the ends, if the stage holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhoneCosts {
    pub name: String,
    /// Memory this phone may give to segments, before `Demand::memory_fraction`.
    pub allocatable_bytes: u64,
    /// Decode: a step of one row through one layer.
    pub seconds_per_layer: f64,
    /// Decode: what each further row of a step adds to a layer. Less than the first row, since the weights are
    /// read once; None counts it as much as the first.
    #[serde(default)]
    pub seconds_per_layer_per_further_row: Option<f64>,
    /// Decode: what a step takes whatever it holds: frames read and written, threads woken, kernels sent off.
    #[serde(default)]
    pub seconds_per_step: f64,
    /// Decode: a step's look-ups in the embedding, however many rows it has.
    pub seconds_embedding: f64,
    /// Decode: one token through output norm, output matrix and sampling.
    pub seconds_head: f64,
    /// Decode: what each further row of a step adds to that; None counts it as much as the first.
    #[serde(default)]
    pub seconds_head_per_further_row: Option<f64>,
    /// Prefill: one layer, divided by the tokens of the chunk.
    pub prefill_seconds_per_layer_per_token: f64,
}

/// Measured speeds of a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Of a matrix-vector product.
    pub multiply_adds_per_second: f64,
    /// Of the same with four rows at once, where that was measured.
    pub batch_multiply_adds_per_second: Option<f64>,
    /// Weights read by a matrix-vector product.
    pub memory_bytes_per_second: f64,
}

/// Rows of the product by which `Speed::batch_multiply_adds_per_second` is measured.
const BATCH_ROWS: f64 = 4.0;

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objective {
    /// The time of one token of one session around the ring: stages, hops, and the token's way back.
    #[default]
    Latency,
    /// The time between two tokens of any session when `max_sessions` are in flight.
    Throughput,
}

/// What the deployment wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// Tokens of KV cache kept for each session.
    pub context_length: u32,
    pub max_sessions: u32,
    /// How many times a segment's bytes must fit: 1.0 keeps no room for a move, 2.0 keeps room for a whole
    /// second generation. At least 1.
    pub generations_in_memory: f64,
    pub objective: Objective,
    /// 0 and 1 mean the same.
    pub min_phones: u32,
    /// `u32::MAX` for no limit.
    pub max_phones: u32,
    /// The part of a phone's allocatable memory that may be used, in (0, 1].
    pub memory_fraction: f64,
    /// Whether stages keep layers of their neighbours on standby in memory that the plan leaves free.
    #[serde(default)]
    pub overlap: bool,
}

// === impl ModelCosts ===

impl ModelCosts {
    pub fn n_layers(&self) -> usize {
        self.layer_bytes.len()
    }
}

// === impl PhoneCosts ===

impl PhoneCosts {
    /// Derives a phone's times from its speeds, for phones on which no layer has been timed yet.
    ///
    /// The roofline: a step takes the longer of its arithmetic (multiply-adds ÷ speed) and its reading of weights
    /// (bytes ÷ bandwidth). A further row costs a third of what four at once take longer than one; where that was not measured, its
    /// arithmetic alone. So does a token of a prefill chunk. Non-positive speeds give infinite times, and the planner
    /// leaves such a phone out.
    pub fn from_speed(name: impl Into<String>, allocatable_bytes: u64, speed: &Speed, model: &ModelCosts) -> Self {
        let arithmetic = |multiply_adds: u64| divide(multiply_adds as f64, speed.multiply_adds_per_second);
        let reading = |bytes: f64| divide(bytes, speed.memory_bytes_per_second);
        let further = |multiply_adds: u64| match speed.batch_multiply_adds_per_second {
            Some(batch) => {
                let more = divide(BATCH_ROWS * multiply_adds as f64, batch) - arithmetic(multiply_adds);
                (more / (BATCH_ROWS - 1.0)).clamp(0.0, arithmetic(multiply_adds))
            }
            None => arithmetic(multiply_adds),
        };
        let n_layers = model.n_layers().max(1) as f64;
        let mean_layer_bytes = model.layer_bytes.iter().map(|&b| b as f64).sum::<f64>() / n_layers;
        Self {
            name: name.into(),
            allocatable_bytes,
            seconds_per_layer: arithmetic(model.layer_multiply_adds).max(reading(mean_layer_bytes)),
            // The weights have been read for the first row.
            seconds_per_layer_per_further_row: Some(further(model.layer_multiply_adds)),
            seconds_per_step: 0.0,
            seconds_embedding: 0.0,
            seconds_head: arithmetic(model.head_multiply_adds).max(reading(model.head_bytes as f64)),
            seconds_head_per_further_row: Some(further(model.head_multiply_adds)),
            prefill_seconds_per_layer_per_token: further(model.layer_multiply_adds),
        }
    }
}

fn divide(amount: f64, speed: f64) -> f64 {
    if speed > 0.0 { amount / speed } else { f64::INFINITY }
}

// === impl Demand ===

impl Demand {
    /// Tokens of KV cache that every layer keeps.
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.context_length) * u64::from(self.max_sessions)
    }

    /// The bytes a segment may take on a phone: `allocatable × memory_fraction ÷ generations_in_memory`,
    /// rounded down.
    pub fn budget_bytes(&self, allocatable_bytes: u64) -> u64 {
        (allocatable_bytes as f64 * self.memory_fraction / self.generations_in_memory).floor().max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_row_costs_a_third_of_what_four_take_longer_than_one() {
        let model = ModelCosts {
            layer_bytes: vec![1; 2],
            layer_multiply_adds: 100,
            head_multiply_adds: 1000,
            ..ModelCosts::default()
        };
        let further = |batch| {
            let speed = Speed {
                multiply_adds_per_second: 100.0,
                batch_multiply_adds_per_second: batch,
                memory_bytes_per_second: 1e9,
            };
            let costs = PhoneCosts::from_speed("phone", 1, &speed, &model);
            (costs.seconds_per_layer_per_further_row, costs.seconds_head_per_further_row)
        };
        // Four rows in two and a half times the time of one.
        assert_eq!(further(Some(160.0)), (Some(0.5), Some(5.0)));
        // Neither less than nothing nor more than the first.
        assert_eq!(further(Some(1000.0)), (Some(0.0), Some(0.0)));
        assert_eq!(further(Some(50.0)), (Some(1.0), Some(10.0)));
        assert_eq!(further(None), (Some(1.0), Some(10.0)));
    }
}
