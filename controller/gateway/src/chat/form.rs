//! The form of a chat's answer: `chat.completion` and `chat.completion.chunk`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::answer::{End, Piece, finite};
use crate::form::{Form, Head};
use crate::model_text::{ModelText, TokenNames};

/// The bodies of one chat's answer.
#[derive(Clone, Debug)]
pub(crate) struct ChatForm {
    pub(crate) head: Head,
    pub(crate) text: Arc<ModelText>,
    /// How many alternatives to show, if log-probabilities are wanted.
    pub(crate) logprobs: Option<u8>,
    pub(crate) names: TokenNames,
    /// The prompt, where the client wants token ids; as vLLM gives them.
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
}

// === impl ChatForm ===

impl ChatForm {
    fn logprobs(&self, pieces: &[Piece]) -> Value {
        let Some(n_top) = self.logprobs else {
            return Value::Null;
        };
        let entry = |token: u32, logprob: f32| {
            let bytes = self.text.tokenizer.token_bytes(token);
            json!({"token": self.text.name_of(token, self.names), "logprob": finite(logprob), "bytes": bytes})
        };
        let content = pieces.iter().map(|piece| {
            let top = piece.top.iter().take(n_top.into()).map(|&(token, logprob)| entry(token, logprob));
            let mut shown = entry(piece.token, piece.logprob);
            shown["top_logprobs"] = top.collect();
            shown
        });
        json!({"content": content.collect::<Vec<_>>()})
    }

    fn shows_tokens(&self) -> bool {
        self.logprobs.is_some() || self.prompt_token_ids.is_some()
    }
}

impl Form for ChatForm {
    fn opening(&mut self) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null});
        let mut chunk = self.head.chunk(choice);
        if let Some(prompt) = &self.prompt_token_ids {
            chunk["prompt_token_ids"] = json!(prompt);
        }
        Some(chunk)
    }

    fn piece(&mut self, piece: &Piece) -> Option<Value> {
        if piece.text.is_empty() && !self.shows_tokens() {
            return None;
        }
        let logprobs = self.logprobs(std::slice::from_ref(piece));
        let delta = json!({"content": piece.text});
        let mut choice = json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        if self.prompt_token_ids.is_some() {
            choice["token_ids"] = json!([piece.token]);
        }
        Some(self.head.chunk(choice))
    }

    fn end(&mut self, end: &End) -> Value {
        self.head.chunk(json!({
            "index": 0,
            "delta": if end.text.is_empty() { json!({}) } else { json!({"content": end.text}) },
            "logprobs": null,
            "finish_reason": end.reason,
            "stop_reason": end.stopped_by,
        }))
    }

    fn choice(&mut self, pieces: &[Piece], end: &End) -> Value {
        let content: String = pieces.iter().map(|piece| piece.text.as_str()).chain([end.text.as_str()]).collect();
        let mut choice = json!({
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": null},
            "logprobs": self.logprobs(pieces),
            "finish_reason": end.reason,
            "stop_reason": end.stopped_by,
        });
        if self.prompt_token_ids.is_some() {
            choice["token_ids"] = pieces.iter().map(|piece| piece.token).collect();
        }
        choice
    }

    fn complete(&self, body: &mut Value) {
        if let Some(prompt) = &self.prompt_token_ids {
            body["prompt_token_ids"] = json!(prompt);
        }
    }
}
