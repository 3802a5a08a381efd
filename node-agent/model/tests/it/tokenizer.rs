//! Tokenizers of small files: what is built from a vocabulary, and which vocabularies are refused.

use std::io::Cursor;
use std::sync::Arc;

use polyphony_model::{Chat, ChatTemplate, Gguf, TemplateError, TextStream, Tokenizer};
use proptest::prelude::*;

use crate::files;
use crate::gguf_writer::{self, File, Value, strings};

fn tiny() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::open(&files::tiny("llama")).unwrap())
}

/// A vocabulary of five tokens, one of them a control token, with one merge; changed by the test.
fn small(change: impl FnOnce(&mut File)) -> Result<Tokenizer, String> {
    let mut file = gguf_writer::llama();
    change(&mut file);
    let gguf = Gguf::read(&mut Cursor::new(file.bytes())).unwrap();
    Tokenizer::from_gguf(&gguf).map_err(|error| error.to_string())
}

#[test]
fn merges_and_control_tokens_of_the_file_are_used() {
    let tokenizer = small(|_| ()).unwrap();
    assert_eq!(tokenizer.encode("abb<|im_end|> a", true).unwrap(), [2, 1, 3, 4, 0]);
    assert_eq!(tokenizer.encode("<|im_end|>a", false).unwrap(), [0], "the other characters have no token");
    assert_eq!(tokenizer.end_tokens(), [3], "known by its name");
    assert_eq!((tokenizer.token_bytes(4), tokenizer.token_bytes(5)), (b" ".as_slice(), b"".as_slice()));
}

/// No field of the file says so; its family is known by its name.
#[test]
fn control_tokens_of_phi_3_take_the_blanks_after_them_away_and_no_others() {
    let named = |name: &str| small(|file| _ = file.set("general.name", gguf_writer::text(name))).unwrap();
    let text = "a<|im_end|> a ";
    let template = ChatTemplate::new(text, String::new(), String::new(), &["<|im_end|>"]).unwrap();
    let chat = template.render(&Chat::default()).unwrap();
    for name in ["Phi 3 Mini", "Llama"] {
        let other = named(name);
        assert_eq!(other.encode(text, true).unwrap(), [0, 3, 4, 0, 4], "{name}");
        assert_eq!(other.encode_chat(&chat, false).unwrap(), [0, 3, 4, 0, 4], "{name}");
    }
    for name in ["Phi-3-mini-4k", "phi3"] {
        let phi = named(name);
        assert_eq!(phi.encode(text, true).unwrap(), [0, 3, 0, 4], "{name}");
        assert_eq!(phi.encode_chat(&chat, false).unwrap(), [0, 3, 0, 4], "{name}");
        let blanks = format!("<|im_end|>{}", " ".repeat(1000));
        assert!(phi.fewest_tokens(&blanks) <= phi.encode(&blanks, true).unwrap().len(), "{name}");
    }
}

#[test]
fn the_begin_token_is_added_once_and_only_where_the_file_wants_it() {
    let without = small(|_| ()).unwrap();
    assert_eq!(without.encode_prompt("a", true).unwrap(), [0]);
    let with = small(|file| {
        file.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    })
    .unwrap();
    assert_eq!(with.encode_prompt("a", true).unwrap(), [4, 0]);
    assert_eq!(with.encode_prompt(" a", true).unwrap(), [4, 0], "the text brings it");
    assert_eq!(with.encode("a", true).unwrap(), [0]);
}

#[test]
fn a_vocabulary_that_contradicts_itself_is_refused_with_its_key() {
    let table: [(&str, Value, &str); 7] = [
        ("tokenizer.ggml.model", gguf_writer::text("rwkv"), "`rwkv`"),
        ("tokenizer.ggml.pre", gguf_writer::text("no such"), "supported are: gpt-2, "),
        ("tokenizer.ggml.token_type", Value::I32s(vec![1; 4]), "has 4 entries, but the vocabulary has 5"),
        ("tokenizer.ggml.merges", strings(&["a b", "ab"]), "merge 1"),
        ("tokenizer.ggml.merges", strings(&["a z"]), "do not fit together"),
        ("tokenizer.ggml.eos_token_id", Value::U32(5), "`tokenizer.ggml.eos_token_id`: it is 5"),
        ("tokenizer.ggml.tokens", Value::U32(5), "`tokenizer.ggml.tokens`"),
    ];
    for (key, value, words) in table {
        let error = small(|file| {
            file.set(key, value);
        })
        .expect_err(key);
        assert!(error.contains(words), "{key}: {words:?} is not in: {error}");
    }
}

/// A sentencepiece file of six tokens; changed by the test.
fn scored(model: &str, change: impl FnOnce(&mut File)) -> Result<Tokenizer, String> {
    small(|file| {
        file.set("tokenizer.ggml.model", gguf_writer::text(model))
            .set("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "s", ">", "<", "s>"]))
            .set("tokenizer.ggml.token_type", Value::I32s(vec![2, 3, 1, 1, 1, 1]))
            .set("tokenizer.ggml.scores", Value::F32s(vec![0.0, 0.0, -1.0, -1.0, -1.0, -0.5]))
            .set("tokenizer.ggml.add_space_prefix", Value::Bool(false))
            .set("tokenizer.ggml.bos_token_id", Value::U32(1));
        change(file);
    })
}

#[test]
fn a_control_token_longer_than_any_is_refused() {
    let long = "<".repeat(1025);
    let error = small(|file| {
        file.set("tokenizer.ggml.tokens", strings(&["a", "b", "ab", &long, "c"]));
    });
    let error = error.unwrap_err();
    assert!(error.contains("`tokenizer.ggml.tokens`: token 3 has 1025 bytes, over the limit of 1024"), "{error}");
}

#[test]
fn no_text_becomes_a_control_token_whatever_scores_it_has() {
    for model in ["llama", "t5"] {
        let tokenizer = scored(model, |_| ()).unwrap();
        assert_eq!(tokenizer.encode("<s>", false).unwrap(), [4, 5], "{model}");
        assert_eq!(tokenizer.encode("<s><unk>", true).unwrap(), [1, 0], "{model}");
    }
    let whole = small(|file| {
        file.set("tokenizer.ggml.pre", gguf_writer::text("llama-bpe"))
            .set("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "abab", "Ġ"]));
    });
    assert_eq!(whole.unwrap().encode("abab", false).unwrap(), [2, 2], "though the family takes words whole");
}

#[test]
fn scores_and_the_table_of_characters_are_looked_at_before_they_are_used() {
    let floats = |scores: &[f32]| Value::F32s(scores.to_vec());
    let table: [(&str, &str, Value, &str); 8] = [
        (
            "llama",
            "tokenizer.ggml.scores",
            floats(&[0.0, 0.0, -1.0, f32::NAN, -1.0, -1.0]),
            "token 3 has the score NaN",
        ),
        (
            "t5",
            "tokenizer.ggml.scores",
            floats(&[0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0]),
            "token 1 has the score -inf",
        ),
        ("t5", "tokenizer.ggml.scores", floats(&[0.0; 5]), "has 5 entries, but the vocabulary has 6"),
        ("llama", "tokenizer.ggml.scores", Value::U32(1), "an array of numbers"),
        ("llama", "tokenizer.ggml.unknown_token_id", Value::U32(6), "`tokenizer.ggml.unknown_token_id`: it is 6"),
        ("t5", "tokenizer.ggml.token_type", Value::I32s(vec![2, 3, 1, 1, 7, 1]), "token 4 has the type 7"),
        ("t5", "tokenizer.ggml.precompiled_charsmap", Value::Raw(9, bytes(&[0, 4, 0, 0, 1])), "truncated or damaged"),
        ("llama", "tokenizer.ggml.tokens", long_words(), "over the limit of 1024"),
    ];
    for (model, key, value, words) in table {
        let error = scored(model, |file| {
            file.set(key, value);
        })
        .expect_err(key);
        assert!(error.contains(words) && error.contains(key), "{words:?} is not in: {error}");
    }
    let error = scored("llama", |file| {
        file.remove("tokenizer.ggml.scores");
    });
    assert!(error.unwrap_err().contains("`tokenizer.ggml.scores` is missing"));
}

/// An array of bytes.
fn bytes(bytes: &[u8]) -> Vec<u8> {
    [0_u32.to_le_bytes().as_slice(), &(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn long_words() -> Value {
    strings(&["<unk>", "<s>", "s", ">", "<", &"a".repeat(1025)])
}

#[test]
fn tokenizer_and_template_are_shared_between_requests() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Tokenizer>();
    is_shared::<TextStream>();
    is_shared::<ChatTemplate>();
}

#[test]
fn a_model_without_a_template_is_no_chat_model() {
    let gguf = Gguf::open(&files::tiny("llama")).unwrap();
    let error = ChatTemplate::from_gguf(&gguf).unwrap_err();
    assert!(matches!(error, TemplateError::Missing) && error.to_string().contains("plain completions"), "{error}");
}

proptest! {
    #[test]
    fn any_text_comes_back_from_its_tokens(text in "\\PC{0,60}|[ \\n\\t0-9a-c<|>]{0,60}") {
        let tokenizer = tiny();
        let ids = tokenizer.encode(&text, true).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false), text);
    }

    #[test]
    fn any_tokens_stream_as_they_decode(tokens in prop::collection::vec(0..400_u32, 0..40), skip in any::<bool>()) {
        let tokenizer = tiny();
        let mut stream = tokenizer.stream(skip);
        let streamed: String = tokens.iter().map(|&token| stream.push(token)).collect();
        prop_assert_eq!(streamed + &stream.finish(), tokenizer.decode(&tokens, skip));
    }
}
