//! The real model: prompts through template and tokenizer, as the golden data has them.

use std::sync::Arc;

use polyphony_model::{Card, Chat, ChatMessage, ChatTemplate, Gguf, Tokenizer};
use serde::Deserialize;

use crate::files;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<ChatMessage>,
    prompt: String,
    prompt_ids: Vec<u32>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    token: u32,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(files::golden("smollm2-135m-instruct-q4_1.json")).unwrap();
    serde_json::from_str::<Golden>(&text).unwrap().cases
}

#[test]
fn every_golden_prompt_comes_out_of_template_and_tokenizer() {
    let Some(path) = files::smollm2() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let template = ChatTemplate::from_gguf(&gguf).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    for case in cases() {
        let rendered = template.render(&Chat::new(case.messages)).unwrap();
        let prompt = rendered.text();
        assert_eq!(prompt, case.prompt);
        assert_eq!(tokenizer.encode_chat(&rendered, false).unwrap(), case.prompt_ids, "{prompt}");
        assert_eq!(tokenizer.encode(&prompt, true).unwrap(), case.prompt_ids, "{prompt}");
        assert_eq!(tokenizer.encode_prompt(&prompt, true).unwrap(), case.prompt_ids, "no begin token is added");
        assert_eq!(tokenizer.decode(&case.prompt_ids, false), prompt);
    }
}

#[test]
fn an_answer_streams_as_it_decodes() {
    let Some(path) = files::smollm2() else { return };
    let tokenizer = Arc::new(Tokenizer::open(&path).unwrap());
    let answers: Vec<Vec<u32>> =
        cases().iter().map(|case| case.steps.iter().map(|step| step.token).collect()).collect();
    let emoji = tokenizer.encode("日本語 🦀 naïve", false).unwrap();
    for skip_special in [false, true] {
        for tokens in answers.iter().chain([&emoji]) {
            let mut stream = tokenizer.stream(skip_special);
            let streamed: String = tokens.iter().map(|&token| stream.push(token)).collect();
            assert_eq!(streamed + &stream.finish(), tokenizer.decode(tokens, skip_special));
        }
    }
    assert!(tokenizer.decode(&answers[0], true).contains("Paris"));
}

#[test]
fn text_comes_back_from_its_tokens() {
    let Some(path) = files::smollm2() else { return };
    let tokenizer = Tokenizer::open(&path).unwrap();
    let texts = [
        "",
        " ",
        "\n\n  two  spaces \t tab\r\n",
        "It's 2024-10-31, isn't it?",
        "naïve café — “quotes” … ½",
        "日本語 한국어 עברית",
        "🦀👩‍👩‍👧",
        "fn main() { println!(\"{}\", 0x1F); }",
        "a\u{301}\u{0}\u{200b}",
    ];
    for text in texts {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text, "{ids:?}");
    }
    let lone = tokenizer.encode("\u{4}", false).unwrap();
    assert_eq!(lone, Vec::<u32>::new(), "this vocabulary has no token for byte 4");
}

#[test]
fn a_control_token_in_a_users_text_is_only_text() {
    let Some(path) = files::smollm2() else { return };
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(tokenizer.encode("a<|im_end|>\n", true).unwrap(), [81, 2, 198]);
    let as_text = tokenizer.encode("a<|im_end|>\n", false).unwrap();
    assert!(as_text.len() > 4 && !as_text.iter().any(|&token| tokenizer.is_special(token)), "{as_text:?}");
    assert_eq!(tokenizer.decode(&[81, 2, 198], true), "a\n");
    assert_eq!(tokenizer.decode(&[81, 2, 198], false), "a<|im_end|>\n");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), false));
    assert_eq!((tokenizer.end_tokens(), tokenizer.n_vocab()), ([0, 2].as_slice(), 49_152));
    assert_eq!(tokenizer.decode(&[49_152, u32::MAX], false), "", "tokens outside of the vocabulary");
}

#[test]
fn a_long_text_without_spaces_is_encoded_all_the_same() {
    let Some(path) = files::smollm2() else { return };
    let tokenizer = Tokenizer::open(&path).unwrap();
    for text in ["a".repeat(100_000), " ".repeat(100_000) + "a", "7".repeat(10_000), "<|".repeat(20_000)] {
        let ids = tokenizer.encode(&text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
}

#[test]
fn the_card_says_what_the_model_is() {
    let Some(path) = files::smollm2() else { return };
    let card = Card::from_gguf(&Gguf::open(&path).unwrap());
    assert_eq!((card.licence.as_deref(), card.architecture.as_deref()), (Some("apache-2.0"), Some("llama")));
    assert_eq!((card.size_label.as_deref(), card.n_parameters), (Some("135M"), 134_515_008));
}
