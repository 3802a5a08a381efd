//! Stages without engines: a toy model whose next token is the sum of all tokens so far, modulo 97.
#![allow(clippy::unwrap_used)]

mod encoder;
mod ends;
mod flow;
mod hand_over;

use std::time::Duration;

use polyphony_model::LayerRange;
use polyphony_protocol::{ActivationType, Epoch, PlanGeneration, RingId};

use super::*;
use crate::segment::{Capacity, Input, Output};
use crate::serve::batch::{Part, StepInput};
use polyphony_protocol::frame::{FailureCode, Finish, Prompt};
use polyphony_protocol::session::{History, OptionsError, Sampling};

const VOCABULARY: usize = 97;

fn key(session: u64, epoch: u32) -> RouteKey {
    RouteKey { ring: RingId(5), generation: PlanGeneration(2), session: SessionId(session), epoch: Epoch(epoch) }
}

fn options(end_position: u32) -> SessionOptions {
    SessionOptions {
        sampling: Sampling::default(),
        end_position,
        end_tokens: vec![96],
        top_logprobs: 0,
        logprobs: false,
        n_prompt: 0,
        history: Default::default(),
    }
}

fn shape(stage: usize, n_stages: usize) -> StageShape {
    StageShape {
        ring: RingId(5),
        generation: PlanGeneration(2),
        stage: stage as u32,
        layers: LayerRange { from: stage as u32, to: stage as u32 + 1 },
        phone: format!("phone-{stage}"),
        next_phone: format!("phone-{}", (stage + 1) % n_stages),
        n_stages,
        session_groups: 0,
        encoder: None,
        vocab_size: VOCABULARY as u32,
        hidden_size: 1,
        activation_type: ActivationType::F32,
        capacity: Capacity { n_slots: 2, n_positions: 64, max_rows: 4 },
        step_deadline: Duration::from_secs(10),
        idle_deadline: Duration::from_secs(100),
    }
}

/// The next step, where nothing waits for an encoder.
fn next(stage: &mut Stage, now: Instant) -> Option<Batch> {
    stage.next_batch(&|_| true, now)
}

/// A stage with slots of its own.
fn stage_of(shape: StageShape) -> Stage {
    let slots = Slots::new(shape.capacity.n_slots);
    Stage::new(shape, slots)
}

/// A ring of stages whose frames are handed over at once.
struct Ring {
    stages: Vec<Stage>,
    /// The tail's memory: token values by slot and position.
    cache: HashMap<(u32, u32), f32>,
    to_gateway: Vec<Frame>,
    failed: Vec<(RouteKey, Reason)>,
    now: Instant,
    largest_batch: usize,
}

impl Ring {
    fn new(n_stages: usize) -> Self {
        let stages = (0..n_stages).map(|stage| stage_of(shape(stage, n_stages))).collect();
        let (cache, to_gateway, failed) = Default::default();
        Self { stages, cache, to_gateway, failed, now: Instant::now(), largest_batch: 0 }
    }

    fn gateway_sends(&mut self, frame: Frame) {
        let effects = self.stages[0].accept(frame, Source::Host, self.now);
        self.carry(0, effects);
    }

    fn carry(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Host(frame) => self.to_gateway.push(frame),
                Effect::Fail { key, reason } => self.failed.push((key, reason)),
                Effect::Pull(pull) => panic!("nothing is to be pulled: {pull:?}"),
                Effect::Skip { to, .. } => panic!("nothing skips to {to} in a model without an encoder"),
                Effect::Next(frame) => {
                    let to = (from + 1) % self.stages.len();
                    let source = if to == 0 { Source::Tail } else { Source::Previous };
                    let effects = self.stages[to].accept(frame, source, self.now);
                    self.carry(to, effects);
                }
            }
        }
    }

    /// Runs until no stage has work.
    fn settle(&mut self) {
        while let Some((at, batch)) =
            (0..self.stages.len()).find_map(|at| Some((at, next(&mut self.stages[at], self.now)?)))
        {
            self.complete(at, batch);
        }
    }

    fn complete(&mut self, at: usize, batch: Batch) {
        self.largest_batch = self.largest_batch.max(batch.parts.len());
        let values: Vec<f32> = match &batch.step.input {
            Input::Tokens(tokens) => tokens.iter().map(|token| *token as f32).collect(),
            Input::Hidden(values) => values.clone(),
        };
        let output = if at + 1 == self.stages.len() {
            Output::Logits(self.logits(&batch.step, &values))
        } else {
            Output::Hidden(values)
        };
        let effects = self.stages[at].complete(&batch.parts, &output, self.now);
        self.carry(at, effects);
    }

    fn logits(&mut self, step: &StepInput, values: &[f32]) -> Vec<f32> {
        for (row, value) in step.rows.iter().zip(values) {
            self.cache.insert((row.slot, row.position), *value);
        }
        let sampled = &step.rows[step.rows.len() - step.n_logits..];
        let mut logits = Vec::new();
        for row in sampled {
            let sum: f32 = (0..=row.position).map(|position| self.cache[&(row.slot, position)]).sum();
            let mut one = vec![0.0; VOCABULARY];
            one[sum as usize % VOCABULARY] = 1.0;
            logits.extend(one);
        }
        logits
    }

    fn tokens(&self, session: u64) -> Vec<u32> {
        let token = |frame: &Frame| match frame {
            Frame::Token(token) if token.key.session == SessionId(session) => Some(token.token),
            _ => None,
        };
        self.to_gateway.iter().filter_map(token).collect()
    }

    fn failures(&self) -> Vec<FailureCode> {
        self.failed.iter().map(|(_, reason)| reason.code()).collect()
    }

    fn start(&mut self, session: u64, prompt: &[u32], end_position: u32, credit: u32) {
        let key = key(session, 0);
        self.gateway_sends(Frame::Open { key, options: options(end_position) });
        self.gateway_sends(Frame::Prompt(Prompt { key, position: 0, tokens: prompt.to_vec(), credit }));
    }
}

fn expected(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut all = prompt.to_vec();
    for _ in 0..n {
        all.push(all.iter().sum::<u32>() % VOCABULARY as u32);
    }
    all.split_off(prompt.len())
}

#[test]
fn one_two_and_three_stages_say_the_same() {
    for n_stages in 1..=3 {
        let mut ring = Ring::new(n_stages);
        ring.start(1, &[3, 1, 4, 1, 5, 9], 14, 100);
        ring.settle();
        assert_eq!(ring.tokens(1), expected(&[3, 1, 4, 1, 5, 9], 8), "{n_stages} stages");
        let Some(Frame::Token(last)) = ring.to_gateway.last() else { panic!("a token comes last") };
        assert_eq!((last.position, last.finish), (13, Some(Finish::Length)));
    }
}

#[test]
fn two_sessions_share_steps_and_say_what_each_says_alone() {
    let mut ring = Ring::new(3);
    ring.start(1, &[1, 2, 3, 4, 5, 6, 7], 12, 100);
    ring.start(2, &[9], 12, 100);
    ring.settle();
    assert_eq!(ring.tokens(1), expected(&[1, 2, 3, 4, 5, 6, 7], 5));
    assert_eq!(ring.tokens(2), expected(&[9], 11));
    assert_eq!(ring.largest_batch, 2);
}

#[test]
fn the_head_runs_ahead_by_no_more_than_its_credit() {
    let mut ring = Ring::new(2);
    ring.start(1, &[1, 1], 60, 3);
    ring.settle();
    assert_eq!(ring.tokens(1).len(), 3);
    ring.gateway_sends(Frame::Credit { key: key(1, 0), steps: 2 });
    ring.settle();
    assert_eq!(ring.tokens(1), expected(&[1, 1], 5));
}

#[test]
fn an_end_token_ends_the_answer() {
    let mut ring = Ring::new(2);
    ring.start(1, &[90, 6], 60, 100);
    ring.settle();
    assert_eq!(ring.tokens(1), [96]);
    let Some(Frame::Token(last)) = ring.to_gateway.last() else { panic!("a token comes last") };
    assert_eq!(last.finish, Some(Finish::Stop));
}

#[test]
fn a_closed_session_frees_its_slot_on_every_stage() {
    let mut ring = Ring::new(3);
    ring.start(1, &[1], 60, 2);
    ring.start(2, &[1], 60, 2);
    ring.settle();
    ring.start(3, &[1], 60, 2);
    assert!(ring.failures().contains(&FailureCode::Busy));
    ring.gateway_sends(Frame::Close { key: key(1, 0) });
    assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 1));
    ring.to_gateway.clear();
    ring.start(4, &[2], 4, 9);
    ring.settle();
    assert_eq!(ring.tokens(4), expected(&[2], 3));
}

#[test]
fn a_later_epoch_begins_anew_and_the_earlier_one_is_refused() {
    let mut ring = Ring::new(2);
    ring.start(1, &[1, 2], 60, 1);
    ring.settle();
    let again = key(1, 1);
    ring.gateway_sends(Frame::Open { key: again, options: options(60) });
    ring.gateway_sends(Frame::Prompt(Prompt { key: again, position: 0, tokens: vec![1, 2, 3], credit: 2 }));
    ring.settle();
    assert_eq!(ring.tokens(1)[1..], expected(&[1, 2, 3], 2));
    ring.gateway_sends(Frame::Prompt(Prompt { key: key(1, 0), position: 3, tokens: vec![1], credit: 2 }));
    assert_eq!(ring.failures(), [FailureCode::StaleGeneration]);
}

#[test]
fn a_frame_of_another_generation_is_refused() {
    let mut ring = Ring::new(2);
    let other = RouteKey { generation: PlanGeneration(1), ..key(1, 0) };
    ring.gateway_sends(Frame::Open { key: other, options: options(9) });
    assert_eq!(ring.failures(), [FailureCode::StaleGeneration]);
    assert_eq!(ring.stages[0].n_sessions(), 0);
}

#[test]
fn hidden_states_out_of_order_or_of_the_wrong_size_end_the_session() {
    for (position, n_tokens, bytes) in [(1, 1, 4), (0, 1, 8), (0, 5, 20), (0, 0, 0)] {
        let mut ring = Ring::new(2);
        ring.stages[1].accept(Frame::Open { key: key(1, 0), options: options(9) }, Source::Previous, ring.now);
        let hidden = Hidden {
            key: key(1, 0),
            position,
            n_tokens,
            dtype: ActivationType::F32,
            kind: HiddenKind::Decoding,
            sample: true,
            payload: vec![0; bytes].into(),
        };
        let effects = ring.stages[1].accept(Frame::Hidden(hidden), Source::Previous, ring.now);
        ring.carry(1, effects);
        assert_eq!(ring.failures(), [FailureCode::BadFrame], "position {position}, {n_tokens} tokens, {bytes} bytes");
    }
}

#[test]
fn a_frame_that_cannot_come_this_way_changes_nothing() {
    let mut ring = Ring::new(2);
    let now = ring.now;
    assert!(
        ring.stages[0].accept(Frame::Open { key: key(1, 0), options: options(9) }, Source::Previous, now).is_empty()
    );
    assert!(ring.stages[1].accept(Frame::Open { key: key(1, 0), options: options(9) }, Source::Host, now).is_empty());
    assert_eq!(ring.stages.iter().map(Stage::n_sessions).sum::<usize>(), 0);
}

#[test]
fn a_lost_neighbour_fails_every_session_with_its_name() {
    let mut ring = Ring::new(2);
    ring.start(1, &[1], 60, 1);
    let effects = ring.stages[0].peer_lost("phone-1", "reset");
    let lost = Reason::PeerLost { phone: "phone-1".into(), cause: "reset".into() };
    assert_eq!(effects[0], Effect::Fail { key: key(1, 0), reason: lost });
    assert_eq!(ring.stages[0].n_sessions(), 0);
}

#[test]
fn a_ring_that_does_not_answer_is_a_slow_peer() {
    let mut ring = Ring::new(2);
    ring.start(1, &[1], 60, 1);
    let now = ring.now;
    assert!(next(&mut ring.stages[0], now).is_some());
    assert_eq!(ring.stages[0].poll_timeout(), Some(now + Duration::from_secs(10)));
    assert!(ring.stages[0].handle_timeout(now + Duration::from_secs(9)).is_empty());
    let effects = ring.stages[0].handle_timeout(now + Duration::from_secs(10));
    ring.carry(0, effects);
    let slow = Reason::SlowRing { next_phone: "phone-1".into(), deadline: Duration::from_secs(10) };
    assert_eq!(ring.failed, [(key(1, 0), slow)]);
    assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 0));
}

#[test]
fn a_prompt_that_leaves_no_room_for_an_answer_is_refused() {
    let mut ring = Ring::new(1);
    ring.start(1, &[1, 2, 3], 3, 1);
    assert_eq!(ring.failures(), [FailureCode::BadFrame]);
    ring.failed.clear();
    ring.start(2, &[1], 65, 1);
    assert!(ring.failures().contains(&FailureCode::BadFrame));
}

/// The answer of a ring to a session whose first `n_known` tokens of the answer were sampled elsewhere.
fn answer(n_stages: usize, sampling: &Sampling, prompt: &[u32], known: &[u32], history: History) -> Vec<u32> {
    let mut ring = Ring::new(n_stages);
    let key = key(1, 3);
    let options = SessionOptions { sampling: sampling.clone(), end_tokens: vec![], history, ..options(60) };
    ring.gateway_sends(Frame::Open { key, options });
    ring.gateway_sends(Frame::Prompt(Prompt { key, position: 0, tokens: [prompt, known].concat(), credit: 100 }));
    ring.settle();
    assert_eq!(ring.failures(), []);
    ring.tokens(1)
}

fn penalized() -> Sampling {
    // Strong enough to be seen: the toy model makes each token nearly as likely as the others.
    Sampling {
        temperature: 1.0,
        seed: 11,
        min_p: 0.01,
        repetition_penalty: 1.5,
        presence_penalty: 2.0,
        frequency_penalty: -2.0,
        logit_bias: [(5, 3.0)].into(),
        ..Sampling::default()
    }
}

#[test]
fn a_replay_with_penalties_draws_what_the_first_ring_would_have() {
    let (sampling, prompt) = (penalized(), [3, 1, 4, 1, 5]);
    let whole = answer(1, &sampling, &prompt, &[], History::new(&sampling, &prompt, &[]));
    assert_eq!(whole.len(), 55);
    for n_stages in 1..=3 {
        for n_known in [0, 1, 7, 30, 54] {
            let (known, rest) = whole.split_at(n_known);
            let history = History::new(&sampling, &prompt, known);
            let replayed = answer(n_stages, &sampling, &prompt, known, history);
            assert_eq!(replayed, rest, "{n_stages} stages, {n_known} tokens known");
        }
    }
    // The same tokens, but taken for the prompt's: so the test above can fail.
    let (known, rest) = whole.split_at(30);
    let confused = History::new(&sampling, &[&prompt, known].concat(), &[]);
    assert_ne!(answer(2, &sampling, &prompt, known, confused), rest);
}

#[test]
fn the_tail_counts_what_it_samples() {
    // Greedy, and each token is banned once it has come: the toy model's zeros are taken in order.
    let once = Sampling { presence_penalty: 2.0, ..Sampling::default() };
    let tokens = answer(3, &once, &[90], &[], History::default());
    let distinct: std::collections::BTreeSet<u32> = tokens.iter().copied().collect();
    assert_eq!((tokens.len(), distinct.len()), (59, 59), "{tokens:?}");
    assert_eq!(tokens[0], 90, "the prompt is not the answer");
}

#[test]
fn options_that_no_stage_can_go_by_are_refused() {
    let mut ring = Ring::new(2);
    let sampling = Sampling { repetition_penalty: 0.0, ..Sampling::default() };
    ring.gateway_sends(Frame::Open { key: key(1, 0), options: SessionOptions { sampling, ..options(9) } });
    let (_, reason) = ring.failed.last().unwrap();
    assert!(matches!(reason, Reason::Options(OptionsError::Number { field: "repetition_penalty", .. })), "{reason:?}");
    assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 0));
}

/// A stage with room for many sessions.
fn wide(stage: usize, n_stages: usize) -> Stage {
    let capacity = Capacity { n_slots: 8, n_positions: 64, max_rows: 8 };
    stage_of(StageShape { capacity, ..shape(stage, n_stages) })
}

fn sessions_of(batch: &Batch) -> Vec<u64> {
    batch.parts.iter().map(|part| part.key.session.0).collect()
}

#[test]
fn a_step_samples_for_its_share_of_the_sessions_so_that_every_stage_has_work() {
    // Without a plan's word there are as many groups as stages.
    let table = [
        (6, 3, 0, 2),
        (5, 3, 0, 2),
        (2, 3, 0, 1),
        (6, 1, 0, 6),
        (4, 2, 0, 2),
        (4, 3, 4, 1),
        (6, 2, 3, 2),
        (3, 2, 1, 3),
    ];
    for (n_sessions, n_stages, session_groups, share) in table {
        let capacity = wide(0, n_stages).shape.capacity;
        let mut head = stage_of(StageShape { capacity, session_groups, ..shape(0, n_stages) });
        let now = Instant::now();
        for session in 1..=n_sessions {
            let key = key(session, 0);
            head.accept(Frame::Open { key, options: options(60) }, Source::Host, now);
            let prompt = Prompt { key, position: 0, tokens: vec![1], credit: 9 };
            head.accept(Frame::Prompt(prompt), Source::Host, now);
        }
        let (mut seen, mut in_flight) = (Vec::new(), Vec::new());
        while let Some(batch) = next(&mut head, now) {
            assert!(batch.parts.len() <= share, "{n_sessions} sessions, {n_stages} stages: {batch:?}");
            seen.extend(sessions_of(&batch));
            in_flight.extend(batch.parts);
        }
        assert_eq!(seen, (1..=n_sessions).collect::<Vec<_>>(), "each has its turn, in order");
        // All tokens come back at once: the batch parts again.
        if n_stages == 1 {
            let logits = Output::Logits(vec![0.0; in_flight.len() * VOCABULARY]);
            head.complete(&in_flight, &logits, now);
        } else {
            for Part { key, .. } in in_flight {
                let token = Token { key, position: 1, token: 1, finish: None, logprob: 0.0, top: Vec::new() };
                head.accept(Frame::Token(token), Source::Tail, now);
            }
        }
        let batch = next(&mut head, now).unwrap();
        assert_eq!(sessions_of(&batch), (1..=share as u64).collect::<Vec<_>>());
    }
}

#[test]
fn sessions_that_wait_for_credit_are_no_part_of_the_share() {
    let (mut head, now) = (wide(0, 2), Instant::now());
    for (session, credit) in [(1, 1), (2, 1), (3, 0), (4, 0)] {
        let key = key(session, 0);
        head.accept(Frame::Open { key, options: options(60) }, Source::Host, now);
        head.accept(Frame::Prompt(Prompt { key, position: 0, tokens: vec![1], credit }), Source::Host, now);
    }
    assert_eq!(next(&mut head, now).map(|batch| sessions_of(&batch)), Some(vec![1]));
    assert_eq!(next(&mut head, now).map(|batch| sessions_of(&batch)), Some(vec![2]));
    assert!(next(&mut head, now).is_none());
}

#[test]
fn a_head_sends_as_many_chunks_as_its_window_has_room_for_and_others_decode_between_them() {
    let (mut head, now) = (wide(0, 2), Instant::now());
    for (session, n_tokens) in [(1, 30), (2, 1)] {
        let key = key(session, 0);
        head.accept(Frame::Open { key, options: options(60) }, Source::Host, now);
        let prompt = Prompt { key, position: 0, tokens: vec![1; n_tokens], credit: 9 };
        head.accept(Frame::Prompt(prompt), Source::Host, now);
    }
    let mut steps = || -> Vec<_> { std::iter::from_fn(|| next(&mut head, now)).map(|it| sessions_of(&it)).collect() };
    assert_eq!(steps(), [vec![1], vec![2, 1], vec![1]], "a chunk for each of two stages, and one on its way");
}

#[test]
fn a_decode_row_waits_for_one_chunk_of_a_prompt_at_most_and_so_does_a_chunk_for_decode() {
    let (mut stage, now) = (wide(1, 3), Instant::now());
    let mut positions = HashMap::new();
    let mut arrive = |stage: &mut Stage, session: u64, n_tokens: usize, sample: bool| {
        let position = positions.entry(session).or_insert(0);
        let payload = vec![0; n_tokens * 4].into();
        let (key, dtype) = (key(session, 0), ActivationType::F32);
        let hidden = Hidden {
            key,
            position: *position,
            n_tokens: n_tokens as u32,
            dtype,
            kind: HiddenKind::Decoding,
            sample,
            payload,
        };
        *position += n_tokens as u32;
        assert_eq!(stage.accept(Frame::Hidden(hidden), Source::Previous, now), []);
    };
    for session in [1, 2, 3] {
        stage.accept(Frame::Open { key: key(session, 0), options: options(60) }, Source::Previous, now);
    }
    // Four chunks of a long prompt, and behind them rows of two others that decode.
    for sample in [false, false, false, true] {
        arrive(&mut stage, 1, 8, sample);
    }
    arrive(&mut stage, 2, 1, true);
    arrive(&mut stage, 3, 1, true);
    let mut steps = Vec::new();
    while let Some(batch) = next(&mut stage, now) {
        let is_decode = batch.is_decode();
        steps.push(sessions_of(&batch));
        if is_decode {
            arrive(&mut stage, 2, 1, true);
        }
        if steps.len() == 8 {
            break;
        }
    }
    assert_eq!(steps, [vec![2, 3], vec![1], vec![2], vec![1], vec![2], vec![1], vec![2], vec![1]]);
}
