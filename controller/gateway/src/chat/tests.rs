//! What a chat may say, and what becomes of it.

#![allow(clippy::unwrap_used)]
use polyphony_model::ChatMessage;
use serde_json::{Value, json};

use super::*;

fn parse(body: Value) -> Result<ChatRequest, ApiError> {
    let fields = Fields::parse(body.to_string().as_bytes()).unwrap();
    ChatRequest::parse(&fields, &Limits { max_stop_bytes: 8, max_prompts: 1 })
}

#[test]
fn content_is_a_string_or_parts_of_text() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let body = json!({"model": "m", "messages": [
        {"role": "developer", "content": "s"}, {"role": "user", "content": parts, "name": "x", "refusal": null},
    ]});
    let messages = parse(body).unwrap().chat.messages;
    assert_eq!(messages, [ChatMessage::new("system", "s"), ChatMessage::new("user", "ab").with("name", "x")]);
}

#[test]
fn a_wrong_message_is_named() {
    let image = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]);
    let calls = |arguments: Value| json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]);
    let cases = [
        (json!("hello"), "messages", "a list of messages, not a string"),
        (json!([]), "messages", "at least one"),
        (json!(["hello"]), "messages[0]", "not a string"),
        (json!([{"content": "a"}]), "messages[0].role", "such as `user`"),
        (json!([{"role": "user", "content": "a"}, {"role": "user"}]), "messages[1].content", "not nothing"),
        (json!([{"role": "assistant", "content": null}]), "messages[0].content", "not null"),
        (json!([{"role": "user", "content": 3}]), "messages[0].content", "not a number"),
        (json!([{"role": "user", "content": image}]), "messages[0].content[1].type", "does not read `image_url`"),
        (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text", "not null"),
        (json!([{"role": "user", "content": [3]}]), "messages[0].content[0].type", "send `text`"),
        (json!([{"role": "user", "content": "a", "audio": {}}]), "messages[0].audio", "leave it out"),
        (json!([{"role": "user", "content": "a", "name": 3}]), "messages[0].name", "not a number"),
        (calls(json!("[1]")), "messages[0].tool_calls[0].function.arguments", "a JSON object"),
        (calls(json!(1)), "messages[0].tool_calls[0].function.arguments", "not a number"),
        (
            json!([{"role": "assistant", "tool_calls": [{}]}]),
            "messages[0].tool_calls[0].function",
            "name and arguments",
        ),
    ];
    for (messages, param, words) in cases {
        let error = parse(json!({"model": "m", "messages": messages})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
    }
    let error = parse(json!({"model": "m"})).unwrap_err();
    assert_eq!((error.param.as_deref(), error.code), (Some("messages"), Some("missing_required_parameter")));
}

#[test]
fn alternatives_need_log_probabilities() {
    let body = |logprobs: Value, top: Value| {
        let messages = json!([{"role": "user", "content": "a"}]);
        parse(json!({"model": "m", "messages": messages, "logprobs": logprobs, "top_logprobs": top}))
    };
    assert_eq!(body(json!(true), json!(3)).unwrap().generation.logprobs, Some(3));
    assert_eq!(body(json!(true), json!(null)).unwrap().generation.logprobs, Some(0));
    assert_eq!(body(json!(null), json!(0)).unwrap().generation.logprobs, None);
    for (logprobs, top) in [(json!(false), json!(3)), (json!(true), json!(21)), (json!(2), json!(null))] {
        assert_eq!(body(logprobs, top).unwrap_err().status.as_u16(), 400);
    }
}

/// A history as LangChain and the AI SDK send it, and tools.
fn with_calls() -> Value {
    json!({"model": "m", "messages": [
        {"role": "user", "content": "Is it warm in Oslo?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ], "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}], "tool_choice": "auto"})
}

fn rendered(template: &str, chat: &Chat) -> Result<String, ApiError> {
    let template = ChatTemplate::new(template, "<s>".into(), "</s>".into(), &["<s>", "</s>"]).unwrap();
    let prompt = template.render(chat).map_err(|error| ApiError::field("messages", error))?;
    check_rendered(&template, chat.clone(), &prompt).map(|()| prompt.text())
}

#[test]
fn calls_and_tools_are_given_to_a_template_that_has_a_place_for_them() {
    let template = "{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}{{ m.role }}:{{ m.content }}\
        {% for c in m.tool_calls %}({{ c.function.name }} {{ c.function.arguments.city }}){% endfor %};{% endfor %}";
    let chat = parse(with_calls()).unwrap().chat;
    let expected = "[weather]user:Is it warm in Oslo?;assistant:(weather Oslo);tool:21 degrees;";
    assert_eq!(rendered(template, &chat).unwrap(), expected);
}

#[test]
fn a_template_finds_fields_in_the_order_in_which_they_were_sent() {
    let body = r#"{"model": "m", "messages": [{"role": "assistant", "tool_calls":
        [{"function": {"name": "f", "arguments": "{\"z\": 1, \"a\": 2}"}}]}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]}"#;
    let chat = chat(&Fields::parse(body.as_bytes()).unwrap()).unwrap();
    let template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}{{ tools[0] | tojson }}";
    let expected = "{\"z\": 1, \"a\": 2}{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"d\", \"parameters\": {}}}";
    assert_eq!(rendered(template, &chat).unwrap(), expected);
}

#[test]
fn a_template_finds_what_a_client_names_for_it() {
    let with = |kwargs: Value| parse(json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": kwargs}));
    let chat = with(json!({"enable_thinking": false})).unwrap().chat;
    assert_eq!(rendered("{{ messages[0].content }}{{ enable_thinking }}", &chat).unwrap(), "aFalse");
    assert_eq!(with(json!([1])).unwrap_err().param.as_deref(), Some("chat_template_kwargs"));
}

#[test]
fn calls_and_tools_are_refused_by_name_where_the_template_passes_over_them() {
    let plain = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
    let mut chat = parse(with_calls()).unwrap().chat;
    let param = |chat: &Chat| rendered(plain, chat).unwrap_err().param.unwrap();
    assert_eq!(param(&chat), "messages[1].tool_calls");
    chat.messages.truncate(1);
    assert_eq!(param(&chat), "tools");
    chat.tools.clear();
    assert_eq!(rendered(plain, &chat).unwrap(), "user:Is it warm in Oslo?;");
}

#[test]
fn no_call_can_be_forced_or_forbidden() {
    for choice in [json!("required"), json!("none"), json!({"type": "function", "function": {"name": "weather"}})] {
        let mut body = with_calls();
        body["tool_choice"] = choice;
        assert_eq!(parse(body).unwrap_err().param.as_deref(), Some("tool_choice"));
    }
    let mut body = with_calls();
    body["tools"][0]["type"] = json!("retrieval");
    assert_eq!(parse(body).unwrap_err().param.as_deref(), Some("tools[0]"));
}
