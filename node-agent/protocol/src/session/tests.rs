//! Options as bytes, and what stages refuse of them.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// What a program of protocol 1.0 writes.
const OLD: &str = r#"{"sampling":{"temperature":0.5,"top_k":3,"top_p":0.25,"seed":7},"end_position":9,"end_tokens":[2],"top_logprobs":3,"logprobs":true}"#;

fn old() -> SessionOptions {
    SessionOptions {
        sampling: Sampling { temperature: 0.5, top_k: 3, top_p: 0.25, seed: 7, ..Sampling::default() },
        end_position: 9,
        end_tokens: vec![2],
        top_logprobs: 3,
        logprobs: true,
        n_prompt: 0,
        history: History::default(),
    }
}

fn penalized() -> Sampling {
    Sampling { min_p: 0.1, repetition_penalty: 1.5, presence_penalty: 0.25, frequency_penalty: -0.5, ..old().sampling }
}

#[test]
fn options_without_penalties_are_the_bytes_of_protocol_1_0() {
    assert_eq!(serde_json::to_string(&old()).unwrap(), OLD);
    assert_eq!(serde_json::from_str::<SessionOptions>(OLD).unwrap(), old());
}

#[test]
fn options_with_penalties_are_these_bytes() {
    let mut sampling = penalized();
    sampling.logit_bias = [(70_000, -100.0), (5, 2.5)].into();
    let history = History::new(&sampling, &[8, 3, 8], &[3, 9, 9]);
    let options = SessionOptions { sampling, history, n_prompt: 3, ..old() };
    let expected = r#"{"sampling":{"temperature":0.5,"top_k":3,"top_p":0.25,"seed":7,"min_p":0.1,"repetition_penalty":1.5,"presence_penalty":0.25,"frequency_penalty":-0.5,"logit_bias":{"5":2.5,"70000":-100.0}},"end_position":9,"end_tokens":[2],"top_logprobs":3,"logprobs":true,"n_prompt":3,"history":{"prompt":[3,8],"output":{"3":1,"9":2}}}"#;
    assert_eq!(serde_json::to_string(&options).unwrap(), expected);
    assert_eq!(serde_json::from_str::<SessionOptions>(expected).unwrap(), options);
}

#[test]
fn a_history_holds_what_the_penalties_mind_and_no_more() {
    let of = |sampling: Sampling| {
        let history = History::new(&sampling, &[1, 2, 1], &[2, 3, 3]);
        (history.tokens().collect::<Vec<_>>(), history.output().collect::<Vec<_>>())
    };
    let counts = vec![(2, 1), (3, 2)];
    let plain = Sampling::default();
    let biased = Sampling { min_p: 0.5, logit_bias: [(1, 1.0)].into(), ..plain.clone() };
    let cases = [
        (plain.clone(), (vec![], vec![])),
        (biased, (vec![], vec![])),
        (Sampling { presence_penalty: 1.0, ..plain.clone() }, (vec![2, 3], counts.clone())),
        (Sampling { frequency_penalty: -1.0, ..plain.clone() }, (vec![2, 3], counts.clone())),
        (Sampling { repetition_penalty: 0.5, ..plain }, (vec![1, 2, 3], counts)),
    ];
    for (sampling, expected) in cases {
        assert_eq!(of(sampling.clone()), expected, "{sampling:?}");
    }
}

#[test]
fn an_answer_that_goes_on_has_the_history_that_a_replay_opens_with() {
    let sampling = penalized();
    let mut tail = History::new(&sampling, &[1, 2], &[]);
    [5, 2, 5].into_iter().for_each(|token| tail.push(token));
    assert_eq!(tail, History::new(&sampling, &[1, 2], &[5, 2, 5]));
}

#[test]
fn options_that_no_sampler_can_go_by_are_named() {
    let number = |field, value, expected| OptionsError::Number { field, value, expected };
    let any = "a finite number";
    type Change = fn(&mut Sampling);
    let cases: [(Change, OptionsError); 9] = [
        (|s| s.temperature = -1.0, number("temperature", -1.0, "0 or more")),
        (|s| s.top_p = 0.0, number("top_p", 0.0, "above 0 and at most 1")),
        (|s| s.min_p = 1.5, number("min_p", 1.5, "from 0 to 1")),
        (|s| s.repetition_penalty = 0.0, number("repetition_penalty", 0.0, "above 0")),
        (|s| s.repetition_penalty = f32::INFINITY, number("repetition_penalty", f32::INFINITY, "above 0")),
        (|s| s.presence_penalty = f32::INFINITY, number("presence_penalty", f32::INFINITY, any)),
        (|s| s.frequency_penalty = f32::NEG_INFINITY, number("frequency_penalty", f32::NEG_INFINITY, any)),
        (|s| s.logit_bias = [(1, f32::INFINITY)].into(), number("logit_bias", f32::INFINITY, any)),
        (|s| s.logit_bias = (0..301).map(|id| (id, 1.0)).collect(), OptionsError::TooManyBiases { actual: 301 }),
    ];
    for (change, expected) in cases {
        let mut options = old();
        change(&mut options.sampling);
        assert_eq!(options.check(), Err(expected));
    }
    let most = Sampling { logit_bias: (0..300).map(|id| (id, 1.0)).collect(), ..penalized() };
    assert_eq!(SessionOptions { sampling: most, ..old() }.check(), Ok(()));
}

#[test]
fn a_history_longer_than_its_session_is_refused() {
    let with = |prompt: &[u32], output: &[u32]| {
        SessionOptions { history: History::new(&penalized(), prompt, output), ..old() }.check()
    };
    assert_eq!(with(&[1, 2, 3, 4], &[5, 5, 5, 5]), Ok(()));
    let expected = OptionsError::LongHistory { n_positions: 9, end_position: 9 };
    assert_eq!(with(&[1, 2, 3, 4], &[5, 5, 5, 5, 5]), Err(expected));
}

proptest! {
    #[test]
    fn numbers_pass_any_number_of_stages_unchanged(temperature in any::<f32>(), bias in -100.0_f32..100.0, min_p in 0.0_f32..=1.0) {
        let sampling = Sampling { temperature, min_p, logit_bias: [(1, bias)].into(), ..penalized() };
        let text = serde_json::to_string(&sampling).unwrap();
        prop_assert_eq!(serde_json::from_str::<Sampling>(&text).unwrap(), sampling);
    }
}
