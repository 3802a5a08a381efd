//! Chat template: messages to the text that the model was trained to see, by the file's own Jinja template.
//!
//! Rendered as `transformers` does it (blocks trimmed, Python's string methods, `raise_exception`, `tojson`), but for one thing: there is
//! no clock, so `strftime_now` is left undefined and templates take their built-in date. A template is as little to be trusted as any
//! file: its steps, what it makes and what it reads through are bounded ([`budget`]), and what is a control token in its result is what it
//! wrote itself ([`marks`]).

mod budget;
mod filters;
mod json;
mod marks;
mod rewrite;

use std::collections::BTreeMap;

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{CodeGenerator, Instructions, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

pub use rewrite::Unsupported;

use crate::chat::{Chat, ChatMessage};
use crate::gguf::{Gguf, GgufError};
use crate::prompt::Prompt;
use crate::tokenizer::control_names;
use marks::{ControlNames, Marks};
use rewrite::Rewriter;

/// A chat template that compiles, with the model's own begin and end tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    syntax: SyntaxConfig,
    control_names: ControlNames,
    bos_token: String,
    eos_token: String,
}

/// Why messages gave no prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("the model file has no `{KEY}`: it is no chat model; use plain completions")]
    Missing,
    #[error(
        "`{KEY}` has {found} bytes, over the limit of {MAX_SOURCE_BYTES}; convert the model with a shorter template"
    )]
    TooLong { found: usize },
    #[error("`{KEY}` does not compile: {0:#}; convert the model with another template")]
    Compile(#[source] Error),
    #[error("`{KEY}` is not supported: {0}; convert the model with another template")]
    Unsupported(#[from] Unsupported),
    #[error("the chat template refuses these messages: {0}")]
    Refused(String),
    #[error("the chat template failed on these messages: {0:#}")]
    Render(#[source] Error),
    #[error(
        "the chat template {0}, so it was stopped: send a shorter chat, or convert the model with another template"
    )]
    Exhausted(String),
    #[error("the chat has every noncharacter of Unicode, and none is left to mark control tokens with: leave some out")]
    NoMark,
}

const KEY: &str = "tokenizer.chat_template";
/// The longest known have some 20,000 bytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Instructions that a rendering may take: far more than a long chat needs, and an end to a template that loops.
const FUEL: u64 = 4_000_000;
/// Marks what a template said itself through `raise_exception`.
const RAISED: &str = "raise_exception: ";

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Compiles the template of a model file.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] for a file without one, [`TemplateError::Compile`] for one that is no Jinja,
    /// [`TemplateError::Unsupported`] for one that does what chat templates do not.
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
        Self::new(source, bos_token, eos_token, &control_names(metadata)?)
    }

    /// Compiles `source`; the two tokens are what the template finds as `bos_token` and `eos_token`, and `control_names` the names of all
    /// control tokens.
    ///
    /// # Errors
    /// [`TemplateError::Compile`], [`TemplateError::Unsupported`].
    pub fn new(
        source: &str,
        bos_token: String,
        eos_token: String,
        control_names: &[&str],
    ) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::TooLong { found: source.len() });
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let mut environment = Environment::new();
        filters::furnish(&mut environment);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{text}")))
        });
        let template = Self {
            environment,
            source: without_training_marks(source),
            syntax: syntax.map_err(TemplateError::Compile)?,
            control_names: ControlNames::new(control_names.iter().copied()),
            bos_token,
            eos_token,
        };
        template.compile(None)?;
        Ok(template)
    }

    /// The prompt that a chat makes.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] with the template's own words, [`TemplateError::Render`] for a template that fails,
    /// [`TemplateError::Exhausted`] for one that takes more than a chat can need.
    pub fn render(&self, chat: &Chat) -> Result<Prompt, TemplateError> {
        let marks = Marks::for_chat(&self.control_names, chat, &self.source).ok_or(TemplateError::NoMark)?;
        let (instructions, blocks) = self.compile(Some(&marks))?;
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let root = context(chat, marks.mark_name(&self.bos_token), marks.mark_name(&self.eos_token));
        let rendered = eval(&self.environment, &instructions, root, &blocks, &mut output, AutoEscape::None).map(drop);
        drop(output);
        rendered.map_err(|error| failure(error, &marks))?;
        Ok(marks.read(&text))
    }

    /// Renders small chats, to find out whether the template works at all.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; but a template may refuse any of them in its own words.
    pub fn try_out(&self) -> Result<(), TemplateError> {
        let question = || ChatMessage::new("user", "What is the capital of France?");
        let dialogue =
            || vec![question(), ChatMessage::new("assistant", "Paris."), ChatMessage::new("user", "And of Chad?")];
        let instructed = [vec![ChatMessage::new("system", "Be brief.")], dialogue()].concat();
        for messages in [vec![question()], dialogue(), instructed] {
            match self.render(&Chat::new(messages)) {
                Ok(_) | Err(TemplateError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn compile<'s>(&'s self, marks: Option<&Marks<'s>>) -> Result<Compiled<'s>, TemplateError> {
        let tree = parse(&self.source, KEY, self.syntax.clone()).map_err(TemplateError::Compile)?;
        let tree: Stmt<'s> = Rewriter { marks, is_within: false }.statement(&tree)?;
        let mut generator = CodeGenerator::new(KEY, &self.source);
        generator.compile_stmt(&tree);
        Ok(generator.finish())
    }
}

/// The instructions of a template, and those of its blocks, of which there are none.
type Compiled<'s> = (Instructions<'s>, BTreeMap<&'s str, Instructions<'s>>);

fn context(chat: &Chat, bos_token: String, eos_token: String) -> Value {
    let messages = chat.messages.iter().map(|message| pairs(message.fields.iter()));
    let messages: Vec<Value> = messages.collect();
    // Templates ask `is not none` of tools and documents, so undefined would mean that there are some.
    let tools = (!chat.tools.is_empty()).then(|| chat.tools.iter().map(value_of).collect::<Vec<_>>());
    let of_messages = chat.messages.iter().flat_map(|message| message.fields.iter());
    let n_bytes: usize = of_messages.map(|(name, field)| name.len() + n_bytes_of(field)).sum();
    let n_bytes = n_bytes + chat.tools.iter().map(n_bytes_of).sum::<usize>();
    Value::from_pairs([
        ("messages", Value::from(messages)),
        ("add_generation_prompt", Value::from(chat.add_generation_prompt)),
        ("bos_token", Value::from(bos_token)),
        ("eos_token", Value::from(eos_token)),
        ("tools", Value::from(tools)),
        ("documents", Value::from(())),
        (budget::INPUT, Value::from(n_bytes)),
    ])
}

fn failure(error: Error, marks: &Marks<'_>) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    if let Some(words) = detail.strip_prefix(RAISED) {
        return TemplateError::Refused(marks.clear(words));
    }
    match (error.kind(), detail.strip_prefix(budget::SPENT)) {
        (_, Some(words)) => TemplateError::Exhausted(words.to_owned()),
        (ErrorKind::OutOfFuel, _) => TemplateError::Exhausted("takes more steps than any chat needs".to_owned()),
        _ => TemplateError::Render(error),
    }
}

/// What a template finds where the client sent `json`.
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value_of).collect::<Vec<_>>().into(),
        Json::Object(fields) => pairs(fields.iter()),
    }
}

fn pairs<'j>(fields: impl Iterator<Item = (&'j String, &'j Json)>) -> Value {
    Value::from_pairs(fields.map(|(name, field)| (name.as_str(), value_of(field))))
}

fn n_bytes_of(json: &Json) -> usize {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(n_bytes_of).sum(),
        Json::Object(fields) => fields.iter().map(|(name, field)| name.len() + n_bytes_of(field)).sum(),
    }
}

/// `{% generation %}` tells trainers which text is the model's own, and nothing to anyone else.
fn without_training_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let control = tag.len() - tag.trim_start_matches(['-', '+']).trim_start().len();
        let word = &tag[control..];
        for (name, stands_for) in [("generation", "if true"), ("endgeneration", "endif")] {
            let Some(after) = word.strip_prefix(name) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&tag[..control]);
                out.push_str(stands_for);
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn render(source: &str, contents: &[(&str, &str)]) -> Result<String, TemplateError> {
        let messages = contents.iter().map(|&(role, content)| ChatMessage::new(role, content)).collect();
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into(), &["<s>", "</s>"])?;
        template.render(&Chat::new(messages)).map(|prompt| prompt.text())
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
        assert!(matches!(render(source, &[]), Err(TemplateError::Exhausted(_))));
    }

    #[test]
    fn a_template_that_is_no_jinja_does_not_compile() {
        assert!(matches!(render("{% for %}", &[]), Err(TemplateError::Compile(_))));
    }

    #[test]
    fn what_trainers_mark_is_read_as_the_text_that_it_is() {
        let source = "{% for m in messages %}a {%- generation -%} {{ m.content }} {%- endgeneration %} b{% endfor %}";
        assert_eq!(render(source, &[("assistant", "x")]).unwrap(), "ax b");
    }

    #[test]
    fn fields_come_to_the_template_as_the_client_sent_them() {
        let source = "{% for m in messages %}{{ m.role }}:{% if m.content is none %}-{% endif %}{% for call in m.tool_calls %}\
                      {{ call.function.arguments | tojson }}{% endfor %}{% endfor %}{{ tools | tojson(indent=1) }}";
        let call = serde_json::json!([{"function": {"arguments": {"city": "<Zürich>", "n": 1.5}}}]);
        let message = ChatMessage::new("assistant", "").with("content", Json::Null).with("tool_calls", call);
        let template = ChatTemplate::new(source, String::new(), String::new(), &[]).unwrap();
        let chat = Chat { tools: vec![serde_json::json!({"name": "f", "list": []})], ..Chat::new(vec![message]) };
        let expected =
            "assistant:-{\"city\": \"<Zürich>\", \"n\": 1.5}[\n {\n  \"list\": [],\n  \"name\": \"f\"\n }\n]";
        assert_eq!(template.render(&chat).unwrap().text(), expected);
    }

    #[test]
    fn a_template_that_needs_what_is_not_there_fails_when_it_is_tried_out() {
        for (source, words) in [
            ("{{ strftime_now('%Y') }}", "strftime_now is unknown"),
            ("{{ messages | frobnicate }}", "filter frobnicate is not supported"),
            ("{% include 'a' %}", "it uses other templates"),
            ("{% for m in messages %}{% macro f() %}{% endmacro %}{% endfor %}", "defines a macro"),
        ] {
            let tried = ChatTemplate::new(source, String::new(), String::new(), &[]).and_then(|it| it.try_out());
            let error = tried.unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
        let words = "{{ raise_exception('no system message') }}";
        ChatTemplate::new(words, String::new(), String::new(), &[]).unwrap().try_out().unwrap();
    }
}
