//! Chats: the messages that a template renders, with whatever fields the client gave them. Renders nothing itself.

use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, de};

use crate::json::{Json, Object};

/// What a template is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    pub messages: Vec<ChatMessage>,
    /// Descriptions of functions, as the client sent them; without any a template finds `none`.
    pub tools: Vec<Json>,
    /// Whether the template opens the assistant's answer at its end.
    pub add_generation_prompt: bool,
    /// What the template's `strftime_now` tells; without it there is no such function, and templates take their built-in date.
    pub now: Option<DateTime>,
    /// What else the template finds, by name. Names that it finds anyway are not overridden.
    pub variables: Object,
}

/// One message: its fields as the client sent them, `role` and `content` among them.
///
/// A template finds in it what is here and no more: a `content` that is null is `none` to it, one that is absent is undefined, and
/// `tool_calls`, `tool_call_id`, `name` and what else a model's template asks for are passed on as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatMessage {
    pub fields: Object,
}

// === impl Chat ===

impl Chat {
    /// Messages whose answer is to be given.
    pub fn new(messages: Vec<ChatMessage>) -> Self {
        Self { messages, add_generation_prompt: true, ..Self::default() }
    }

    /// Gives every text that a client sent to `take`, names of fields among them.
    pub(crate) fn each_text(&self, take: &mut impl FnMut(&str)) {
        let objects = self.messages.iter().map(|message| &message.fields).chain([&self.variables]);
        for (name, field) in objects.flatten() {
            take(name);
            field.each_text(take);
        }
        self.tools.iter().for_each(|tool| tool.each_text(take));
    }

    /// Bytes of all that a client sent.
    pub(crate) fn n_bytes(&self) -> usize {
        let objects = self.messages.iter().map(|message| &message.fields).chain([&self.variables]);
        let of_objects: usize = objects.flatten().map(|(name, field)| name.len() + field.n_bytes()).sum();
        of_objects + self.tools.iter().map(Json::n_bytes).sum::<usize>()
    }
}

// === impl ChatMessage ===

impl ChatMessage {
    /// A message of text and nothing else; which roles are allowed is the template's own business.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { fields: Object::new() }.with("role", role.into()).with("content", content.into())
    }

    /// This message with one more field, or another value of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    pub fn role(&self) -> Option<&str> {
        self.fields.get("role").and_then(Json::as_str)
    }

    /// The content, where it is text.
    pub fn content(&self) -> Option<&str> {
        self.fields.get("content").and_then(Json::as_str)
    }
}

impl<'de> Deserialize<'de> for ChatMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Object(fields) => Ok(Self { fields }),
            _ => Err(de::Error::custom("a message is an object")),
        }
    }
}
