//! Sampling: how the tail turns logits into a token. The semantics are vLLM's, whose fields clients already send.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the tail turns logits into a token.
///
/// The random number of position p is a function of (`seed`, p) alone, so that a replayed session draws the same tokens.
/// Fields that came after protocol 1.0 are left out of the bytes where they change nothing, and change nothing where they
/// are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    pub seed: u64,
    /// Keep the tokens at least this times as likely as the likeliest; 0 keeps all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_p: f32,
    /// Logits of tokens of prompt and answer are divided by it if positive and multiplied if negative; 1 changes none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repetition_penalty: f32,
    /// Taken off the logit of each token that the answer has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub presence_penalty: f32,
    /// Taken off the logit of a token once for each time that the answer has it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens; at most [`MAX_LOGIT_BIASES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<u32, f32>,
}

/// The most tokens that can be given a bias: OpenAI's limit, met in practice by dottxt-ai/outlines issue 99.
pub const MAX_LOGIT_BIASES: usize = 300;

// === impl Sampling ===

impl Sampling {
    /// Whether a draw depends on which tokens the answer has.
    pub fn minds_output(&self) -> bool {
        self.minds_prompt() || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether a draw depends on which tokens the prompt has.
    pub fn minds_prompt(&self) -> bool {
        self.repetition_penalty != 1.0
    }

    /// The first number that is none a sampler can go by: its field, and what is expected there.
    pub(super) fn wrong_number(&self) -> Option<(&'static str, f32, &'static str)> {
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        let (presence, frequency) = (self.presence_penalty, self.frequency_penalty);
        let checks = [
            ("temperature", temperature, "0 or more", temperature.is_finite() && temperature >= 0.0),
            ("top_p", top_p, "above 0 and at most 1", top_p > 0.0 && top_p <= 1.0),
            ("min_p", min_p, "from 0 to 1", (0.0..=1.0).contains(&min_p)),
            (
                "repetition_penalty",
                repetition_penalty,
                "above 0",
                repetition_penalty.is_finite() && repetition_penalty > 0.0,
            ),
            ("presence_penalty", presence, "a finite number", presence.is_finite()),
            ("frequency_penalty", frequency, "a finite number", frequency.is_finite()),
        ];
        let biases = self.logit_bias.values().map(|bias| ("logit_bias", *bias, "a finite number", bias.is_finite()));
        let wrong = checks.into_iter().chain(biases).find(|(.., is_good)| !is_good);
        wrong.map(|(field, value, expected, _)| (field, value, expected))
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
        }
    }
}

fn one() -> f32 {
    1.0
}

fn is_one(value: &f32) -> bool {
    *value == 1.0
}

fn is_zero(value: &f32) -> bool {
    *value == 0.0
}
