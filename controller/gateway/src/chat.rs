//! Chat: `POST /v1/chat/completions`, from messages to the form of its answer.

mod form;
mod messages;

use polyphony_model::{Chat, ChatTemplate, Json, Object, Prompt, TemplateError};

use crate::errors::ApiError;
use crate::fields::Fields;
use crate::fit;
use crate::generation::{GENERATION, Generation, Limits, alternatives};
use crate::model_text::ModelText;

pub(crate) use form::ChatForm;

/// The fields that a chat has beside those of all endpoints.
const OWN: &[&str] =
    &["messages", "tools", "tool_choice", "logprobs", "top_logprobs", "add_generation_prompt", "chat_template_kwargs"];

/// What a chat asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) generation: Generation,
    pub(crate) chat: Chat,
}

// === impl ChatRequest ===

impl ChatRequest {
    /// # Errors
    /// 400 naming the first field that is wrong.
    pub(crate) fn parse(fields: &Fields, limits: &Limits) -> Result<Self, ApiError> {
        fields.refuse_others(&[GENERATION, OWN])?;
        let wanted = fields.flag("logprobs", false)?;
        let top = alternatives(fields, "top_logprobs")?;
        if top.is_some_and(|n| n > 0) && !wanted {
            return Err(ApiError::field("top_logprobs", "send `logprobs`: true with it"));
        }
        let generation = Generation::parse(fields, limits, wanted.then_some(top.unwrap_or(0)))?;
        Ok(Self { generation, chat: chat(fields)? })
    }
}

/// The chat of a body: its messages and tools, and whether the template opens the assistant's answer.
///
/// # Errors
/// 400 naming the first message or tool, and the field of it, that is wrong.
pub(crate) fn chat(fields: &Fields) -> Result<Chat, ApiError> {
    let tools = tools(fields)?;
    match fields.get("tool_choice") {
        None => {}
        Some(choice) if choice == "auto" || (choice == "none" && tools.is_empty()) => {}
        Some(_) => {
            let remedy = "the model is free to call a tool or not; send `auto`, or no `tools`";
            return Err(ApiError::unsupported("tool_choice", remedy));
        }
    }
    let messages = messages::parse(fields)?;
    let add_generation_prompt = fields.flag("add_generation_prompt", true)?;
    let variables = match fields.chat_template_kwargs() {
        None => Object::new(),
        Some(Json::Object(variables)) => variables.clone(),
        Some(other) => {
            let expected = format!("send an object such as {{\"enable_thinking\": false}}, not {}", other.kind());
            return Err(ApiError::field("chat_template_kwargs", expected));
        }
    };
    Ok(Chat { messages, tools, add_generation_prompt, variables, now: None })
}

fn tools(fields: &Fields) -> Result<Vec<Json>, ApiError> {
    let listed = match fields.tools() {
        None => return Ok(Vec::new()),
        Some(Json::List(listed)) => listed,
        Some(other) => return Err(ApiError::field("tools", format_args!("send a list, not {}", other.kind()))),
    };
    let is_function = |tool: &Json| {
        let name = tool.get("function").and_then(|function| function.get("name")?.as_str());
        tool.get("type").and_then(Json::as_str) == Some("function") && name.is_some()
    };
    match listed.iter().position(|tool| !is_function(tool)) {
        None => Ok(listed.clone()),
        Some(idx) => {
            let expected = "send {\"type\": \"function\", \"function\": {\"name\": …, \"parameters\": …}}";
            Err(ApiError::field(&format!("tools[{idx}]"), expected))
        }
    }
}

/// The tokens of a chat by the model's own template. With `parse_contents` the names of control tokens become those tokens in what
/// the messages say, too.
///
/// # Errors
/// 400 where the template refuses the messages or has no place for a part of them, or the chat cannot fit.
pub(crate) fn tokens(
    text: &ModelText,
    chat: Chat,
    parse_contents: bool,
    context_length: u32,
) -> Result<Vec<u32>, ApiError> {
    let refused = |error: TemplateError| ApiError::field("messages", error);
    let template = text.template.as_ref().ok_or_else(|| ApiError::no_chat_template(TemplateError::Missing))?;
    let chat = Chat { now: Some(jiff::Zoned::now().datetime()), ..chat };
    let prompt = template.render(&chat).map_err(refused)?;
    check_rendered(template, chat, &prompt)?;
    fit::check("messages", &prompt.text(), &text.tokenizer, context_length)?;
    // The template writes the begin token itself, where its model wants one.
    text.tokenizer.encode_chat(&prompt, parse_contents).map_err(|error| ApiError::field("messages", error))
}

/// Templates pass over what they do not know. Tools and calls are too much to be passed over: a prompt that is the same without them
/// has them not.
fn check_rendered(template: &ChatTemplate, chat: Chat, prompt: &Prompt) -> Result<(), ApiError> {
    let calls = |chat: &Chat| chat.messages.iter().position(|message| message.fields.contains_key("tool_calls"));
    let is_same = |without: &Chat| template.render(without).is_ok_and(|other| other == *prompt);
    let remedy = "the model's chat template has no place for it";
    let mut without = chat;
    if let Some(idx) = calls(&without) {
        let mut no_calls = without.clone();
        no_calls.messages.iter_mut().for_each(|message| drop(message.fields.shift_remove("tool_calls")));
        if is_same(&no_calls) {
            return Err(ApiError::unsupported(&format!("messages[{idx}].tool_calls"), remedy));
        }
    }
    if without.tools.is_empty() {
        return Ok(());
    }
    without.tools.clear();
    if is_same(&without) { Err(ApiError::unsupported("tools", remedy)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
