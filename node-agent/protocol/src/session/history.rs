//! History: the tokens that penalties look back on. Hidden states do not tell the tail which tokens they come from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Sampling;

/// What the penalties of a session need to know of its tokens so far. Empty where it has no penalties.
///
/// Prompt and answer stay apart, because a replay opens with an answer that has already begun: presence and frequency
/// count only what was sampled, on whichever ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The tokens of the prompt, each once.
    prompt: BTreeSet<u32>,
    /// The tokens of the answer so far with how often each came.
    output: BTreeMap<u32, u32>,
}

// === impl History ===

impl History {
    /// Of `prompt` and `output` what `sampling` minds.
    pub fn new(sampling: &Sampling, prompt: &[u32], output: &[u32]) -> Self {
        let mut history = Self::default();
        if sampling.minds_prompt() {
            history.prompt.extend(prompt);
        }
        if sampling.minds_output() {
            output.iter().for_each(|token| history.push(*token));
        }
        history
    }

    /// The answer has one token more.
    pub fn push(&mut self, token: u32) {
        let count = self.output.entry(token).or_default();
        *count = count.saturating_add(1);
    }

    /// Every token of prompt and answer, each once.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        let of_output = self.output.keys().filter(|token| !self.prompt.contains(token));
        self.prompt.iter().chain(of_output).copied()
    }

    /// The answer's tokens, each with how often it came.
    pub fn output(&self) -> impl Iterator<Item = (u32, u32)> {
        self.output.iter().map(|(token, count)| (*token, *count))
    }

    pub fn is_empty(&self) -> bool {
        self.prompt.is_empty() && self.output.is_empty()
    }

    /// The fewest positions that so many tokens can take.
    pub(super) fn n_positions(&self) -> u64 {
        let n_output: u64 = self.output.values().map(|count| u64::from(*count)).sum();
        self.prompt.len() as u64 + n_output
    }
}
