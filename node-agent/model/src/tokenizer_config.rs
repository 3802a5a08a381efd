//! Tokenizer config: what a `tokenizer_config.json` says beside its `tokenizer.json`, by the fields that are used.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The begin and end tokens by name, and the chat templates.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct TokenizerConfig {
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    pub(crate) add_bos_token: Option<bool>,
    pub(crate) add_eos_token: Option<bool>,
    chat_template: Option<Templates>,
}

#[derive(Debug)]
struct Named(String);

#[derive(Debug)]
enum Templates {
    One(String),
    Several(Vec<Template>),
}

#[derive(Debug, serde::Deserialize)]
struct Template {
    name: String,
    template: String,
}

/// Templates of one file; the most known are three.
const MAX_TEMPLATES: usize = 64;

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
        &self.0
    }
}

// What is written in two ways is read as it comes, never put by first to try both: a long list would become thirty times as large.
impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token's text, or an object with it as `content`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Named, E> {
                Ok(Named(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Named, A::Error> {
                #[derive(serde::Deserialize)]
                struct Added {
                    content: String,
                }
                Added::deserialize(MapAccessDeserializer::new(fields)).map(|added| Named(added.content))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

// === impl Templates ===

impl<'de> Deserialize<'de> for Templates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Templates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a template, or at most {MAX_TEMPLATES} with their names")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Templates, E> {
                Ok(Templates::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut templates: A) -> Result<Templates, A::Error> {
                let mut several = Vec::new();
                while let Some(template) = templates.next_element()? {
                    if several.len() == MAX_TEMPLATES {
                        return Err(A::Error::invalid_length(MAX_TEMPLATES + 1, &self));
                    }
                    several.push(template);
                }
                Ok(Templates::Several(several))
            }
        }
        deserializer.deserialize_any(Reader)
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

    #[test]
    fn what_is_written_in_neither_way_is_refused() {
        for text in [
            r#"{"bos_token": 3}"#,
            r#"{"bos_token": []}"#,
            r#"{"bos_token": {}}"#,
            r#"{"chat_template": {}}"#,
            &format!(r#"{{"chat_template": [{}]}}"#, vec![r#"{"name": "a", "template": ""}"#; 65].join(",")),
        ] {
            assert!(serde_json::from_str::<TokenizerConfig>(text).is_err(), "{text:.60}");
        }
    }
}
