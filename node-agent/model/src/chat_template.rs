//! Chat template: messages to the text that the model was trained to see, by the file's own Jinja template.
//!
//! Rendered as `transformers` does it (blocks trimmed, Python's string methods, `raise_exception`, `tojson`); the time that
//! `strftime_now` tells comes with the chat. A template is as little to be trusted as any
//! file: its steps, what it makes and what it reads through are bounded ([`budget`]), and what is a control token in its result is what it
//! wrote itself ([`marks`]).

mod budget;
mod context;
mod filters;
mod json;
mod marks;
mod number;
mod rewrite;
mod source;
mod wall;

use minijinja::machinery::{eval, make_string_output};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::json;

pub use rewrite::Unsupported;

use crate::chat::{Chat, ChatMessage};
use crate::gguf::{Gguf, GgufError};
use crate::json::Json;
use crate::prompt::Prompt;
use crate::tokenizer::control_names;
use crate::tokenizer_config::TokenizerConfig;
use marks::{ControlNames, Marks};
use source::{MAX_CHAINED, MAX_SOURCE_BYTES, Source};

/// The chat templates of a model, which compile, with its own begin and end tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    default: Source,
    /// What renders a chat with tools, where that is another.
    tool_use: Option<Source>,
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
        "`{field}` has {found} bytes, over the limit of {MAX_SOURCE_BYTES}; convert the model with a shorter template"
    )]
    TooLong { field: String, found: usize },
    #[error(
        "`{field}` chains over {MAX_CHAINED} operators in one tag, or as many `elif` branches; convert the model with a simpler template"
    )]
    TooDeep { field: String },
    #[error("`{field}` does not compile: {source}; convert the model with another template")]
    Compile { field: String, source: Error },
    #[error("`{field}` is not supported: {source}; convert the model with another template")]
    Unsupported { field: String, source: Unsupported },
    #[error("the chat template refuses these messages: {0}")]
    Refused(String),
    #[error("the chat template failed on these messages: {0}")]
    Render(#[source] Error),
    #[error(
        "the chat template {0}, so it was stopped: send a shorter chat, or convert the model with another template"
    )]
    Exhausted(String),
    #[error(
        "`{field}` breaks down the template engine ({words}), so nothing was made of it: convert the model with another template"
    )]
    BrokeDown { field: String, words: String },
    #[error("the chat has every noncharacter of Unicode, and none is left to mark control tokens with: leave some out")]
    NoMark,
}

const KEY: &str = "tokenizer.chat_template";
/// Templates beside that of [`KEY`] are named after it: these are used.
const DEFAULT_KEY: &str = "tokenizer.chat_template.default";
const TOOL_USE_KEY: &str = "tokenizer.chat_template.tool_use";
/// Instructions that a rendering may take: far more than a long chat needs, and an end to a template that loops.
const FUEL: u64 = 4_000_000;
/// Marks what a template said itself through `raise_exception`.
const RAISED: &str = "raise_exception: ";

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Compiles the templates of a model file: the one for all chats, and that for chats with tools, if it has one.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] for a file without one, [`TemplateError::Compile`] for one that is no Jinja,
    /// [`TemplateError::Unsupported`] for one that does what chat templates do not.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TemplateError> {
        let metadata = &gguf.metadata;
        let template = |key: &'static str| Ok::<_, GgufError>(metadata.optional_string(key)?.map(|text| (key, text)));
        let tool_use = template(TOOL_USE_KEY)?;
        let default = template(KEY)?.map_or_else(|| template(DEFAULT_KEY), |it| Ok(Some(it)))?;
        let (default, tool_use) = match (default, tool_use) {
            (Some(default), tool_use) => (default, tool_use),
            (None, Some(only)) => (only, None),
            (None, None) => return Err(TemplateError::Missing),
        };
        let mut bos_and_eos = [String::new(), String::new()];
        for (text, name) in bos_and_eos.iter_mut().zip(["bos", "eos"]) {
            if let Some(id) = metadata.optional_u32(&format!("tokenizer.ggml.{name}_token_id"))? {
                let tokens = metadata.strings("tokenizer.ggml.tokens")?;
                *text = tokens.get(id as usize).cloned().unwrap_or_default();
            }
        }
        let [bos_token, eos_token] = bos_and_eos;
        let compiled = |(field, text): (&str, &str)| Source::new(field, text);
        let (default, tool_use) = (compiled(default)?, tool_use.map(compiled).transpose()?);
        Ok(Self::of(default, tool_use, bos_token, eos_token, &control_names(metadata)?))
    }

    /// Compiles the templates of a `tokenizer_config.json`, or for all chats the one of a `chat_template.jinja` beside it.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_gguf`].
    pub(crate) fn from_config(
        config: &TokenizerConfig,
        jinja: Option<&str>,
        control_names: &[&str],
    ) -> Result<Self, TemplateError> {
        let default = jinja.map(|text| Source::new("chat_template.jinja", text));
        let default = default.or_else(|| config.template("default").map(|text| Source::new("chat_template", text)));
        let tool_use = config.template("tool_use").map(|text| Source::new("chat_template.tool_use", text));
        let (default, tool_use) = match (default, tool_use) {
            (Some(default), tool_use) => (default?, tool_use.transpose()?),
            (None, Some(only)) => (only?, None),
            (None, None) => return Err(TemplateError::Missing),
        };
        let token = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let (bos_token, eos_token) = (token(config.bos_token()), token(config.eos_token()));
        Ok(Self::of(default, tool_use, bos_token, eos_token, control_names))
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
        Ok(Self::of(Source::new(KEY, source)?, None, bos_token, eos_token, control_names))
    }

    fn of(
        default: Source,
        tool_use: Option<Source>,
        bos_token: String,
        eos_token: String,
        control_names: &[&str],
    ) -> Self {
        let mut environment = Environment::new();
        filters::furnish(&mut environment);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{text}")))
        });
        let control_names = ControlNames::new(control_names.iter().copied());
        Self { environment, default, tool_use, control_names, bos_token, eos_token }
    }

    /// The prompt that a chat makes.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] with the template's own words, [`TemplateError::Render`] for a template that fails,
    /// [`TemplateError::Exhausted`] for one that takes more than a chat can need, [`TemplateError::BrokeDown`] for one that finds a fault in the
    /// engine.
    pub fn render(&self, chat: &Chat) -> Result<Prompt, TemplateError> {
        let source = self.tool_use.as_ref().filter(|_| !chat.tools.is_empty()).unwrap_or(&self.default);
        self.render_with(source, chat)
    }

    fn render_with(&self, source: &Source, chat: &Chat) -> Result<Prompt, TemplateError> {
        let marks = Marks::for_chat(&self.control_names, chat, &source.text).ok_or(TemplateError::NoMark)?;
        let (instructions, blocks) = source.compile(Some(&marks))?;
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let root = context::of_chat(chat, marks.mark_name(&self.bos_token), marks.mark_name(&self.eos_token));
        let rendered = wall::within(|| {
            eval(&self.environment, &instructions, root, &blocks, &mut output, AutoEscape::None).map(drop)
        });
        drop(output);
        let rendered = rendered.map_err(|words| source.broke_down(words))?;
        rendered.map_err(|error| failure(error, &marks))?;
        Ok(marks.read(&text))
    }

    /// Renders small chats, to find out whether the templates work at all.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; but a template may refuse any of them in its own words.
    pub fn try_out(&self) -> Result<(), TemplateError> {
        let question = || ChatMessage::new("user", "What is the capital of France?");
        let dialogue =
            || vec![question(), ChatMessage::new("assistant", "Paris."), ChatMessage::new("user", "And of Chad?")];
        let instructed = [vec![ChatMessage::new("system", "Be brief.")], dialogue()].concat();
        // Any day: whoever renders a chat knows the time.
        let now = Some(jiff::civil::date(2024, 2, 29).at(12, 0, 0, 0));
        for messages in [vec![question()], dialogue(), instructed] {
            let chat = Chat { now, ..Chat::new(messages) };
            let with_tools = Chat { tools: vec![a_tool()], ..chat.clone() };
            let chats = [(Some(&self.default), &chat), (self.tool_use.as_ref(), &with_tools)];
            for (source, chat) in chats.into_iter().filter_map(|(source, chat)| Some((source?, chat))) {
                match self.render_with(source, chat) {
                    Ok(_) | Err(TemplateError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// A tool as clients describe them.
fn a_tool() -> Json {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!({"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": parameters}})
        .into()
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
    fn absent_tools_are_none_and_there_is_no_time_but_that_of_the_chat() {
        let source = "{% if tools is not none %}T{% endif %}{% if documents %}D{% endif %}{% if strftime_now is defined %}C{% endif %}ok";
        assert_eq!(render(source, &[]).unwrap(), "ok");
        let render = |source: &str| {
            let template = ChatTemplate::new(source, String::new(), String::new(), &[])?;
            template.render(&Chat { now: Some(jiff::civil::date(2026, 3, 9).at(8, 5, 7, 0)), ..Chat::default() })
        };
        assert_eq!(render("{{ strftime_now('%d %B %Y, %-d %H:%M') }}").unwrap().text(), "09 March 2026, 9 08:05");
        for format in ["'%Q%'", "'%255d' * 100", "1"] {
            let error = render(&format!("{{{{ strftime_now({format}) }}}}")).unwrap_err();
            assert!(matches!(error, TemplateError::Render(_)), "{format}: {error}");
        }
    }

    #[test]
    fn what_a_client_names_is_found_but_overrides_nothing() {
        let template =
            ChatTemplate::new("{{ mood }}{{ messages | length }}", String::new(), String::new(), &[]).unwrap();
        let variables = [("mood", "calm"), ("messages", "none"), ("input!", "1")];
        let variables = variables.map(|(name, text)| (name.to_owned(), Json::from(text))).into_iter().collect();
        assert_eq!(template.render(&Chat { variables, ..Chat::default() }).unwrap().text(), "calm0");
    }

    #[test]
    fn a_chat_with_tools_is_rendered_by_the_template_for_it() {
        let source = |text: &str| Source::new(KEY, text).unwrap();
        let make =
            |tool_use| ChatTemplate::of(source("plain"), Some(source(tool_use)), String::new(), String::new(), &[]);
        let template = make("{{ tools | length }} tools");
        let chat = Chat { tools: vec![a_tool()], ..Chat::default() };
        assert_eq!(template.render(&chat).unwrap().text(), "1 tools");
        assert_eq!(template.render(&Chat::default()).unwrap().text(), "plain");
        template.try_out().unwrap();
        assert!(make("{{ tools[0].function.name | frobnicate }}").try_out().is_err());
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
        assert!(matches!(render("{% for %}", &[]), Err(TemplateError::Compile { .. })));
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
        let json = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        let call = json(r#"[{"function": {"arguments": {"n": 1.5, "city": "<Zürich>"}}}]"#);
        let message = ChatMessage::new("assistant", "").with("content", Json::Null).with("tool_calls", call);
        let template = ChatTemplate::new(source, String::new(), String::new(), &[]).unwrap();
        let chat = Chat { tools: vec![json(r#"{"name": "f", "list": []}"#)], ..Chat::new(vec![message]) };
        let expected =
            "assistant:-{\"n\": 1.5, \"city\": \"<Zürich>\"}[\n {\n  \"name\": \"f\",\n  \"list\": []\n }\n]";
        assert_eq!(template.render(&chat).unwrap().text(), expected);
    }

    #[test]
    fn a_template_that_needs_what_is_not_there_fails_when_it_is_tried_out() {
        for (source, words) in [
            ("{{ clock('%Y') }}", "clock is unknown"),
            ("{{ messages | frobnicate }}", "filter frobnicate is not supported"),
            ("{% include 'a' %}", "it uses other templates"),
            ("{% for m in messages %}{% macro f() %}{% endmacro %}{% endfor %}", "defines a macro"),
        ] {
            let tried = ChatTemplate::new(source, String::new(), String::new(), &[]).and_then(|it| it.try_out());
            let error = tried.unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in: {error}");
            assert!(!error.contains('\n'), "it goes into a table's cell: {error}");
        }
        let words = "{{ raise_exception('no system message') }}";
        ChatTemplate::new(words, String::new(), String::new(), &[]).unwrap().try_out().unwrap();
    }
}
