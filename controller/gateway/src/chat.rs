//! Chat: `POST /v1/chat/completions`, from messages to the form of its answer.

mod form;
mod messages;

use polyphony_model::{Chat, ChatTemplate, Prompt, TemplateError};
use serde_json::Value;

use crate::errors::ApiError;
use crate::fit;
use crate::model_text::ModelText;
use crate::request::{Fields, GENERATION, Generation, Limits, alternatives, kind_of};

pub(crate) use form::ChatForm;

/// The fields that a chat has beside those of all endpoints.
const OWN: &[&str] = &["messages", "tools", "tool_choice", "logprobs", "top_logprobs", "add_generation_prompt"];

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
    Ok(Chat { messages, tools, add_generation_prompt: fields.flag("add_generation_prompt", true)? })
}

fn tools(fields: &Fields) -> Result<Vec<Value>, ApiError> {
    let listed = match fields.get("tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(other) => return Err(ApiError::field("tools", format_args!("send a list, not {}", kind_of(other)))),
    };
    let is_function = |tool: &Value| tool["type"] == "function" && tool["function"]["name"].is_string();
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
    let template = text.template.as_ref().ok_or_else(|| refused(TemplateError::Missing))?;
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
        no_calls.messages.iter_mut().for_each(|message| drop(message.fields.remove("tool_calls")));
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
