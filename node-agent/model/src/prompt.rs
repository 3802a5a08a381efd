//! Prompts: what a template rendered, with the control tokens that it wrote itself told apart from all other text.

/// A rendered chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    parts: Vec<PromptPart>,
}

/// A stretch of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptPart {
    /// Text, whatever it looks like.
    Text(String),
    /// The name of a control token that the template wrote.
    Control(String),
}

// === impl Prompt ===

impl Prompt {
    pub(crate) fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.parts.last_mut() {
            Some(PromptPart::Text(last)) => last.push_str(text),
            _ => self.parts.push(PromptPart::Text(text.to_owned())),
        }
    }

    pub(crate) fn push_control(&mut self, name: &str) {
        self.parts.push(PromptPart::Control(name.to_owned()));
    }

    pub fn parts(&self) -> &[PromptPart] {
        &self.parts
    }

    /// All of it as one text, in which nothing tells control tokens from text that looks like them.
    pub fn text(&self) -> String {
        let parts = self.parts.iter().map(|part| match part {
            PromptPart::Text(text) | PromptPart::Control(text) => text.as_str(),
        });
        parts.collect()
    }
}
