//! Tokenizers of a `tokenizer.json`: the same ids as of the GGUF file of the same vocabulary, or a refusal by the part's name.

use base64::Engine as _;
use polyphony_model::{
    Array, Chat, ChatMessage, Gguf, Hyperparameters, Json as Ordered, TextSide, Tokenizer, TokenizerError, Value,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::files;

const CONFIG: &[u8] = br#"{"bos_token": "<|bos|>", "eos_token": {"content": "<|eos|>"}, "add_bos_token": true}"#;
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILINGMOE: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

fn golden(name: &str) -> Gguf {
    Gguf::open(&files::golden(&format!("tokenizers/{name}.gguf"))).unwrap()
}

fn texts() -> Vec<String> {
    let golden = std::fs::read(files::golden("tokenizers/bpe_gpt-2.json")).unwrap();
    let golden: Json = serde_json::from_slice(&golden).unwrap();
    golden["cases"].as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap().to_owned()).collect()
}

/// What `tokenizer.json` has of the tokens that are added: controls, and words that are never cut.
fn added(gguf: &Gguf) -> Vec<Json> {
    let kinds = gguf.metadata.optional_integers("tokenizer.ggml.token_type").unwrap().unwrap();
    let tokens = gguf.metadata.strings("tokenizer.ggml.tokens").unwrap().iter().zip(kinds).enumerate();
    let added = tokens.filter(|(_, (_, kind))| [2, 3, 4].contains(kind));
    added.map(|(id, (text, kind))| json!({"id": id, "content": text, "special": kind != 4})).collect()
}

/// The vocabulary of the golden files for byte pairs, as `tokenizer.json` has it.
fn byte_pairs(pre_tokenizer: Json) -> Json {
    let gguf = golden("bpe_gpt-2");
    let tokens = gguf.metadata.strings("tokenizer.ggml.tokens").unwrap();
    let added = added(&gguf);
    let is_added = |id: usize| added.iter().any(|token| token["id"] == id);
    let vocab = tokens.iter().enumerate().filter(|(id, _)| !is_added(*id));
    let vocab: serde_json::Map<String, Json> = vocab.map(|(id, text)| (text.clone(), json!(id))).collect();
    let merges = gguf.metadata.strings("tokenizer.ggml.merges").unwrap();
    json!({"added_tokens": added, "normalizer": null, "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": merges}})
}

fn split(pattern: &str, behavior: &str, invert: bool) -> Json {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert})
}

fn then_bytes(steps: &[Json]) -> Json {
    let mut steps = steps.to_vec();
    steps.push(json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}));
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn read(json: &Json) -> Result<Tokenizer, String> {
    Tokenizer::from_json(json.to_string().as_bytes(), None).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_same(one: &Tokenizer, other: &Tokenizer) {
    for text in texts() {
        for special in [false, true] {
            assert_eq!(one.encode(&text, special).unwrap(), other.encode(&text, special).unwrap(), "{text:?}");
        }
    }
    let tokens: Vec<u32> = (0..one.n_vocab()).collect();
    assert_eq!(one.n_vocab(), other.n_vocab());
    assert!(tokens.iter().all(|&token| one.token_bytes(token) == other.token_bytes(token)));
    assert!(tokens.iter().all(|&token| one.is_special(token) == other.is_special(token)));
}

#[test]
fn byte_pairs_have_the_ids_of_the_gguf_file_whose_family_cuts_alike() {
    let digit = json!({"type": "Digits", "individual_digits": true});
    let cases = [
        ("gpt-2", json!({"type": "ByteLevel", "add_prefix_space": false})),
        ("smollm", then_bytes(&[digit.clone(), split(GPT2, "Isolated", false)])),
        ("dbrx", then_bytes(&[split(LLAMA3, "Isolated", false)])),
        ("dbrx", then_bytes(&[split(LLAMA3, "Removed", true)])),
        (
            "falcon",
            json!({"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Contiguous"},
            {"type": "ByteLevel", "add_prefix_space": false}, {"type": "Digits"}, split("[0-9][0-9][0-9]", "Isolated", false)]}),
        ),
        ("bailingmoe", then_bytes(&[split(BAILINGMOE, "Isolated", false)])),
    ];
    for (family, pre_tokenizer) in cases {
        let of_json = read(&byte_pairs(pre_tokenizer)).unwrap();
        assert_same(&of_json, &Tokenizer::from_gguf(&golden(&format!("bpe_{family}"))).unwrap());
    }
    let mut whole_words = byte_pairs(then_bytes(&[split(LLAMA3, "Isolated", false)]));
    whole_words["model"]["ignore_merges"] = json!(true);
    assert_same(&read(&whole_words).unwrap(), &Tokenizer::from_gguf(&golden("bpe_llama-bpe")).unwrap());
}

#[test]
fn the_files_of_the_tiny_models_are_read_as_their_gguf_files() {
    for name in ["llama", "qwen2"] {
        let file = |file: &str| std::fs::read(files::golden(&format!("tiny/{name}_hf/{file}"))).unwrap();
        let tokenizer = Tokenizer::from_json(&file("tokenizer.json"), Some(&file("tokenizer_config.json"))).unwrap();
        let other = Tokenizer::open(&files::tiny("llama")).unwrap();
        assert_same(&tokenizer, &other);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (other.bos(), other.eos()));
        assert_eq!((tokenizer.add_bos(), tokenizer.end_tokens()), (false, other.end_tokens()));
    }
}

#[test]
fn a_unigram_model_has_the_ids_of_its_gguf_file() {
    let gguf = golden("ugm_t5");
    let Some(Value::Array(Array::Numbers(_))) = gguf.metadata.get("tokenizer.ggml.precompiled_charsmap") else {
        panic!("the file has a charsmap");
    };
    let charsmap = gguf.metadata.optional_bytes("tokenizer.ggml.precompiled_charsmap").unwrap().unwrap();
    let charsmap = base64::engine::general_purpose::STANDARD.encode(charsmap);
    let scores = gguf.metadata.floats("tokenizer.ggml.scores").unwrap();
    let vocab = gguf.metadata.strings("tokenizer.ggml.tokens").unwrap().iter().zip(scores);
    let vocab: Vec<Json> = vocab.map(|(text, score)| json!([text, f64::from(score)])).collect();
    let json = json!({"added_tokens": added(&gguf), "model": {"type": "Unigram", "vocab": vocab, "unk_id": 2},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]}});
    let (one, other) = (read(&json).unwrap(), Tokenizer::from_gguf(&gguf).unwrap());
    assert_same(&one, &other);
    assert_eq!(one.encode_prompt("a", false).unwrap(), other.encode_prompt("a", false).unwrap());
}

#[test]
fn byte_pairs_of_sentencepiece_replace_blanks_and_fall_to_bytes() {
    let vocab = json!({"<unk>": 0, "<s>": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4, "a": 5, "▁a": 6, "b": 7});
    let model = json!({"type": "BPE", "vocab": vocab, "merges": [["▁", "a"]], "unk_token": "<unk>", "fuse_unk": true,
        "byte_fallback": true});
    let shape = |normalizer: Json, pre_tokenizer: Json| {
        let added =
            json!([{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}]);
        read(&json!({"model": model, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "added_tokens": added}))
            .unwrap()
    };
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let always =
        shape(json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}), Json::Null);
    assert_eq!(always.encode("a b", true).unwrap(), [6, 4, 7]);
    assert_eq!(always.encode("é<s>a", true).unwrap(), [4, 2, 3, 1, 6]);
    assert_eq!(
        always.encode("èè<unk>", false).unwrap(),
        [4, 0],
        "all of it is unknown, and none of it a control token"
    );
    assert_eq!(always.decode(&[6, 2, 3], false), " aé");
    let first =
        shape(Json::Null, json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}));
    assert_eq!(first.encode("a<s>a<s> a", true).unwrap(), [6, 1, 5, 1, 6]);
    assert_eq!(first.encode("<s>a", true).unwrap(), [1, 5]);
}

#[test]
fn begin_and_end_tokens_come_from_the_config_or_from_the_post_processor() {
    let mut json = byte_pairs(json!({"type": "ByteLevel", "add_prefix_space": false}));
    json["post_processor"] = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<|im_end|>"}}]}]});
    let ids = |config: Option<&[u8]>| {
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), config).unwrap();
        let around = tokenizer.encode_prompt("a", false).unwrap();
        (around, tokenizer.bos(), tokenizer.end_tokens().to_vec())
    };
    assert_eq!(ids(None), (vec![1972, 97, 1973], None, vec![1973]));
    assert_eq!(ids(Some(CONFIG)), (vec![1970, 97, 1973], Some(1970), vec![1971, 1973]));
}

#[test]
fn an_added_token_takes_the_blanks_beside_it_away_where_the_file_says_so() {
    let mut json = byte_pairs(json!({"type": "ByteLevel", "add_prefix_space": false}));
    let ids = |json: &Json| read(json).unwrap().encode("a \n<|im_start|>\n a<|im_end|>\n", true).unwrap();
    let plain = ids(&json);
    let added = json["added_tokens"].as_array_mut().unwrap();
    for token in added.iter_mut() {
        match token["content"].as_str() {
            Some("<|im_start|>") => token["lstrip"] = json!(true),
            Some("<|im_end|>") => token["rstrip"] = json!(true),
            _ => {}
        }
    }
    let trimmed = read(&json).unwrap().encode("a<|im_start|>\n a<|im_end|>", true).unwrap();
    assert_ne!(plain, trimmed);
    assert_eq!(ids(&json), trimmed);
}

#[test]
fn what_is_not_known_or_contradicts_itself_is_refused_by_its_name() {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false});
    type Change<'a> = &'a dyn Fn(&mut Json);
    let refusal = |change: Change<'_>| {
        let mut json = byte_pairs(byte_level.clone());
        change(&mut json);
        read(&json).err().unwrap_or_else(|| panic!("taken: {:.200}", json.to_string()))
    };
    let long = "a".repeat(100);
    let many = vec![split("a", "Isolated", false); 17];
    let cases: [(Change<'_>, &str); 20] = [
        (&|json| json["model"]["type"] = json!("WordPiece"), "`model.type`"),
        (&|json| json["model"]["dropout"] = json!(0.1), "`model.dropout`"),
        (&|json| json["model"]["end_of_word_suffix"] = json!("</w>"), "`model.continuing_subword_prefix`"),
        (&|json| json["model"]["merges"] = json!(["a ☃"]), "`model.merges`"),
        (&|json| json["model"]["merges"] = json!(["ab"]), "merge 0"),
        (&|json| json["model"]["vocab"]["far"] = json!(u32::MAX), "`model.vocab`"),
        (&|json| json["model"]["vocab"] = json!({"a": -1}), "no JSON that a tokenizer has"),
        (&|json| json["normalizer"] = json!({"type": "BertNormalizer"}), "`normalizer`"),
        (&|json| json["pre_tokenizer"] = Json::Null, "`pre_tokenizer`"),
        (&|json| json["pre_tokenizer"] = then_bytes(&[split("a(?=b)", "Isolated", false)]), "`pre_tokenizer`"),
        (&|json| json["pre_tokenizer"] = then_bytes(&[split(&long, "MergedWithNext", false)]), "`pre_tokenizer`"),
        (&|json| json["pre_tokenizer"] = then_bytes(&many), "17 steps, over the limit"),
        (
            &|json| json["pre_tokenizer"] = then_bytes(&[split(&"a".repeat(16_385), "Isolated", false)]),
            "16385 bytes, over the limit of 16384",
        ),
        (
            &|json| json["pre_tokenizer"]["x"] = json!(vec![0; 20_000]),
            "`pre_tokenizer` of `tokenizer.json` is one of more than 16384 values",
        ),
        (
            &|json| json["normalizer"] = json!(vec![0; 20_000]),
            "`normalizer` of `tokenizer.json` is one of more than 16384 values",
        ),
        (
            &|json| json["post_processor"] = json!(vec![0; 20_000]),
            "`post_processor` of `tokenizer.json` is one of more than 16384 values",
        ),
        (&|json| json["added_tokens"][0]["content"] = json!("a".repeat(1025)), "1025 bytes, over the limit of 1024"),
        (&|json| json["added_tokens"][0]["single_word"] = json!(true), "`added_tokens.single_word`"),
        (&|json| json["added_tokens"][0]["id"] = json!(0), "`added_tokens`"),
        (&|json| *json = json!([]), "no JSON that a tokenizer has"),
    ];
    for (change, words) in cases {
        let error = refusal(change);
        assert!(error.contains(words), "{words:?} is not in: {error}");
        assert!(error.len() < 300, "{error}");
    }
    let error = Tokenizer::from_json(byte_pairs(byte_level).to_string().as_bytes(), Some(br#"{"bos_token": "<x>"}"#));
    assert!(error.unwrap_err().to_string().contains("`bos_token`"));
}

#[test]
fn more_entries_than_any_vocabulary_has_are_refused_with_the_part_and_the_bound() {
    let n = (1 << 20) + 1;
    let many = |entry: &str| vec![entry; n].join(",");
    let words = (0..n).map(|idx| format!("\"{idx}\":0")).collect::<Vec<_>>().join(",");
    let bpe = |vocab: &str, merges: &str, added: &str| {
        format!(
            r#"{{"added_tokens": [{added}], "pre_tokenizer": {{"type": "ByteLevel"}}, "model": {{"vocab": {{{vocab}}}, "merges": [{merges}]}}}}"#
        )
    };
    let unigram = format!(
        r#"{{"pre_tokenizer": {{"type": "Metaspace", "replacement": "▁"}}, "model": {{"type": "Unigram", "vocab": [{}]}}}}"#,
        many(r#"["",0]"#)
    );
    for (json, part) in [
        (bpe(&words, "", ""), "`model.vocab`"),
        (bpe("", &many(r#"["",""]"#), ""), "`model.merges`"),
        (bpe("", "", &many(r#"{"id":0,"content":""}"#)), "`added_tokens`"),
        (unigram, "`model.vocab`"),
    ] {
        let error = Tokenizer::from_json(json.as_bytes(), None).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{part}: it has 1048577 entries, over the limit of 1048576")),
            "{part}: {error}"
        );
    }
    let long = vec![b' '; (64 << 20) + 1];
    let error = Tokenizer::from_json(&long, None).unwrap_err().to_string();
    assert!(error.contains("`tokenizer.json` has 67108865 bytes, over the limit of 67108864"), "{error}");
    let error = Tokenizer::from_json(b"{}", Some(&long)).unwrap_err().to_string();
    assert!(error.contains("`tokenizer_config.json` has 67108865 bytes, over the limit of 16777216"), "{error}");
}

#[test]
fn a_text_in_which_an_expression_looks_ahead_in_vain_is_refused_and_others_are_not() {
    let tokenizer = read(&byte_pairs(then_bytes(&[split("a+b|a", "Isolated", false)]))).unwrap();
    let error = tokenizer.encode(&"a".repeat(1 << 20), true).unwrap_err();
    assert!(matches!(error, TokenizerError::TooDear), "{error}");
    assert!(error.to_string().contains("more than 256 steps a byte") && error.to_string().contains("send another"));
    assert!(tokenizer.encode("aaaab and aaa", true).is_ok());
}

#[test]
fn a_text_side_comes_of_the_hubs_files_with_every_template() {
    let tokenizer = byte_pairs(json!({"type": "ByteLevel", "add_prefix_space": false})).to_string();
    let templates =
        json!([{"name": "default", "template": "{{ bos_token }}plain"}, {"name": "tool_use", "template": "tools"}]);
    let config = json!({"bos_token": "<|bos|>", "chat_template": templates}).to_string();
    let mut of = Hyperparameters::from_gguf(&Gguf::open(&files::tiny("llama")).unwrap()).unwrap();
    let read = |jinja: Option<&str>, of: &Hyperparameters| {
        TextSide::from_json(tokenizer.as_bytes(), Some(config.as_bytes()), jinja, of).map_err(|error| error.to_string())
    };
    assert!(read(None, &of).unwrap_err().contains("384 rows"), "fewer than tokens");
    of.vocab_size = 2000;
    let chat = Chat::new(vec![ChatMessage::new("user", "a")]);
    let with_tools = Chat { tools: vec![Ordered::Null], ..chat.clone() };
    let rendered = |side: &TextSide, chat: &Chat| {
        let prompt = side.template.as_ref().unwrap().render(chat).unwrap();
        (prompt.text(), side.tokenizer.encode_chat(&prompt, false).unwrap()[0])
    };
    let side = read(None, &of).unwrap();
    assert_eq!(rendered(&side, &chat), ("<|bos|>plain".to_owned(), 1970));
    assert_eq!(rendered(&side, &with_tools).0, "tools");
    assert_eq!(rendered(&read(Some("jinja"), &of).unwrap(), &chat).0, "jinja");
    assert!(read(Some("{% for %}"), &of).unwrap_err().contains("`chat_template.jinja` does not compile"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_bytes_makes_the_reader_panic(
        changes in prop::collection::vec((0..6_900_usize, any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, 0..6_900_usize),
    ) {
        let mut bytes = std::fs::read(files::golden("tiny/qwen2_hf/tokenizer.json")).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        if let Ok(tokenizer) = Tokenizer::from_json(&bytes, None) {
            let _ = tokenizer.encode("Hello, world! <|bos|> é", true).map(|ids| tokenizer.decode(&ids, false));
        }
    }
}
