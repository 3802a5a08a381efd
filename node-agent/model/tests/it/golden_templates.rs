//! Chat templates against what Python's jinja2 renders: every template and every conversation of `golden/templates.json`.

use std::collections::HashMap;

use polyphony_model::{Chat, ChatMessage, ChatTemplate, Json, Object, TemplateError};
use serde::Deserialize;

use crate::files;

#[derive(Deserialize)]
struct Golden {
    now: jiff::civil::DateTime,
    templates: HashMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    variables: Json,
    rendered: Option<String>,
    error: Option<String>,
}

/// The names of a case as a chat has them: some have a place of their own.
fn chat(mut variables: Object, now: jiff::civil::DateTime) -> Chat {
    let messages = variables.shift_remove("messages").unwrap();
    let message = |message: &Json| ChatMessage { fields: message.as_object().unwrap().clone() };
    let tools = variables.shift_remove("tools").unwrap_or(Json::Null);
    Chat {
        messages: messages.as_list().unwrap().iter().map(message).collect(),
        tools: tools.as_list().unwrap_or_default().to_vec(),
        add_generation_prompt: variables.shift_remove("add_generation_prompt") == Some(Json::Bool(true)),
        now: Some(now),
        variables,
    }
}

#[test]
fn every_conversation_is_rendered_as_python_does() {
    let golden: Golden = serde_json::from_slice(&std::fs::read(files::golden("templates.json")).unwrap()).unwrap();
    assert!(golden.cases.len() >= 13);
    let mut wrong = Vec::new();
    for case in &golden.cases {
        let Json::Object(mut variables) = case.variables.clone() else { panic!("{}: no object", case.name) };
        let mut token = |name: &str| match variables.shift_remove(name) {
            Some(Json::Text(text)) => text,
            _ => String::new(),
        };
        let (bos, eos) = (token("bos_token"), token("eos_token"));
        let names = [bos.clone(), eos.clone()];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let template = ChatTemplate::new(&golden.templates[&case.template], bos, eos, &names);
        let rendered = template.and_then(|template| template.render(&chat(variables, golden.now)));
        match (rendered, &case.rendered, &case.error) {
            (Ok(prompt), Some(expected), None) if prompt.text() == *expected => {}
            (Err(TemplateError::Refused(words)), None, Some(expected)) if words == *expected => {}
            (found, ..) => wrong.push(format!(
                "{}:\n  {:?}\n  {:?}",
                case.name,
                found.map(|prompt| prompt.text()).map_err(|error| error.to_string()),
                case.rendered.as_ref().or(case.error.as_ref())
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
