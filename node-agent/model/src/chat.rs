//! Chats: the messages that a template renders, with whatever fields the client gave them. Renders nothing itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a template is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    pub messages: Vec<ChatMessage>,
    /// Descriptions of functions, as the client sent them; without any a template finds `none`.
    pub tools: Vec<Value>,
    /// Whether the template opens the assistant's answer at its end.
    pub add_generation_prompt: bool,
}

/// One message: its fields as the client sent them, `role` and `content` among them.
///
/// A template finds in it what is here and no more: a `content` that is null is `none` to it, one that is absent is undefined, and
/// `tool_calls`, `tool_call_id`, `name` and what else a model's template asks for are passed on as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatMessage {
    pub fields: Map<String, Value>,
}

// === impl Chat ===

impl Chat {
    /// Messages whose answer is to be given.
    pub fn new(messages: Vec<ChatMessage>) -> Self {
        Self { messages, tools: Vec::new(), add_generation_prompt: true }
    }
}

// === impl ChatMessage ===

impl ChatMessage {
    /// A message of text and nothing else; which roles are allowed is the template's own business.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { fields: Map::new() }.with("role", role.into()).with("content", content.into())
    }

    /// This message with one more field, or another value of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    pub fn role(&self) -> Option<&str> {
        self.fields.get("role").and_then(Value::as_str)
    }

    /// The content, where it is text.
    pub fn content(&self) -> Option<&str> {
        self.fields.get("content").and_then(Value::as_str)
    }
}
