//! The form of a completion: `text_completion`, whole and in chunks.

use std::sync::Arc;

use polyphony_model::TextStream;
use serde_json::{Map, Value, json};

use crate::answer::{End, Piece, finite};
use crate::form::{Form, Head};
use crate::model_text::{ModelText, TokenNames};

/// The bodies of one completion.
#[derive(Clone, Debug)]
pub(crate) struct CompletionForm {
    head: Head,
    /// Which of the request's prompts it answers.
    index: usize,
    text: Arc<ModelText>,
    /// How many alternatives to show, if log-probabilities are wanted.
    logprobs: Option<u8>,
    names: TokenNames,
    /// The prompt, where the client wants token ids; as vLLM gives them.
    prompt_token_ids: Option<Vec<u32>>,
    /// The prompt's text, where the client wants it before the answer's.
    echo: Option<String>,
    /// Where in the text the next token begins: counted apart, for a piece's own text may be held back.
    offsets: TextStream,
    offset: usize,
}

// === impl CompletionForm ===

impl CompletionForm {
    pub(crate) fn new(
        head: Head,
        index: usize,
        text: Arc<ModelText>,
        (logprobs, names): (Option<u8>, TokenNames),
        prompt_token_ids: Option<Vec<u32>>,
        echo: Option<String>,
    ) -> Self {
        let offsets = text.tokenizer.stream(true);
        Self { head, index, text, logprobs, names, prompt_token_ids, echo, offsets, offset: 0 }
    }

    fn logprobs(&mut self, pieces: &[Piece]) -> Value {
        let Some(n_top) = self.logprobs else {
            return Value::Null;
        };
        let (mut tokens, mut token_logprobs, mut top_logprobs, mut text_offset) = (vec![], vec![], vec![], vec![]);
        for piece in pieces {
            tokens.push(self.text.name_of(piece.token, self.names));
            token_logprobs.push(finite(piece.logprob));
            let mut top = Map::new();
            let likeliest = piece.top.iter().take(n_top.into()).copied();
            for (token, logprob) in likeliest.chain([(piece.token, piece.logprob)]) {
                // Two tokens may look alike: the likelier one is shown.
                top.entry(self.text.name_of(token, self.names)).or_insert_with(|| json!(finite(logprob)));
            }
            top_logprobs.push(top);
            text_offset.push(self.offset);
            self.offset += self.offsets.push(piece.token).chars().count();
        }
        json!({
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": top_logprobs,
            "text_offset": text_offset,
        })
    }
}

impl Form for CompletionForm {
    fn opening(&mut self) -> Option<Value> {
        if self.echo.is_none() && self.prompt_token_ids.is_none() {
            return None;
        }
        let text = self.echo.as_deref().unwrap_or_default();
        let mut choice = json!({"index": self.index, "text": text, "logprobs": null, "finish_reason": null});
        if let Some(prompt) = &self.prompt_token_ids {
            choice["prompt_token_ids"] = json!(prompt);
        }
        Some(self.head.chunk(choice))
    }

    fn piece(&mut self, piece: &Piece) -> Option<Value> {
        if piece.text.is_empty() && self.logprobs.is_none() && self.prompt_token_ids.is_none() {
            return None;
        }
        let logprobs = self.logprobs(std::slice::from_ref(piece));
        let mut choice = json!({"index": self.index, "text": piece.text, "logprobs": logprobs, "finish_reason": null});
        if self.prompt_token_ids.is_some() {
            choice["token_ids"] = json!([piece.token]);
        }
        Some(self.head.chunk(choice))
    }

    fn end(&mut self, end: &End) -> Value {
        self.head.chunk(json!({
            "index": self.index,
            "text": end.text,
            "logprobs": null,
            "finish_reason": end.reason,
            "stop_reason": end.stopped_by,
        }))
    }

    fn choice(&mut self, pieces: &[Piece], end: &End) -> Value {
        let mut text = self.echo.clone().unwrap_or_default();
        text.extend(pieces.iter().map(|piece| piece.text.as_str()).chain([end.text.as_str()]));
        let mut choice = json!({
            "index": self.index,
            "text": text,
            "logprobs": self.logprobs(pieces),
            "finish_reason": end.reason,
            "stop_reason": end.stopped_by,
        });
        if let Some(prompt) = &self.prompt_token_ids {
            choice["token_ids"] = pieces.iter().map(|piece| piece.token).collect();
            choice["prompt_token_ids"] = json!(prompt);
        }
        choice
    }
}
