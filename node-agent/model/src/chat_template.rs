//! Chat template: messages to the text that the model was trained to see, by the file's own Jinja template.
//!
//! Rendered as `transformers` does it (blocks trimmed, Python's string methods, `raise_exception`), but for one thing:
//! there is no clock, so `strftime_now` is left undefined and templates take their built-in date.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::gguf::{Gguf, GgufError};

/// A compiled chat template with the model's own begin and end tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`; which are allowed is the template's own business.
    pub role: String,
    pub content: String,
}

/// Why messages gave no prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("the model file has no `tokenizer.chat_template`: it is no chat model; use plain completions")]
    Missing,
    #[error("the chat template of the model file does not compile: {0:#}; convert the model anew")]
    Compile(#[source] Error),
    #[error("the chat template refuses these messages: {0}")]
    Refused(String),
    #[error("the chat template failed on these messages: {0:#}")]
    Render(#[source] Error),
}

const KEY: &str = "tokenizer.chat_template";
/// Instructions a rendering may take: far more than a long chat needs, and an end to a template that loops.
const FUEL: u64 = 20_000_000;
/// Marks what a template said itself through `raise_exception`.
const RAISED: &str = "raise_exception: ";

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Compiles the template of a model file.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] for a file without one, [`TemplateError::Compile`] for one that is no Jinja.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TemplateError> {
        let metadata = &gguf.metadata;
        let source = metadata.optional_string(KEY)?.ok_or(TemplateError::Missing)?;
        let mut bos_and_eos = [String::new(), String::new()];
        for (text, name) in bos_and_eos.iter_mut().zip(["bos", "eos"]) {
            if let Some(id) = metadata.optional_u32(&format!("tokenizer.ggml.{name}_token_id"))? {
                let tokens = metadata.strings("tokenizer.ggml.tokens")?;
                *text = tokens.get(id as usize).cloned().unwrap_or_default();
            }
        }
        let [bos_token, eos_token] = bos_and_eos;
        Self::new(source, bos_token, eos_token)
    }

    /// Compiles `source`; the two tokens are what the template finds as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Compile`].
    pub fn new(source: &str, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(TemplateError::Compile)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{text}")))
        });
        environment.add_template_owned(KEY, source.to_owned()).map_err(TemplateError::Compile)?;
        Ok(Self { environment, bos_token, eos_token })
    }

    /// The prompt that these messages make; `add_generation_prompt` opens the assistant's answer at its end.
    ///
    /// Control tokens stand in the text by name: encode it with `parse_special`.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] with the template's own words, [`TemplateError::Render`] for a template that fails.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let messages = messages.iter().map(|message| {
            context! { role => message.role.as_str(), content => message.content.as_str() }
        });
        let template = self.environment.get_template(KEY).map_err(TemplateError::Render)?;
        let context = context! {
            messages => messages.collect::<Vec<_>>(),
            add_generation_prompt,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            // Templates ask `is not none` of these, so undefined would mean that there are some.
            tools => (),
            documents => (),
        };
        template.render(context).map_err(|error| match error.detail().and_then(|text| text.strip_prefix(RAISED)) {
            Some(words) => TemplateError::Refused(words.to_owned()),
            None => TemplateError::Render(error),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn render(source: &str, contents: &[(&str, &str)]) -> Result<String, TemplateError> {
        let message = |&(role, content): &(&str, &str)| ChatMessage { role: role.into(), content: content.into() };
        let messages: Vec<_> = contents.iter().map(message).collect();
        ChatTemplate::new(source, "<s>".into(), "</s>".into())?.render(&messages, true)
    }

    #[test]
    fn blocks_leave_no_lines_behind_as_in_transformers() {
        let source = "{% for m in messages %}\n  {% if true %}\n{{ m.role }}: {{ m['content'].strip() }}\n{% endif %}\n{% endfor %}\n{{ bos_token }}";
        assert_eq!(render(source, &[("user", " a "), ("assistant", "b")]).unwrap(), "user: a\nassistant: b\n<s>");
    }

    #[test]
    fn content_is_neither_escaped_nor_run_as_a_template() {
        let text = "<|im_start|> & \" {{ bos_token }} {% raw %}";
        assert_eq!(render("{{ messages[0].content }}", &[("user", text)]).unwrap(), text);
    }

    #[test]
    fn absent_tools_are_none_and_there_is_no_clock() {
        let source = "{% if tools is not none %}T{% endif %}{% if documents %}D{% endif %}{% if strftime_now is defined %}C{% endif %}ok";
        assert_eq!(render(source, &[]).unwrap(), "ok");
    }

    #[test]
    fn what_a_template_refuses_is_told_in_its_own_words() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert_eq!(error.to_string(), "the chat template refuses these messages: roles must alternate");
    }

    #[test]
    fn a_template_that_loops_without_end_runs_out_of_fuel() {
        let source = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(matches!(render(source, &[]), Err(TemplateError::Render(_))));
    }

    #[test]
    fn a_template_that_is_no_jinja_does_not_compile() {
        assert!(matches!(render("{% for %}", &[]), Err(TemplateError::Compile(_))));
    }
}
