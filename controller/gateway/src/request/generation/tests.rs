//! The shared fields, one by one.

#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn parse(body: Value) -> Result<Generation, ApiError> {
    let fields = Fields::parse(body.to_string().as_bytes()).unwrap();
    Generation::parse(&fields, &Limits { max_stop_bytes: 8, max_prompts: 4 }, None)
}

fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"model": "m"});
    body[name] = value;
    body
}

#[test]
fn defaults_are_openais() {
    let generation = parse(json!({"model": "m", "seed": null, "stop": null})).unwrap();
    let expected = Generation {
        model: "m".into(),
        max_tokens: None,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        seed: None,
        stops: vec![],
        ignore_eos: false,
        logprobs: None,
        token_names: TokenNames::Text,
        return_token_ids: false,
        stream: false,
        include_usage: false,
    };
    assert_eq!(generation, expected);
}

#[test]
fn a_wrong_field_is_named_with_what_to_send() {
    let cases = [
        ("model", json!(3), "model", "send a string, not a number"),
        ("temperature", json!(2.5), "temperature", "from 0 to 2, not 2.5"),
        ("temperature", json!("hot"), "temperature", "not a string"),
        ("top_p", json!(-0.1), "top_p", "from 0 to 1, not -0.1"),
        ("top_k", json!(-2), "top_k", "from -1 to 4294967295, not -2"),
        ("max_tokens", json!(0), "max_tokens", "a whole number from 1, not 0"),
        ("max_tokens", json!(1.5), "max_tokens", "not 1.5"),
        ("max_completion_tokens", json!(-2), "max_completion_tokens", "from 1"),
        ("seed", json!(0.5), "seed", "64 bits, not 0.5"),
        ("stop", json!(["a", 1]), "stop", "a string or a list of strings, not a number"),
        ("stop", json!(""), "stop", "not empty"),
        ("stop", json!("123456789"), "stop", "at most 8 bytes, not 9"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "stop", "at most 4 strings, not 5"),
        ("stream", json!("yes"), "stream", "true or false, not a string"),
        ("stream_options", json!(true), "stream_options", "an object, not a boolean"),
        ("stream_options", json!({"include_usage": 1}), "stream_options.include_usage", "true or false"),
        (
            "stream_options",
            json!({"continuous_usage_stats": true}),
            "stream_options.continuous_usage_stats",
            "leave it",
        ),
        ("ignore_eos", json!(1), "ignore_eos", "true or false"),
        ("n", json!(2), "n", "send 1"),
        ("n", json!(0), "n", "from 1"),
        ("best_of", json!(3), "best_of", "send 1"),
        ("presence_penalty", json!(3), "presence_penalty", "from -2 to 2, not 3"),
    ];
    for (name, value, param, words) in cases {
        let error = parse(with(name, value.clone())).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{name}: {value}");
        assert!(error.message.contains(words), "{name}: {value}: {}", error.message);
    }
    assert_eq!(parse(json!({})).unwrap_err().param.as_deref(), Some("model"));
}

#[test]
fn good_values_are_taken_over() {
    let taken = [
        parse(with("seed", json!(-1))).unwrap().seed == Some(u64::MAX),
        parse(with("seed", json!(u64::MAX))).unwrap().seed == Some(u64::MAX),
        parse(with("top_k", json!(-1))).unwrap().sampling.top_k == 0,
        parse(with("stop", json!("a"))).unwrap().stops == ["a"],
        parse(with("stop", json!(["a", "b"]))).unwrap().stops == ["a", "b"],
        parse(json!({"model": "m", "max_tokens": 5, "max_completion_tokens": 6})).unwrap().max_tokens == Some(6),
        parse(with("max_tokens", json!(1_u64 << 40))).unwrap().max_tokens == Some(u32::MAX),
        parse(with("max_tokens", json!(-1))).unwrap().max_tokens == Some(u32::MAX),
        parse(with("stream_options", json!({"include_usage": true}))).unwrap().include_usage,
    ];
    assert_eq!(taken, [true; 9]);
}

#[test]
fn an_answer_ends_by_its_limit_or_by_the_context() {
    let end = |max_tokens: Value, n_prompt| {
        let generation = parse(with("max_tokens", max_tokens)).unwrap();
        generation.options("prompt", n_prompt, 100, &[9], 1).map(|options| options.end_position)
    };
    assert_eq!(end(json!(5), 10).unwrap(), 15);
    assert_eq!(end(json!(500), 10).unwrap(), 100);
    assert_eq!(end(json!(null), 99).unwrap(), 100);
    let error = end(json!(1), 100).unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (400, Some("context_length_exceeded")));
    assert!(error.message.contains("100") && error.message.contains("at most 99"), "{}", error.message);
}

#[test]
fn a_seed_is_drawn_and_end_tokens_are_left_out_where_the_client_says_so() {
    let options = |body| parse(body).unwrap().options("prompt", 1, 9, &[7], 42).unwrap();
    let (drawn, given) = (options(json!({"model": "m"})), options(with("seed", json!(5))));
    assert_eq!((drawn.sampling.seed, given.sampling.seed), (42, 5));
    let ignoring = options(with("ignore_eos", json!(true)));
    assert_eq!((drawn.end_tokens, ignoring.end_tokens), (vec![7], vec![]));
}

#[test]
fn a_bias_for_a_token_that_the_model_has_not_is_refused() {
    let generation = parse(with("logit_bias", json!({"3": 1, "99": -1, "100": 1}))).unwrap();
    assert!(generation.check_vocabulary(101).is_ok());
    let error = generation.check_vocabulary(100).unwrap_err();
    assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("logit_bias")));
    assert!(error.message.contains("below 100") && error.message.contains("not 100"), "{}", error.message);
}

#[test]
fn penalties_reach_the_session_with_its_seed() {
    let body = json!({"model": "m", "seed": 5, "min_p": 0.5, "repetition_penalty": 1.5, "presence_penalty": 1});
    let options = parse(body).unwrap().options("prompt", 1, 9, &[7], 42).unwrap();
    let expected = Sampling {
        temperature: 1.0,
        seed: 5,
        min_p: 0.5,
        repetition_penalty: 1.5,
        presence_penalty: 1.0,
        ..Sampling::default()
    };
    assert_eq!(options.sampling, expected);
}
