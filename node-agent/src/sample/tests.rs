//! Draws: each filter by hand, all of them together against a slow twin, and what stays as it was.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use polyphony_protocol::session::{History, Sampling};
use proptest::prelude::*;

use super::*;

/// Probabilities 1/2, 1/4, 1/8, 1/16, 1/16 as logits.
fn halves() -> [f32; 5] {
    [0.5_f32, 0.25, 0.125, 0.0625, 0.0625].map(f32::ln)
}

fn random() -> Sampling {
    Sampling { temperature: 1.0, seed: 3, ..Sampling::default() }
}

fn options(sampling: &Sampling) -> SessionOptions {
    SessionOptions {
        sampling: sampling.clone(),
        end_position: u32::MAX,
        end_tokens: vec![],
        top_logprobs: 0,
        logprobs: false,
        n_prompt: 0,
        history: History::default(),
    }
}

fn token(logits: &[f32], sampling: &Sampling, history: &History, position: u32) -> u32 {
    draw(logits, &SessionOptions { history: history.clone(), ..options(sampling) }, position).unwrap().token
}

/// How often each token is drawn at 20,000 positions.
fn histogram(logits: &[f32], sampling: &Sampling, history: &History) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    (0..20_000).for_each(|position| counts[token(logits, sampling, history, position) as usize] += 1);
    counts
}

fn drawn_ever(logits: &[f32], sampling: &Sampling) -> Vec<usize> {
    let counts = histogram(logits, sampling, &History::default());
    (0..logits.len()).filter(|token| counts[*token] > 0).collect()
}

/// 20,000 draws of a probability have a standard deviation of at most 71; 5 of them are 354.
fn assert_probabilities(counts: &[usize], expected: &[f64]) {
    for (count, expected) in counts.iter().zip(expected) {
        assert!((*count as f64 - expected * 20_000.0).abs() < 354.0, "{counts:?}, {expected} of all expected");
    }
}

#[test]
fn temperature_zero_takes_the_first_of_the_largest() {
    let greedy = Sampling::default();
    assert_eq!(token(&[1.0, 3.0, 3.0, 2.0], &greedy, &History::default(), 5), 1);
}

#[test]
fn the_same_seed_and_position_draw_the_same_token() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
    let tokens = |seed| {
        let sampling = Sampling { seed, ..random() };
        (0..50).map(|position| token(&logits, &sampling, &History::default(), position)).collect::<Vec<_>>()
    };
    assert_eq!(tokens(42), tokens(42));
    assert_ne!(tokens(1), tokens(2));
}

#[test]
fn what_a_seed_draws_without_penalties_never_changes() {
    let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 11) as f32 / 4.0).collect();
    let draws = |sampling: Sampling| -> Vec<u32> {
        (0..8).map(|position| token(&logits, &sampling, &History::default(), position)).collect()
    };
    let truncated = Sampling { temperature: 0.7, top_k: 20, top_p: 0.9, seed: 5, ..Sampling::default() };
    assert_eq!(draws(random()), [73, 73, 63, 19, 85, 60, 30, 4]);
    assert_eq!(draws(truncated), [93, 71, 16, 96, 71, 71, 52, 5]);
}

#[test]
fn draws_follow_the_probabilities() {
    let history = History::default();
    assert_probabilities(&histogram(&halves(), &random(), &history), &[0.5, 0.25, 0.125, 0.0625, 0.0625]);
    // At temperature 1/2 probabilities are squared: 64, 16, 4, 1, 1 of 86.
    let cold = Sampling { temperature: 0.5, ..random() };
    let squared = [64.0, 16.0, 4.0, 1.0, 1.0].map(|share| share / 86.0);
    assert_probabilities(&histogram(&halves(), &cold, &history), &squared);
}

#[test]
fn each_filter_leaves_these_tokens() {
    let plain = random();
    let cases = [
        ("nothing", plain.clone(), vec![0, 1, 2, 3, 4]),
        ("top_k 2", Sampling { top_k: 2, ..plain.clone() }, vec![0, 1]),
        // Two tokens are equally likely: the first stays.
        ("top_k 4", Sampling { top_k: 4, ..plain.clone() }, vec![0, 1, 2, 3]),
        ("top_k over all", Sampling { top_k: 9, ..plain.clone() }, vec![0, 1, 2, 3, 4]),
        ("top_p 0.4", Sampling { top_p: 0.4, ..plain.clone() }, vec![0]),
        // 1/2 is not enough, 3/4 is.
        ("top_p 0.6", Sampling { top_p: 0.6, ..plain.clone() }, vec![0, 1]),
        ("top_p 0.8", Sampling { top_p: 0.8, ..plain.clone() }, vec![0, 1, 2]),
        // The likeliest has 1/2, so the bounds are 0.15, 0.05 and 1/2; a half of it is 1/4.
        ("min_p 0.3", Sampling { min_p: 0.3, ..plain.clone() }, vec![0, 1]),
        ("min_p 0.1", Sampling { min_p: 0.1, ..plain.clone() }, vec![0, 1, 2, 3, 4]),
        ("min_p 1", Sampling { min_p: 1.0, ..plain.clone() }, vec![0]),
        ("min_p 0.2", Sampling { min_p: 0.2, ..plain.clone() }, vec![0, 1, 2]),
        // After temperature 2 the weights are 1, 0.71, 0.5, 0.35, 0.35: more are above 0.4.
        ("min_p 0.4, warm", Sampling { min_p: 0.4, temperature: 2.0, ..plain.clone() }, vec![0, 1, 2]),
        ("min_p 0.4", Sampling { min_p: 0.4, ..plain.clone() }, vec![0, 1]),
        // Of the two that top-k keeps the first has 2/3, so 0.6 is reached; of all it has 1/2.
        ("top_k 2, top_p 0.6", Sampling { top_k: 2, top_p: 0.6, ..plain.clone() }, vec![0]),
        ("min_p 0.3, top_p 0.6", Sampling { min_p: 0.3, top_p: 0.6, ..plain.clone() }, vec![0]),
        ("min_p 0.2, top_k 2", Sampling { min_p: 0.2, top_k: 2, ..plain }, vec![0, 1]),
    ];
    for (name, sampling, expected) in cases {
        assert_eq!(drawn_ever(&halves(), &sampling), expected, "{name}");
    }
}

#[test]
fn min_p_keeps_the_proportions_of_what_it_leaves() {
    let sampling = Sampling { min_p: 0.2, ..random() };
    let shares = [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0, 0.0];
    assert_probabilities(&histogram(&halves(), &sampling, &History::default()), &shares);
}

#[test]
fn bias_and_penalties_make_these_logits() {
    let (prompt, output) = ([0, 1], [1, 2, 2, 2]);
    let none = Sampling::default();
    let all = Sampling {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: [(1, 1.0), (3, -6.0)].into(),
        ..none.clone()
    };
    let cases = [
        ("none", none.clone(), [4.0, -2.0, 1.0, 3.0]),
        ("bias", Sampling { logit_bias: all.logit_bias.clone(), ..none.clone() }, [4.0, -1.0, 1.0, -3.0]),
        // Of the prompt or the answer, once each: positive logits are halved, negative ones doubled.
        ("repetition", Sampling { repetition_penalty: 2.0, ..none.clone() }, [2.0, -4.0, 0.5, 3.0]),
        ("its opposite", Sampling { repetition_penalty: 0.5, ..none.clone() }, [8.0, -1.0, 2.0, 3.0]),
        // Of the answer alone.
        ("presence", Sampling { presence_penalty: 0.5, ..none.clone() }, [4.0, -2.5, 0.5, 3.0]),
        ("frequency", Sampling { frequency_penalty: 0.25, ..none.clone() }, [4.0, -2.25, 0.25, 3.0]),
        ("its opposite", Sampling { frequency_penalty: -2.0, ..none.clone() }, [4.0, 0.0, 7.0, 3.0]),
        // Token 1: -2 + 1 = -1, doubled -2, less 0.25 and 0.5. Token 2: 1, halved 0.5, less 0.75 and 0.5.
        ("all in their order", all.clone(), [2.0, -2.75, -0.75, -3.0]),
    ];
    for (name, sampling, expected) in cases {
        let history = History::new(&sampling, &prompt, &output);
        assert_eq!(adjusted(&[4.0, -2.0, 1.0, 3.0], &sampling, &history), expected.as_slice(), "{name}");
    }
}

#[test]
fn a_bias_is_added_before_the_repetition_penalty() {
    // (-1 + 2) / 2; the other way round it would be -1 · 2 + 2 = 0.
    let sampling = Sampling { repetition_penalty: 2.0, logit_bias: [(0, 2.0)].into(), ..Sampling::default() };
    let history = History::new(&sampling, &[0], &[]);
    assert_eq!(adjusted(&[-1.0], &sampling, &history), [0.5].as_slice());
}

#[test]
fn greedy_draws_mind_bias_and_penalties() {
    let logits = [2.0, 1.9, 1.0];
    let greedy = |change: fn(&mut Sampling)| {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        token(&logits, &sampling, &History::new(&sampling, &[0], &[0]), 7)
    };
    assert_eq!(greedy(|_| {}), 0);
    assert_eq!(greedy(|s| s.presence_penalty = 0.2), 1);
    assert_eq!(greedy(|s| s.frequency_penalty = 0.2), 1);
    assert_eq!(greedy(|s| s.repetition_penalty = 1.2), 1);
    assert_eq!(greedy(|s| s.logit_bias = [(2, 5.0)].into()), 2);
    // Filters never take the likeliest away.
    assert_eq!(greedy(|s| (s.min_p, s.top_k, s.top_p) = (1.0, 1, 0.1)), 0);
}

#[test]
fn a_bias_of_100_bans_or_forces_a_token() {
    let banned = Sampling { logit_bias: [(0, -100.0)].into(), ..random() };
    assert_eq!(drawn_ever(&halves(), &banned), [1, 2, 3, 4]);
    let forced = Sampling { logit_bias: [(4, 100.0)].into(), ..random() };
    assert_eq!(drawn_ever(&halves(), &forced), [4]);
}

#[test]
fn a_presence_penalty_divides_the_odds_by_its_exponential() {
    // Token 0 has half; its odds against the others, 1, become exp(-1).
    let sampling = Sampling { presence_penalty: 1.0, ..random() };
    let counts = histogram(&halves(), &sampling, &History::new(&sampling, &[], &[0, 0]));
    let share = 1.0 / (1.0 + 1.0_f64.exp());
    assert_probabilities(&counts[..1], &[share]);
}

#[test]
fn tokens_beyond_the_vocabulary_are_passed_over() {
    let sampling = Sampling {
        repetition_penalty: 2.0,
        presence_penalty: 1.0,
        logit_bias: [(2, 9.0), (u32::MAX, 9.0)].into(),
        ..Sampling::default()
    };
    let history = History::new(&sampling, &[2, u32::MAX], &[3, u32::MAX]);
    assert_eq!(adjusted(&[1.0, 2.0], &sampling, &history), [1.0, 2.0].as_slice());
}

#[test]
fn log_probabilities_are_those_of_the_model_before_all_changes() {
    let sampling = Sampling { temperature: 0.5, logit_bias: [(0, 50.0)].into(), min_p: 1.0, ..Sampling::default() };
    let options = SessionOptions { logprobs: true, top_logprobs: 2, ..options(&sampling) };
    let drawn = draw(&[0.0, 3.0_f32.ln()], &options, 0).unwrap();
    assert_eq!(drawn.token, 0);
    // f32 rounding of a value near 1.
    assert!((drawn.logprob - 0.25_f32.ln()).abs() < 1e-6, "{drawn:?}");
    assert_eq!(drawn.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 0]);
    assert!((drawn.top[0].1 - 0.75_f32.ln()).abs() < 1e-6, "{drawn:?}");
}

#[test]
fn no_token_is_drawn_from_logits_of_which_one_is_no_number() {
    for sampling in [random(), Sampling::default()] {
        let options = SessionOptions { logprobs: true, top_logprobs: 3, ..options(&sampling) };
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(draw(&[1.0, broken, 3.0], &options, 0), Err(NonFinite), "{broken}, {sampling:?}");
        }
        assert_eq!(draw(&[], &options, 0), Err(NonFinite));
    }
}

#[test]
fn penalties_that_lead_beyond_all_numbers_are_no_fault_of_the_model() {
    let sampling = Sampling { top_p: 0.5, min_p: 0.5, repetition_penalty: 1e-38, ..random() };
    let history = History::new(&sampling, &[0, 1], &[2]);
    let options = SessionOptions { logprobs: true, top_logprobs: 3, history, ..options(&sampling) };
    assert!(draw(&[9.0, 8.0, 7.0], &options, 0).is_ok());
}

/// The tokens that may be drawn, found the slow way: by the definition of each filter, over all tokens, one after another.
/// `slack` is added to every bound, so that rounding decides nothing.
fn allowed(logits: &[f32], sampling: &Sampling, slack: f64) -> BTreeSet<u32> {
    // From the largest, or a biased logit over a low temperature has an exponential beyond f64.
    let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, logit| largest.max(*logit));
    let above = |logit: f32| (f64::from(logit) - f64::from(largest)) / f64::from(sampling.temperature);
    let scaled: Vec<f64> = logits.iter().map(|logit| above(*logit)).collect();
    let mut kept: BTreeSet<u32> = (0..logits.len() as u32).collect();
    let probability = |token: u32, kept: &BTreeSet<u32>| {
        scaled[token as usize].exp() / kept.iter().map(|token| scaled[*token as usize].exp()).sum::<f64>()
    };
    let likelier = |a: u32, b: u32| {
        let (x, y) = (logits[a as usize], logits[b as usize]);
        x > y || (x == y && a < b)
    };
    let most = kept.iter().map(|token| probability(*token, &kept)).fold(0.0, f64::max);
    let all = kept.clone();
    kept.retain(|token| probability(*token, &all) >= f64::from(sampling.min_p) * most - slack);
    if sampling.top_k > 0 {
        let all = kept.clone();
        kept.retain(|token| all.iter().filter(|other| likelier(**other, *token)).count() < sampling.top_k as usize);
    }
    let all = kept.clone();
    let before = |token: u32| -> f64 {
        all.iter().filter(|other| likelier(**other, token)).map(|other| probability(*other, &all)).sum()
    };
    kept.retain(|token| before(*token) < f64::from(sampling.top_p) + slack);
    kept
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let filters = (0.1_f32..2.0, 0_u32..12, 0.05_f32..=1.0, prop_oneof![Just(0.0_f32), 0.0_f32..=1.0]);
    let penalties = (0.5_f32..2.0, -2.0_f32..2.0, -2.0_f32..2.0);
    let biases = proptest::collection::btree_map(0_u32..40, -100.0_f32..100.0, 0..4);
    (filters, penalties, biases, any::<u64>()).prop_map(
        |((temperature, top_k, top_p, min_p), (repetition_penalty, presence, frequency), logit_bias, seed)| Sampling {
            temperature,
            top_k,
            top_p,
            seed,
            min_p,
            repetition_penalty,
            presence_penalty: presence,
            frequency_penalty: frequency,
            logit_bias,
        },
    )
}

proptest! {
    #[test]
    fn every_drawn_token_is_among_the_allowed_ones(
        // Quarters, so that many are equal.
        quarters in proptest::collection::vec(-20_i32..20, 1..40),
        sampling in any_sampling(),
        prompt in proptest::collection::vec(0_u32..40, 0..20),
        output in proptest::collection::vec(0_u32..40, 0..20),
        position in any::<u32>(),
    ) {
        let logits: Vec<f32> = quarters.iter().map(|quarter| *quarter as f32 / 4.0).collect();
        let history = History::new(&sampling, &prompt, &output);
        let changed = adjusted(&logits, &sampling, &history);
        // Far above the rounding of f64 sums, far below the least step between probabilities that could matter.
        let may = allowed(&changed, &sampling, 1e-9);
        let drawn = token(&logits, &sampling, &history, position);
        prop_assert!(may.contains(&drawn), "{drawn} of {may:?}, {changed:?}");
        prop_assert!(may.contains(&argmax(&changed)), "the likeliest always stays");
        let greedy = Sampling { temperature: 0.0, ..sampling };
        prop_assert_eq!(token(&logits, &greedy, &history, position), argmax(&changed));
    }
}
