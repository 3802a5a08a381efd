//! Tokenizer config: what a `tokenizer_config.json` says beside its `tokenizer.json`, by the fields that are used.

use serde::Deserialize;

/// The begin and end tokens by name, and the chat templates.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    pub(crate) add_bos_token: Option<bool>,
    pub(crate) add_eos_token: Option<bool>,
    chat_template: Option<Templates>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Added { content: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<Template>),
}

#[derive(Debug, Deserialize)]
struct Template {
    name: String,
    template: String,
}

// === impl TokenizerConfig ===

impl TokenizerConfig {
    pub(crate) fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_ref().map(Named::name)
    }

    pub(crate) fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_ref().map(Named::name)
    }

    /// The template of this name; one without a name is `default`.
    pub(crate) fn template(&self, name: &str) -> Option<&str> {
        match self.chat_template.as_ref()? {
            Templates::One(template) => (name == "default").then_some(template),
            Templates::Several(templates) => {
                templates.iter().find(|template| template.name == name).map(|template| template.template.as_str())
            }
        }
    }
}

// === impl Named ===

impl Named {
    fn name(&self) -> &str {
        match self {
            Self::Plain(name) | Self::Added { content: name } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_and_templates_are_written_in_two_ways_each() {
        let read = |text: &str| serde_json::from_str::<TokenizerConfig>(text).unwrap();
        let plain = read(r#"{"bos_token": "<s>", "eos_token": null, "chat_template": "a", "use_fast": true}"#);
        assert_eq!((plain.bos_token(), plain.eos_token(), plain.template("default")), (Some("<s>"), None, Some("a")));
        assert_eq!(plain.template("tool_use"), None);
        let other = read(
            r#"{"bos_token": {"content": "<s>", "lstrip": false}, "chat_template":
                [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}"#,
        );
        assert_eq!((other.bos_token(), other.template("default")), (Some("<s>"), Some("a")));
        assert_eq!((other.template("tool_use"), other.template("rag")), (Some("b"), None));
    }
}
