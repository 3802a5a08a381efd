//! Adjustment: logit bias and penalties, which may change even what a greedy draw takes.

use std::borrow::Cow;

use polyphony_protocol::session::{History, Sampling};

/// The logits (one a vocabulary entry) after bias and penalties; as they are where `sampling` has none.
///
/// With b the bias of token j, c how often the answer has it, and z its logit:
/// - bias: z + b, as OpenAI's `logit_bias`;
/// - repetition, where prompt or answer has j: z / r if z > 0, else z · r, as `RepetitionPenaltyLogitsProcessor` of Hugging
///   Face's transformers after CTRL (Keskar et al. 2019, section 4.1);
/// - frequency and presence: z − c · f − (c > 0) · p, as OpenAI's "parameter details".
///
/// Tokens beyond the vocabulary are passed over. A replay gets the same values: each is a function of the count, not a sum
/// of what came step by step. Finite logits stay finite, whatever a client asks for.
pub(super) fn adjusted<'a>(logits: &'a [f32], sampling: &Sampling, history: &History) -> Cow<'a, [f32]> {
    if sampling.logit_bias.is_empty() && (!sampling.minds_output() || history.is_empty()) {
        return Cow::Borrowed(logits);
    }
    let mut adjusted = logits.to_vec();
    for (token, bias) in &sampling.logit_bias {
        change(&mut adjusted, *token, |logit| logit + bias);
    }
    if sampling.minds_prompt() {
        let penalty = sampling.repetition_penalty;
        for token in history.tokens() {
            change(&mut adjusted, token, |logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
        }
    }
    for (token, count) in history.output() {
        let (frequency, presence) = (sampling.frequency_penalty, sampling.presence_penalty);
        change(&mut adjusted, token, |logit| logit - frequency * count as f32 - presence);
    }
    Cow::Owned(adjusted)
}

fn change(logits: &mut [f32], token: u32, to: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = to(*logit).clamp(f32::MIN, f32::MAX);
    }
}
