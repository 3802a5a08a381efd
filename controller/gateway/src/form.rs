//! Form: how an answer looks on the wire, whole or in chunks. Each endpoint has its own. Pure.

use serde_json::{Value, json};

use crate::answer::{End, Piece, Usage};

/// The bodies that one endpoint makes of an answer to one prompt.
pub(crate) trait Form: Send + 'static {
    /// The chunk before the first token.
    fn opening(&mut self) -> Option<Value>;

    /// The chunk of one token, if the client sees anything of it.
    fn piece(&mut self, piece: &Piece) -> Option<Value>;

    /// The last chunk of the answer.
    fn end(&mut self, end: &End) -> Value;

    /// The whole answer, as one of the choices of a body.
    fn choice(&mut self, pieces: &[Piece], end: &End) -> Value;

    /// What a whole body has beside its choices.
    fn complete(&self, _body: &mut Value) {}
}

/// What every body of an answer begins with.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    /// Unix time of the request.
    pub(crate) created: i64,
    pub(crate) model: String,
    /// `object` of a whole answer, and of a chunk.
    pub(crate) object: &'static str,
    pub(crate) chunk_object: &'static str,
    /// Tokens of the prompts of the request, all together.
    pub(crate) n_prompt: usize,
    /// Whether the client wants a chunk with the usage at the end; all others then say null.
    pub(crate) include_usage: bool,
}

// === impl Head ===

impl Head {
    pub(crate) fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.body(self.chunk_object, json!([choice]));
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The chunk after the last one of the answer: no choice, only what it took.
    pub(crate) fn usage_chunk(&self, n_answer: usize) -> Value {
        let mut chunk = self.body(self.chunk_object, json!([]));
        chunk["usage"] = json!(self.usage(n_answer));
        chunk
    }

    pub(crate) fn whole(&self, choices: Vec<Value>, n_answer: usize) -> Value {
        let mut whole = self.body(self.object, choices.into());
        whole["usage"] = json!(self.usage(n_answer));
        whole
    }

    fn usage(&self, n_answer: usize) -> Usage {
        Usage::new(self.n_prompt, n_answer)
    }

    fn body(&self, object: &str, choices: Value) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}
