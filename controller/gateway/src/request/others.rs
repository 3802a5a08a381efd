//! Others: fields that an endpoint does not know. What only describes the request is named here and let be, and so is what asks for what
//! happens anyway; all else might change the answer, and is refused by name. Pure.

use serde_json::{Map, Value};

use crate::errors::ApiError;

/// They describe who asks, or how the request is to be kept, counted or put in order.
pub(crate) const HARMLESS: [&str; 11] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "priority",
    "cache_salt",
    "cache_prompt",
];

/// What to send in place of a field of another program.
const REMEDIES: [(&str, &str); 6] = [
    ("n_predict", "send `max_tokens`"),
    ("num_predict", "send `max_tokens`"),
    ("repeat_penalty", "send `repetition_penalty`"),
    ("options", "send its fields in the request itself"),
    ("max_new_tokens", "send `max_tokens`"),
    ("top_n_sigma", "send `min_p` or `top_p`"),
];

/// # Errors
/// 400 naming the first field that is neither known nor let be.
pub(super) fn refuse(fields: &Map<String, Value>, known: &[&[&str]]) -> Result<(), ApiError> {
    let is_known = |name: &str| known.iter().any(|known| known.contains(&name)) || HARMLESS.contains(&name);
    let asks_for_something = |value: &Value| !value.is_null();
    let mut others = fields.iter().filter(|(name, value)| !is_known(name) && asks_for_something(value));
    match others.find(|(name, value)| !is_neutral(name, value)) {
        None => Ok(()),
        Some((name, _)) => {
            let remedy = REMEDIES.iter().find(|(other, _)| other == name).map_or("leave it out", |(_, remedy)| remedy);
            Err(ApiError::unsupported(name, remedy))
        }
    }
}

/// Whether a value says what happens anyway: the defaults of OpenAI and vLLM, which some clients always send.
fn is_neutral(name: &str, value: &Value) -> bool {
    let is_empty = || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    match name {
        "n" | "best_of" => value == 1,
        "min_tokens" => value == 0,
        "length_penalty" => value.as_f64() == Some(1.0),
        "use_beam_search" | "early_stopping" | "include_stop_str_in_output" | "continue_final_message" | "echo" => {
            value == false
        }
        "add_special_tokens" => value == false,
        "skip_special_tokens" | "spaces_between_special_tokens" | "detokenize" | "parallel_tool_calls" => value == true,
        "tools" | "functions" | "stop_token_ids" | "bad_words" | "documents" | "logits_processors" => is_empty(),
        "chat_template_kwargs" => is_empty(),
        "tool_choice" | "function_call" => value == "none" || value == "auto",
        "response_format" => value["type"] == "text",
        "modalities" => value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text")),
        "verbosity" => value == "medium",
        "suffix" => value == "",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn refused(body: &Value) -> Option<String> {
        refuse(body.as_object().unwrap(), &[&["model"], &["prompt"]]).err().map(|error| {
            assert_eq!((error.status.as_u16(), error.code), (400, Some("unsupported_parameter")));
            error.param.unwrap()
        })
    }

    #[test]
    fn what_might_change_the_answer_is_refused_by_name() {
        let names = [
            "audio",
            "web_search_options",
            "reasoning_effort",
            "prediction",
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "structured_outputs",
            "truncate_prompt_tokens",
            "prompt_logprobs",
            "chat_template",
            "n_predict",
            "repeat_penalty",
            "grammar",
            "json_schema",
            "mirostat",
            "typical_p",
            "dry_multiplier",
            "xtc_threshold",
            "format",
            "think",
            "options",
            "allowed_token_ids",
            "a_field_of_tomorrow",
        ];
        for name in names {
            assert_eq!(refused(&json!({"model": "m", "prompt": "a", name: 1})).as_deref(), Some(name));
            assert_eq!(refused(&json!({"model": "m", name: null})), None, "{name}");
        }
        let values = [
            ("n", json!(2)),
            ("min_tokens", json!(1)),
            ("length_penalty", json!(0.5)),
            ("use_beam_search", json!(true)),
            ("include_stop_str_in_output", json!(true)),
            ("skip_special_tokens", json!(false)),
            ("continue_final_message", json!(true)),
            ("tools", json!([{}])),
            ("bad_words", json!(["a"])),
            ("logits_processors", json!(["a"])),
            ("chat_template_kwargs", json!({"enable_thinking": false})),
            ("tool_choice", json!("required")),
            ("function_call", json!({"name": "f"})),
            ("response_format", json!({"type": "json_object"})),
            ("modalities", json!(["text", "audio"])),
            ("verbosity", json!("low")),
            ("suffix", json!("a")),
            ("echo", json!(true)),
        ];
        for (name, value) in values {
            assert_eq!(refused(&json!({name: value})).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_describes_the_request_or_says_what_happens_anyway_is_let_be() {
        for name in HARMLESS {
            assert_eq!(refused(&json!({name: "x"})), None, "{name}");
        }
        let values = [
            ("n", json!(1)),
            ("best_of", json!(1)),
            ("min_tokens", json!(0)),
            ("length_penalty", json!(1.0)),
            ("skip_special_tokens", json!(true)),
            ("include_stop_str_in_output", json!(false)),
            ("tools", json!([])),
            ("chat_template_kwargs", json!({})),
            ("tool_choice", json!("auto")),
            ("modalities", json!(["text"])),
            ("response_format", json!({"type": "text"})),
            ("parallel_tool_calls", json!(true)),
            ("suffix", json!("")),
        ];
        for (name, value) in values {
            assert_eq!(refused(&json!({name: value})), None, "{name}");
        }
    }

    #[test]
    fn what_is_let_be_is_named_in_the_guide() {
        let guide = include_str!("../../../../docs/openai-clients.md");
        for name in HARMLESS {
            assert!(guide.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn who_sends_a_field_of_another_program_is_told_ours() {
        let fields = json!({"n_predict": 5});
        let message = refuse(fields.as_object().unwrap(), &[]).unwrap_err().message;
        assert!(message.contains("`n_predict`") && message.contains("`max_tokens`"), "{message}");
    }
}
