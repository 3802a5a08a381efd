//! Template: the texts of a file's metadata as chat templates, compiled, tried out and rendered.
//!
//! The input is texts, each after a byte of 0xff: `tokenizer.chat_template`, the one for tools, and what a user writes.
#![no_main]

use std::io::Cursor;
use std::panic;
use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use polyphony_model::{Chat, ChatMessage, ChatTemplate, Gguf, Json};

const KEYS: [&str; 2] = ["tokenizer.chat_template", "tokenizer.chat_template.tool_use"];
const TOKENS: [&str; 4] = ["<s>", "</s>", "a", "<|im_end|>"];
const KINDS: [i32; 4] = [3, 3, 1, 3];

/// A fault of the engine is caught and told (`chat_template/wall.rs`): only what breaks down elsewhere is a finding.
static LET_PASS: Once = Once::new();

fn let_faults_of_the_engine_pass() {
    let finding = panic::take_hook();
    panic::set_hook(Box::new(move |of| {
        if !of.location().is_some_and(|location| location.file().contains("/minijinja-")) {
            finding(of);
        }
    }));
}

fuzz_target!(|data: &[u8]| {
    LET_PASS.call_once(let_faults_of_the_engine_pass);
    let mut parts = data.split(|byte| *byte == 0xff);
    let templates: Vec<&[u8]> = parts.by_ref().take(2).collect();
    let written = String::from_utf8_lossy(parts.next().unwrap_or(b"Hello")).into_owned();
    let Ok(header) = Gguf::read(&mut Cursor::new(file(&templates))) else { return };
    let Ok(template) = ChatTemplate::from_gguf(&header) else { return };
    if template.try_out().is_err() {
        return;
    }
    for chat in chats(&written) {
        if let Ok(prompt) = template.render(&chat) {
            let controls = prompt.parts().iter().filter_map(|part| match part {
                polyphony_model::PromptPart::Control(name) => Some(name.as_str()),
                polyphony_model::PromptPart::Text(_) => None,
            });
            for name in controls {
                assert!(TOKENS.contains(&name), "{name:?} is no control token");
            }
        }
    }
});

fn chats(written: &str) -> [Chat; 2] {
    let json = |text: &str| serde_json::from_str::<Json>(text).expect("it is JSON");
    let call =
        json(r#"[{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"n": 1.5, "a": "b"}}}]"#);
    let plain = Chat::new(vec![
        ChatMessage::new("system", "Be brief."),
        ChatMessage::new("user", written),
        ChatMessage::new("assistant", "<think>\n\n</think>\nParis."),
        ChatMessage::new("user", "And then?").with("name", written),
    ]);
    let with_tools = Chat {
        tools: vec![json(r#"{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}"#)],
        add_generation_prompt: false,
        ..Chat::new(vec![
            ChatMessage::new("user", written),
            ChatMessage::new("assistant", "").with("content", Json::Null).with("tool_calls", call),
            ChatMessage::new("tool", written).with("tool_call_id", "1"),
        ])
    };
    [plain, with_tools]
}

/// A file of these templates and a small vocabulary.
fn file(templates: &[&[u8]]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend(0_u64.to_le_bytes());
    let n_templates = templates.len().min(KEYS.len());
    out.extend((n_templates as u64 + 4).to_le_bytes());
    for (key, text) in KEYS.iter().zip(templates) {
        string(&mut out, key.as_bytes());
        out.extend(8_u32.to_le_bytes());
        string(&mut out, text);
    }
    for (key, id) in [("tokenizer.ggml.bos_token_id", 0_u32), ("tokenizer.ggml.eos_token_id", 1)] {
        string(&mut out, key.as_bytes());
        out.extend([4_u32.to_le_bytes(), id.to_le_bytes()].concat());
    }
    array(&mut out, "tokenizer.ggml.tokens", 8, TOKENS.len());
    TOKENS.iter().for_each(|token| string(&mut out, token.as_bytes()));
    array(&mut out, "tokenizer.ggml.token_type", 5, KINDS.len());
    KINDS.iter().for_each(|kind| out.extend(kind.to_le_bytes()));
    out
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn array(out: &mut Vec<u8>, key: &str, of: u32, len: usize) {
    string(out, key.as_bytes());
    out.extend([9_u32.to_le_bytes(), of.to_le_bytes()].concat());
    out.extend((len as u64).to_le_bytes());
}
