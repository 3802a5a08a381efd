//! The problem: what a model asks for, what phones and links give, what the deployment wants. Plain data.

mod energy;
mod links;

use serde::{Deserialize, Serialize};

use crate::Plan;
pub(crate) use energy::watts_of;
pub use energy::{ASSUMED_WATTS, BELIEVED_WATTS, Energy};
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
    /// Weight bytes of each layer, in order, those of all its experts among them; its length is the number of layers.
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
    /// The layer besides the first at which tokens are looked up in the embedding: the first one of a decoder that has an encoder before it.
    #[serde(default)]
    pub second_embedding: Option<u32>,
    /// Of the layers' bytes those of experts, of which a token reads some alone.
    #[serde(default)]
    pub experts: Option<ExpertCosts>,
    /// Multiply-adds of one token in one layer, of experts with those that it takes.
    pub layer_multiply_adds: u64,
    /// Multiply-adds of one token in the output matrix.
    pub head_multiply_adds: u64,
    /// The logits of one token as f32. They never travel here; LinguaLinked's programme counts them on their way
    /// from the tail to the head.
    #[serde(default)]
    pub logits_bytes: u64,
}

/// What the experts of a mixture cost: all of them memory, but time only those that tokens take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertCosts {
    /// Experts of a layer.
    pub n_experts: u32,
    /// Experts that one token takes of them, at most `n_experts`.
    pub n_chosen: u32,
    /// Bytes of all experts of a layer, on the mean.
    pub layer_bytes: u64,
    /// Tokens of a prefill chunk.
    pub chunk_tokens: u32,
}

/// What one phone has and how fast it is, measured or derived from its speed.
///
/// A step takes the next token of each of its rows, one row a session, through a stage. A step of n rows through
/// l layers takes `seconds_per_step + l × (seconds_per_layer + (n − 1) × seconds_per_layer_per_further_row)`, and
/// the ends, if the stage holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhoneCosts {
    pub name: String,
    /// Whether it may hold what text is read and written with: the first layer with the embedding, the last with the output matrix, and the
    /// layer of [`ModelCosts::second_embedding`].
    #[serde(default = "yes")]
    pub is_trusted: bool,
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
    /// What its work takes out of its battery.
    #[serde(default)]
    pub energy: Energy,
}

fn yes() -> bool {
    true
}

/// Measured speeds of a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Of a matrix-vector product.
    pub multiply_adds_per_second: f64,
    /// Of the same with four rows at once, where that was measured.
    pub batch_multiply_adds_per_second: Option<f64>,
    /// Of the same with as many rows as a chunk of a prompt has, where that was measured.
    pub prefill_multiply_adds_per_second: Option<f64>,
    /// Weights read by a matrix-vector product.
    pub memory_bytes_per_second: f64,
}

/// Rows of the product by which `Speed::batch_multiply_adds_per_second` is measured.
const BATCH_ROWS: f64 = 4.0;

/// What is minimised, together with [`Demand::prompt`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objective {
    /// The time of one token of one session around the ring: stages, hops, and the token's way back.
    #[default]
    Latency,
    /// The time between two tokens of any session when `max_sessions` are in flight.
    Throughput,
    /// The joules of one token, weighted as [`Energy::joule_weight`] says, among plans whose rounds keep [`Demand::min_tokens_per_second`].
    Efficiency,
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
    /// Efficiency: tokens a second that one session gets at least; None where any speed will do. No other objective has a floor.
    #[serde(default)]
    pub min_tokens_per_second: Option<f64>,
    /// 0 and 1 mean the same.
    pub min_phones: u32,
    /// `u32::MAX` for no limit.
    pub max_phones: u32,
    /// The part of a phone's allocatable memory that may be used, in (0, 1].
    pub memory_fraction: f64,
    /// Whether stages keep layers of their neighbours on standby in memory that the plan leaves free.
    #[serde(default)]
    pub overlap: bool,
    /// What a typical answer begins with; None where the time until its first token does not count.
    #[serde(default)]
    pub prompt: Option<Prompt>,
}

/// The prompt of a typical answer, and what reading it counts beside the tokens of that answer.
///
/// Latency adds weight × the seconds until the first token. Throughput takes each stage to be busy with weight × `n_tokens` tokens of prompts
/// for each token that it decodes, since somebody's prompt is always being read. Efficiency counts the joules of reading so many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    pub n_tokens: u32,
    /// Tokens that go through the ring in one step.
    pub chunk_tokens: u32,
    /// What a second of reading counts in the seconds of one token: 1 ÷ the tokens of an answer, where both count alike.
    pub weight: f64,
}

// === impl ModelCosts ===

impl ModelCosts {
    pub fn n_layers(&self) -> usize {
        self.layer_bytes.len()
    }

    /// Weight bytes that a step of so many tokens is expected to read in a layer, on the mean.
    fn read_bytes(&self, n_tokens: u32) -> f64 {
        let mean = self.layer_bytes.iter().map(|&bytes| bytes as f64).sum::<f64>() / self.n_layers().max(1) as f64;
        let unread = self
            .experts
            .map_or(0.0, |of| of.layer_bytes as f64 * (1.0 - of.expected(n_tokens) / f64::from(of.n_experts.max(1))));
        (mean - unread).max(0.0)
    }
}

// === impl ExpertCosts ===

impl ExpertCosts {
    /// Of how many experts of a layer the weights are read for so many tokens, if each takes its own whatever the others do:
    /// n (1 − (1 − k / n)ᶜ).
    pub fn expected(&self, n_tokens: u32) -> f64 {
        let n = f64::from(self.n_experts.max(1));
        n * (1.0 - (1.0 - f64::from(self.n_chosen) / n).powf(f64::from(n_tokens)))
    }
}

// === impl PhoneCosts ===

impl PhoneCosts {
    /// Prefill: one layer, by the token. Where no figure can be believed, a prompt is read as slowly as an answer is decoded.
    pub(crate) fn reading_seconds(&self) -> f64 {
        let seconds = self.prefill_seconds_per_layer_per_token;
        if (0.0..=MAX_SECONDS).contains(&seconds) { seconds } else { self.seconds_per_layer }
    }

    /// Derives a phone's times from its speeds, for phones on which no layer has been timed yet.
    ///
    /// The roofline: a step takes the longer of its arithmetic (multiply-adds ÷ speed) and its reading of weights
    /// (bytes ÷ bandwidth). A further row costs a third of what four at once take longer than one; where that was not measured, its
    /// arithmetic alone. A token of a prefill chunk costs its arithmetic at the speed of chunks; where that was not measured, as much as a further
    /// row. Of experts a token reads those that it takes: a further row, and a token of a
    /// chunk, cost no less than reading those that none before them has taken. Non-positive speeds give infinite times, and the planner
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
        // A chunk goes through in tiles, which a few rows do not fill.
        let of_chunk = match speed.prefill_multiply_adds_per_second {
            Some(prefill) => divide(model.layer_multiply_adds as f64, prefill),
            None => further(model.layer_multiply_adds),
        };
        let (of_one, of_two) = (model.read_bytes(1), model.read_bytes(2));
        let of_chunk_token = model.experts.map_or(0.0, |of| {
            let chunk_tokens = of.chunk_tokens.max(1);
            reading(model.read_bytes(chunk_tokens)) / f64::from(chunk_tokens)
        });
        Self {
            name: name.into(),
            is_trusted: true,
            allocatable_bytes,
            seconds_per_layer: arithmetic(model.layer_multiply_adds).max(reading(of_one)),
            // The weights have been read for the first row, but for experts that it does not take.
            seconds_per_layer_per_further_row: Some(further(model.layer_multiply_adds).max(reading(of_two - of_one))),
            seconds_per_step: 0.0,
            seconds_embedding: 0.0,
            seconds_head: arithmetic(model.head_multiply_adds).max(reading(model.head_bytes as f64)),
            seconds_head_per_further_row: Some(further(model.head_multiply_adds)),
            prefill_seconds_per_layer_per_token: of_chunk.max(of_chunk_token),
            energy: Energy::default(),
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

    /// Seconds that a round of one session may take; `None` where no floor is set.
    pub fn round_limit_seconds(&self) -> Option<f64> {
        self.min_tokens_per_second.map(|tokens| 1.0 / tokens)
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
                prefill_multiply_adds_per_second: None,
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

    #[test]
    fn a_prompt_is_read_at_the_speed_of_chunks_where_that_is_known() {
        let model = ModelCosts { layer_bytes: vec![1; 2], layer_multiply_adds: 100, ..ModelCosts::default() };
        let costs = |prefill| {
            let speed = Speed {
                multiply_adds_per_second: 100.0,
                batch_multiply_adds_per_second: Some(160.0),
                prefill_multiply_adds_per_second: prefill,
                memory_bytes_per_second: 1e9,
            };
            PhoneCosts::from_speed("phone", 1, &speed, &model)
        };
        assert_eq!(costs(Some(400.0)).prefill_seconds_per_layer_per_token, 0.25);
        assert_eq!(costs(None).prefill_seconds_per_layer_per_token, 0.5);
        let broken = PhoneCosts { prefill_seconds_per_layer_per_token: f64::NAN, ..costs(None) };
        assert_eq!((costs(None).reading_seconds(), broken.reading_seconds()), (0.5, 1.0));
    }

    const EXPERTS: ExpertCosts = ExpertCosts { n_experts: 128, n_chosen: 8, layer_bytes: 1280, chunk_tokens: 32 };

    #[test]
    fn one_token_reads_the_experts_that_it_takes_and_many_read_all() {
        assert_eq!((EXPERTS.expected(0), EXPERTS.expected(1)), (0.0, 8.0));
        // 128 (1 - (15 / 16)^2)
        assert_eq!(EXPERTS.expected(2), 15.5);
        assert!((EXPERTS.expected(32) - 111.77).abs() < 0.01, "{}", EXPERTS.expected(32));
        assert_eq!(EXPERTS.expected(u32::MAX), 128.0);
        let all = ExpertCosts { n_experts: 4, n_chosen: 4, ..EXPERTS };
        assert_eq!((all.expected(1), all.expected(9)), (4.0, 4.0));
    }

    #[test]
    fn experts_that_no_token_takes_cost_memory_and_no_time() {
        let dense = ModelCosts { layer_bytes: vec![1500; 2], layer_multiply_adds: 1, ..ModelCosts::default() };
        let mixture = ModelCosts { experts: Some(EXPERTS), ..dense.clone() };
        // Reading is all that takes time: a byte a second.
        let speed = Speed {
            multiply_adds_per_second: 1e12,
            batch_multiply_adds_per_second: None,
            prefill_multiply_adds_per_second: None,
            memory_bytes_per_second: 1.0,
        };
        let costs = |model: &ModelCosts| PhoneCosts::from_speed("phone", 1, &speed, model);
        assert_eq!(costs(&dense).seconds_per_layer, 1500.0);
        let found = costs(&mixture);
        // 220 bytes that every token reads, and 10 for each expert.
        assert_eq!(found.seconds_per_layer, 220.0 + 8.0 * 10.0);
        assert!((found.seconds_per_layer_per_further_row.unwrap_or_default() - 7.5 * 10.0).abs() < 1e-9);
        let of_chunk = found.prefill_seconds_per_layer_per_token * 32.0;
        assert!((of_chunk - (220.0 + EXPERTS.expected(32) * 10.0)).abs() < 1e-6, "{of_chunk}");
    }
}
