//! What a client gets when everything works.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::house::{ANSWER, House, PROMPT, end_token, ring_a, tokens};
use crate::phones::Act;

#[tokio::test]
async fn a_completion_is_the_rings_answer_with_its_usage() {
    let house = House::good();
    let body = house.complete(json!({})).await;
    let (n_prompt, n_answer) = (tokens(PROMPT).len(), tokens(ANSWER).len() + 1);
    let usage = json!({"prompt_tokens": n_prompt, "completion_tokens": n_answer, "total_tokens": n_prompt + n_answer});
    let choice = json!({"index": 0, "text": ANSWER, "logprobs": null, "finish_reason": "stop", "stop_reason": null});
    assert_eq!((&body["choices"], &body["usage"]), (&json!([choice]), &usage));
    assert_eq!((&body["object"], &body["model"]), (&json!("text_completion"), &json!("tiny")));
    assert!(body["id"].as_str().unwrap().starts_with("cmpl-") && body["created"].as_i64().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn a_finished_session_is_closed_and_gives_its_place_back() {
    let house = House::good();
    house.complete(json!({})).await;
    assert!(house.is_idle());
    let prompts = house.phones.prompts();
    assert_eq!(house.phones.closed(), [prompts[0].key]);
    let heads: Vec<String> = house.phones.log.lock().unwrap().iter().map(|(phone, _)| phone.clone()).collect();
    assert!(heads.iter().all(|phone| *phone == ring_a().phones[0]), "{heads:?}");
}

#[tokio::test]
async fn streaming_gives_what_the_whole_answer_gives() {
    let house = House::good();
    let cases = [
        json!({}),
        json!({"max_tokens": 7}),
        json!({"stop": "lazy"}),
        json!({"stop": ["\n\n", "nowhere"]}),
        json!({"stop": "the end. And more"}),
        json!({"echo": true}),
        json!({"ignore_eos": true, "max_tokens": 120}),
        json!({"prompt": tokens(PROMPT)}),
    ];
    for mut case in cases {
        case["return_token_ids"] = json!(true);
        case["stream_options"] = json!({"include_usage": true});
        let (whole, streamed) = (house.complete(case.clone()).await, house.stream(case.clone()).await);
        let choice = &whole["choices"][0];
        assert_eq!(streamed.text(), choice["text"], "{case}");
        assert_eq!(json!(streamed.token_ids()), choice["token_ids"], "{case}");
        assert_eq!(json!(streamed.finish_reasons()), json!([choice["finish_reason"]]), "{case}");
        assert_eq!(streamed.events[0]["choices"][0]["prompt_token_ids"], choice["prompt_token_ids"], "{case}");
        let last = streamed.events.last().unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (&whole["usage"], &json!([])), "{case}");
        assert!(streamed.is_done && streamed.events[0]["usage"].is_null());
    }
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_never_seen() {
    let house = House::good();
    let cases = [
        (json!("fox jumps"), "The quick brown "),
        (json!([".\n\nIt", "zzz"]), "The quick brown fox jumps over the lazy dog"),
        (json!("é time 🦀"), "The quick brown fox jumps over the lazy dog.\n\nIt does so "),
        (json!(["over", "fox"]), "The quick brown "),
        (json!("The"), ""),
    ];
    for (stop, seen) in cases {
        let choice = &house.complete(json!({"stop": stop})).await["choices"][0];
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(seen), &json!("stop")));
        assert!(choice["stop_reason"].is_string(), "{choice}");
        assert_eq!(house.stream(json!({"stop": stop})).await.text(), seen);
    }
    assert_eq!(house.phones.closed().len(), house.phones.prompts().len());
}

#[tokio::test]
async fn an_answer_ends_at_its_length_or_where_the_context_is_full() {
    let house = House::good();
    let choice =
        |body: &Value| (body["choices"][0]["finish_reason"].clone(), body["usage"]["completion_tokens"].clone());
    assert_eq!(choice(&house.complete(json!({"max_tokens": 5})).await), (json!("length"), json!(5)));
    let full = house.complete(json!({"max_tokens": 100_000, "ignore_eos": true})).await;
    assert_eq!(choice(&full), (json!("length"), json!(256 - tokens(PROMPT).len())));
    assert_eq!(full["usage"]["total_tokens"], 256);
}

#[tokio::test]
async fn without_ignore_eos_the_models_end_tokens_go_with_the_session() {
    let house = House::good();
    house.complete(json!({})).await;
    house.complete(json!({"ignore_eos": true, "max_tokens": 3})).await;
    let options = house.phones.options();
    assert!(options[0].end_tokens.contains(&end_token()) && options[1].end_tokens.is_empty());
}

#[tokio::test]
async fn sampling_fields_reach_the_ring_and_a_missing_seed_is_drawn() {
    let house = House::good();
    house.complete(json!({"temperature": 0.5, "top_p": 0.25, "top_k": 9, "seed": 12, "max_tokens": 3})).await;
    house.complete(json!({"temperature": null, "max_tokens": 3})).await;
    house.complete(json!({"max_tokens": 3})).await;
    let options = house.phones.options();
    let sampling = &options[0].sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed), (0.5, 0.25, 9, 12));
    assert_eq!(options[0].end_position as usize, tokens(PROMPT).len() + 3);
    assert_eq!(options[1].sampling.temperature, 1.0);
    assert_ne!(options[1].sampling.seed, options[2].sampling.seed);
}

#[tokio::test]
async fn penalties_and_biases_reach_the_ring_and_history_goes_only_where_it_is_minded() {
    let house = House::good();
    let penalties = json!({"presence_penalty": 0.5, "frequency_penalty": -1, "max_tokens": 3});
    house.complete(json!({"min_p": 0.25, "logit_bias": {"7": -100, "383": 1.5}, "max_tokens": 3})).await;
    house.complete(penalties).await;
    house.complete(json!({"repetition_penalty": 1.5, "max_tokens": 3})).await;
    let options = house.phones.options();
    assert_eq!(options[0].sampling.min_p, 0.25);
    assert_eq!(options[0].sampling.logit_bias, [(7, -100.0), (383, 1.5)].into());
    assert_eq!((options[1].sampling.presence_penalty, options[1].sampling.frequency_penalty), (0.5, -1.0));
    assert_eq!(options[2].sampling.repetition_penalty, 1.5);
    assert_eq!([0, 1].map(|n| options[n].history.is_empty()), [true; 2]);
    let asked: BTreeSet<u32> = tokens(PROMPT).into_iter().collect();
    assert_eq!(options[2].history.tokens().collect::<BTreeSet<_>>(), asked);
}

#[tokio::test]
async fn a_prompt_is_the_same_as_text_and_as_tokens() {
    let house = House::good();
    for prompt in [json!(PROMPT), json!([PROMPT]), json!(tokens(PROMPT)), json!([tokens(PROMPT)])] {
        house.complete(json!({"prompt": prompt, "max_tokens": 2})).await;
    }
    let prompts: Vec<_> = house.phones.prompts().into_iter().map(|prompt| prompt.tokens).collect();
    assert_eq!(prompts, vec![tokens(PROMPT); 4]);
}

#[tokio::test]
async fn log_probabilities_of_a_completion_have_offsets_into_its_text() {
    let house = House::good();
    let body = house.complete(json!({"logprobs": 2})).await;
    let (text, logprobs) = (body["choices"][0]["text"].as_str().unwrap(), &body["choices"][0]["logprobs"]);
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    let n = tokens(ANSWER).len() + 1;
    assert_eq!([list("tokens").len(), list("token_logprobs").len(), list("top_logprobs").len()], [n; 3]);
    let chars: Vec<char> = text.chars().collect();
    for (token, offset) in list("tokens").iter().zip(list("text_offset")).take(n - 1) {
        let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        if !token.starts_with("bytes:") {
            let at: String = chars[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(at, token, "at {offset}");
        }
    }
    assert!(list("top_logprobs").iter().all(|top| (1..=3).contains(&top.as_object().unwrap().len())));
    let streamed = house.stream(json!({"logprobs": 2})).await;
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let parts = streamed.choices().filter_map(|choice| choice["logprobs"][name].as_array());
        assert_eq!(parts.flatten().cloned().collect::<Vec<_>>(), list(name), "{name}");
    }
}

#[tokio::test]
async fn many_sessions_at_once_get_the_answer_that_each_would_get_alone() {
    let house = House::good();
    let answers = futures::future::join_all((0..12).map(|_| house.complete(json!({})))).await;
    assert!(answers.iter().all(|body| body["choices"][0]["text"] == ANSWER));
    assert!(house.is_idle());
}

#[tokio::test]
async fn the_speed_of_recent_sessions_is_measured() {
    let house = House::new(|_| Act::Token);
    assert_eq!(house.gateway.measured_tokens_per_second("tiny"), None);
    house.complete(json!({})).await;
    house.complete(json!({})).await;
    assert!(house.gateway.measured_tokens_per_second("tiny").is_some_and(|speed| speed > 0.0));
}

#[tokio::test]
async fn several_prompts_get_an_answer_each_by_index() {
    let house = House::good();
    let other = "And of the dog?";
    let fields = json!({"prompt": [PROMPT, other, PROMPT], "echo": true, "return_token_ids": true});
    let whole = house.complete(fields.clone()).await;
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    for (index, (choice, prompt)) in choices.iter().zip([PROMPT, other, PROMPT]).enumerate() {
        assert_eq!((&choice["index"], &choice["text"]), (&json!(index), &json!(format!("{prompt}{ANSWER}"))));
        assert_eq!(choice["prompt_token_ids"], json!(tokens(prompt)));
    }
    let n_prompt = 2 * tokens(PROMPT).len() + tokens(other).len();
    let n_answer = 3 * (tokens(ANSWER).len() + 1);
    assert_eq!(whole["usage"]["prompt_tokens"], n_prompt);
    assert_eq!(whole["usage"]["completion_tokens"], n_answer);

    let streamed = house.stream(fields).await;
    assert!(streamed.is_done);
    for (index, prompt) in [PROMPT, other, PROMPT].iter().enumerate() {
        let of_it = streamed.choices().filter(|choice| choice["index"] == index);
        let text: String = of_it.filter_map(|choice| choice["text"].as_str()).collect();
        assert_eq!(text, format!("{prompt}{ANSWER}"));
    }
    assert_eq!(streamed.finish_reasons(), ["stop"; 3]);
    let ids = json!({"prompt": [tokens(PROMPT), tokens(other)], "max_tokens": 2});
    assert_eq!(house.complete(ids).await["choices"].as_array().unwrap().len(), 2);
    assert!(house.is_idle());
}
