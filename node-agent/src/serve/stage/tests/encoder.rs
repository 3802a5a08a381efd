//! Rings of an encoder–decoder model without engines: the next token is the sum of the prompt, which the encoder's output tells, and of all
//! tokens decoded so far, modulo 97.

use std::collections::VecDeque;

use polyphony_protocol::frame::Resume;
use polyphony_protocol::hub::EncoderStages;

use super::*;

const START: u32 = 7;

fn encoder(last: u32, first_decoder: u32) -> EncoderShape {
    EncoderShape { start_token: START, stages: EncoderStages { last, first_decoder } }
}

fn stage(stage: usize, n_stages: usize, encoder: EncoderShape) -> EncoderStage {
    stage_with(shape(stage, n_stages), encoder)
}

fn stage_with(shape: StageShape, encoder: EncoderShape) -> EncoderStage {
    let slots = Slots::new(shape.capacity.n_slots);
    EncoderStage::new(StageShape { encoder: Some(encoder), ..shape }, encoder, slots)
}

fn options(n_prompt: usize, end_position: u32) -> SessionOptions {
    SessionOptions { n_prompt: n_prompt as u32, end_tokens: vec![], ..super::options(end_position) }
}

fn open(session: u64, n_prompt: usize) -> Frame {
    Frame::Open { key: key(session, 0), options: options(n_prompt, 40) }
}

fn rows(kind: HiddenKind, position: u32, values: &[f32]) -> Frame {
    let payload = polyphony_protocol::activation::encode_rows(ActivationType::F32, 1, values);
    let (dtype, n_tokens) = (ActivationType::F32, values.len() as u32);
    Frame::Hidden(Hidden { key: key(1, 0), position, n_tokens, dtype, kind, sample: true, payload })
}

/// A ring whose frames travel in order, but those over skip edges at once.
struct Ring {
    stages: Vec<EncoderStage>,
    on_their_way: VecDeque<(usize, Source, Frame)>,
    /// What decoders have of the encoder's output, by stage and slot: its sum.
    encoded: HashMap<(usize, u32), f32>,
    cache: HashMap<(u32, u32), f32>,
    to_gateway: Vec<Frame>,
    failed: Vec<(RouteKey, Reason)>,
    n_skipped: usize,
    encoder: EncoderShape,
}

impl Ring {
    fn new(n_stages: usize, encoder: EncoderShape) -> Self {
        Self {
            stages: (0..n_stages).map(|at| stage(at, n_stages, encoder)).collect(),
            on_their_way: VecDeque::new(),
            encoded: HashMap::new(),
            cache: HashMap::new(),
            to_gateway: Vec::new(),
            failed: Vec::new(),
            n_skipped: 0,
            encoder,
        }
    }

    fn start(&mut self, session: u64, prompt: &[u32], answered: &[u32], credit: u32) {
        let key = key(session, 0);
        self.gateway_sends(Frame::Open { key, options: options(prompt.len(), 40) });
        let tokens = [prompt, answered].concat();
        self.gateway_sends(Frame::Prompt(Prompt { key, position: 0, tokens, credit }));
    }

    fn gateway_sends(&mut self, frame: Frame) {
        self.hand(0, Source::Host, frame);
    }

    fn hand(&mut self, to: usize, source: Source, frame: Frame) {
        let effects = self.stages[to].accept(frame, source, Instant::now());
        self.carry(to, effects);
    }

    fn carry(&mut self, from: usize, effects: Vec<Effect>) {
        let is_tail = from + 1 == self.stages.len();
        for effect in effects {
            match effect {
                Effect::Host(frame) => self.to_gateway.push(frame),
                Effect::Fail { key, reason } => self.failed.push((key, reason)),
                Effect::Next(frame) if is_tail => {
                    self.on_their_way.push_back((self.encoder.stages.first_decoder as usize, Source::Tail, frame));
                }
                Effect::Next(frame) => self.on_their_way.push_back((from + 1, Source::Previous, frame)),
                Effect::Skip { to, frame } => {
                    self.n_skipped += 1;
                    self.hand(to as usize, Source::Encoder, frame);
                }
                Effect::Pull(pull) => panic!("nothing is to be pulled: {pull:?}"),
            }
        }
    }

    /// Runs until nothing happens any more: all steps that can be run, then one frame.
    fn settle(&mut self) {
        loop {
            let work = (0..self.stages.len()).find_map(|at| Some((at, self.stages[at].next_work(Instant::now())?)));
            if let Some((at, work)) = work {
                self.run(at, work);
            } else if let Some((to, source, frame)) = self.on_their_way.pop_front() {
                self.hand(to, source, frame);
            } else {
                return;
            }
        }
    }

    fn run(&mut self, at: usize, work: Work) {
        let effects = match work {
            Work::Encoder(EncoderJob { key, step: EncoderStep::Encode(input), .. }) => {
                self.stages[at].encoded(key, values_of(&input))
            }
            Work::Encoder(EncoderJob { key, slot, step: EncoderStep::TakeEncoded(values), .. }) => {
                self.encoded.insert((at, slot), values.iter().sum());
                self.stages[at].taken(key);
                Vec::new()
            }
            Work::Decode { batch: Batch { parts, step }, .. } => {
                assert!(step.rows.iter().all(|row| self.encoded.contains_key(&(at, row.slot))), "stage {at}");
                let values = values_of(&step.input);
                let output = if at + 1 == self.stages.len() {
                    Output::Logits(self.logits(at, &step, &values))
                } else {
                    Output::Hidden(values)
                };
                self.stages[at].decoding_mut().complete(&parts, &output, Instant::now())
            }
        };
        self.carry(at, effects);
    }

    fn logits(&mut self, at: usize, step: &StepInput, values: &[f32]) -> Vec<f32> {
        for (row, value) in step.rows.iter().zip(values) {
            self.cache.insert((row.slot, row.position), *value);
        }
        let sampled = &step.rows[step.rows.len() - step.n_logits..];
        let mut logits = Vec::new();
        for row in sampled {
            let decoded: f32 = (0..=row.position).map(|position| self.cache[&(row.slot, position)]).sum();
            let mut one = vec![0.0; VOCABULARY];
            one[(decoded + self.encoded[&(at, row.slot)]) as usize % VOCABULARY] = 1.0;
            logits.extend(one);
        }
        logits
    }

    fn tokens(&self, session: u64) -> Vec<(u32, u32)> {
        let token = |frame: &Frame| match frame {
            Frame::Token(token) if token.key.session == SessionId(session) => Some((token.position, token.token)),
            _ => None,
        };
        self.to_gateway.iter().filter_map(token).collect()
    }

    fn failures(&self) -> Vec<FailureCode> {
        self.failed.iter().map(|(_, reason)| reason.code()).collect()
    }
}

fn values_of(input: &Input) -> Vec<f32> {
    match input {
        Input::Tokens(tokens) => tokens.iter().map(|token| *token as f32).collect(),
        Input::Hidden(values) => values.clone(),
    }
}

/// The answer's first `n` tokens with the positions that the gateway counts.
fn expected(prompt: &[u32], n: usize) -> Vec<(u32, u32)> {
    let mut decoded = vec![START];
    for _ in 0..n {
        decoded.push((prompt.iter().sum::<u32>() + decoded.iter().sum::<u32>()) % VOCABULARY as u32);
    }
    (prompt.len() as u32..).zip(decoded.split_off(1)).collect()
}

/// Stages, and where the halves meet: on one phone, between two, and in the midst of one.
const SPLITS: [(usize, u32, u32, usize); 8] =
    [(1, 0, 0, 0), (2, 0, 1, 0), (2, 0, 0, 0), (2, 1, 1, 0), (3, 0, 0, 1), (4, 1, 1, 1), (5, 1, 2, 2), (5, 0, 1, 3)];

#[test]
fn every_split_says_the_same_and_the_encoders_output_skips_stages_once() {
    for (n_stages, last, first_decoder, n_skipped) in SPLITS {
        let mut ring = Ring::new(n_stages, encoder(last, first_decoder));
        ring.start(1, &[3, 1, 4, 1, 5, 9], &[], 100);
        ring.settle();
        assert_eq!(ring.tokens(1), expected(&[3, 1, 4, 1, 5, 9], 34), "{n_stages} stages, {last}, {first_decoder}");
        let Some(Frame::Token(end)) = ring.to_gateway.last() else { panic!("a token comes last") };
        assert_eq!((end.position, end.finish), (39, Some(Finish::Length)));
        assert_eq!((ring.n_skipped, ring.failures()), (n_skipped, vec![]));
    }
}

#[test]
fn two_sessions_say_what_each_says_alone() {
    for (n_stages, last, first_decoder, _) in SPLITS {
        let mut ring = Ring::new(n_stages, encoder(last, first_decoder));
        ring.start(1, &[1, 2, 3, 4, 5, 6, 7], &[], 100);
        ring.start(2, &[9], &[], 100);
        ring.settle();
        assert_eq!(ring.tokens(1), expected(&[1, 2, 3, 4, 5, 6, 7], 33));
        assert_eq!(ring.tokens(2), expected(&[9], 39));
    }
}

#[test]
fn a_replay_decodes_what_was_answered_and_goes_on() {
    for (n_stages, last, first_decoder, _) in SPLITS {
        let whole = expected(&[5, 6], 12);
        let answered: Vec<u32> = whole[..9].iter().map(|(_, token)| *token).collect();
        let mut ring = Ring::new(n_stages, encoder(last, first_decoder));
        ring.start(1, &[5, 6], &answered, 3);
        ring.settle();
        assert_eq!(ring.tokens(1), whole[9..], "{n_stages} stages, {last}, {first_decoder}");
    }
}

#[test]
fn credit_comes_to_where_decoding_begins() {
    let mut ring = Ring::new(5, encoder(1, 2));
    ring.start(1, &[1, 1], &[], 3);
    ring.settle();
    assert_eq!(ring.tokens(1).len(), 3);
    ring.gateway_sends(Frame::Credit { key: key(1, 0), steps: 2 });
    ring.settle();
    assert_eq!(ring.tokens(1), expected(&[1, 1], 5));
    ring.gateway_sends(Frame::Close { key: key(1, 0) });
    ring.settle();
    assert!(ring.stages.iter().all(|stage| stage.decoding().n_sessions() == 0));
}

#[test]
fn what_an_encoder_puts_out_waits_for_its_session() {
    let (mut stage, now) = (stage(4, 5, encoder(1, 2)), Instant::now());
    assert_eq!(stage.accept(rows(HiddenKind::Encoded, 0, &[1.0, 2.0]), Source::Encoder, now), []);
    assert_eq!(stage.accept(rows(HiddenKind::Encoded, 2, &[3.0]), Source::Encoder, now), []);
    assert!(!stage.has_work());
    stage.accept(open(1, 3), Source::Previous, now);
    let Some(Work::Encoder(job)) = stage.next_work(now) else { panic!("the output is to be taken") };
    assert_eq!((job.n_rows, job.step), (3, EncoderStep::TakeEncoded(vec![1.0, 2.0, 3.0])));
}

#[test]
fn what_came_for_a_session_that_ended_or_of_another_ring_is_not_kept() {
    let (mut stage, now) = (stage(4, 5, encoder(1, 2)), Instant::now());
    stage.accept(rows(HiddenKind::Encoded, 0, &[1.0]), Source::Encoder, now);
    stage.accept(Frame::Close { key: key(1, 0) }, Source::Previous, now);
    let Frame::Hidden(hidden) = rows(HiddenKind::Encoded, 0, &[1.0]) else { unreachable!() };
    let foreign = RouteKey { generation: PlanGeneration(9), ..hidden.key };
    let effects = stage.accept(Frame::Hidden(Hidden { key: foreign, ..hidden }), Source::Encoder, now);
    assert!(matches!(&effects[..], [Effect::Fail { reason: Reason::Stale { .. }, .. }]), "{effects:?}");
    stage.accept(open(1, 1), Source::Previous, now);
    assert!(!stage.has_work(), "neither the ended session's nor the other ring's");
}

#[test]
fn rows_of_decoding_wait_for_the_encoders_output() {
    let (mut stage, now) = (stage(4, 5, encoder(1, 2)), Instant::now());
    stage.accept(open(1, 2), Source::Previous, now);
    assert_eq!(stage.accept(rows(HiddenKind::Decoding, 1, &[8.0]), Source::Previous, now), []);
    assert!(!stage.has_work() && stage.next_work(now).is_none());
    stage.accept(rows(HiddenKind::Encoded, 0, &[1.0, 2.0]), Source::Encoder, now);
    let Some(Work::Encoder(job)) = stage.next_work(now) else { panic!("the output comes first") };
    assert!(stage.next_work(now).is_none(), "it is not taken yet");
    stage.taken(job.key);
    let Some(Work::Decode { batch, n_encoded }) = stage.next_work(now) else { panic!("now the row") };
    assert_eq!((batch.step.rows[0].position, &n_encoded[..]), (0, &[2][..]));
}

#[test]
fn prompts_of_others_and_rows_of_decoding_take_turns() {
    let (mut stage, now) = (stage(1, 2, encoder(0, 1)), Instant::now());
    stage.accept(open(1, 1), Source::Previous, now);
    stage.accept(rows(HiddenKind::Encoded, 0, &[1.0]), Source::Previous, now);
    let Some(Work::Encoder(first)) = stage.next_work(now) else { panic!("the output is to be taken") };
    stage.taken(first.key);
    let prompt = Prompt { key: key(1, 0), position: 0, tokens: vec![START], credit: 9 };
    stage.accept(Frame::Prompt(prompt), Source::Previous, now);
    stage.accept(open(2, 1), Source::Previous, now);
    let Frame::Hidden(hidden) = rows(HiddenKind::Encoded, 0, &[1.0]) else { unreachable!() };
    stage.accept(Frame::Hidden(Hidden { key: key(2, 0), ..hidden }), Source::Previous, now);
    assert!(matches!(stage.next_work(now), Some(Work::Decode { .. })));
    assert!(matches!(stage.next_work(now), Some(Work::Encoder(_))));
}

#[test]
fn a_long_prompt_travels_in_pieces_and_is_one_again() {
    let hidden_size = 4096;
    let wide = |stage: usize| stage_with(StageShape { hidden_size, ..shape(stage, 3) }, encoder(0, 1));
    let (mut from, mut to, now) = (wide(0), wide(2), Instant::now());
    let prompt = Prompt { key: key(1, 0), position: 0, tokens: vec![1; 40], credit: 1 };
    let opened = Frame::Open { key: key(1, 0), options: options(40, 60) };
    from.accept(opened.clone(), Source::Host, now);
    from.accept(Frame::Prompt(prompt), Source::Host, now);
    to.accept(opened, Source::Previous, now);
    let Some(Work::Encoder(job)) = from.next_work(now) else { panic!("the prompt is to be encoded") };
    let values: Vec<f32> = (0..40 * hidden_size).map(|at| at as f32).collect();
    let mut pieces = Vec::new();
    for effect in from.encoded(job.key, values.clone()) {
        let Effect::Skip { to: 2, frame } = effect else { continue };
        let Frame::Hidden(hidden) = &frame else { panic!("hidden states") };
        pieces.push((hidden.position, hidden.n_tokens));
        assert_eq!(to.accept(frame, Source::Encoder, now), []);
    }
    assert_eq!(pieces, [(0, 16), (16, 16), (32, 8)]);
    let Some(Work::Encoder(job)) = to.next_work(now) else { panic!("the output is to be taken") };
    assert_eq!(job.step, EncoderStep::TakeEncoded(values));
}

#[test]
fn rows_of_a_prompt_out_of_order_or_too_many_end_the_session() {
    for (position, values) in [(1, &[1.0][..]), (0, &[1.0, 2.0, 3.0]), (0, &[])] {
        let (mut stage, now) = (stage(2, 3, encoder(1, 2)), Instant::now());
        stage.accept(open(1, 2), Source::Previous, now);
        let effects = stage.accept(rows(HiddenKind::Encoded, position, values), Source::Previous, now);
        let failed = matches!(&effects[..], [Effect::Fail { reason: Reason::Rows { .. }, .. }]);
        assert!(failed, "{position}, {values:?}: {effects:?}");
        assert_eq!(stage.decoding().n_sessions(), 0);
    }
}

#[test]
fn a_gateway_that_does_not_tell_the_prompt_apart_is_refused_and_so_is_a_second_prompt() {
    let mut ring = Ring::new(2, encoder(0, 1));
    ring.gateway_sends(Frame::Open { key: key(1, 0), options: options(0, 40) });
    ring.gateway_sends(Frame::Open { key: key(2, 0), options: options(40, 40) });
    assert_eq!(ring.failures(), [FailureCode::BadFrame, FailureCode::BadFrame]);
    ring.failed.clear();
    ring.start(3, &[1, 2], &[], 1);
    let again = Prompt { key: key(3, 0), position: 2, tokens: vec![5], credit: 1 };
    ring.gateway_sends(Frame::Prompt(again));
    assert_eq!(ring.failures(), [FailureCode::BadFrame]);
    ring.failed.clear();
    ring.gateway_sends(Frame::Open { key: key(4, 0), options: options(3, 40) });
    ring.gateway_sends(Frame::Prompt(Prompt { key: key(4, 0), position: 0, tokens: vec![1, 2], credit: 1 }));
    assert_eq!(ring.failures(), [FailureCode::BadFrame], "shorter than it was said to be");
}

#[test]
fn a_session_neither_leaves_nor_joins_and_is_told_so() {
    let mut ring = Ring::new(2, encoder(0, 1));
    let resume =
        Resume { key: key(1, 1), position: 5, options: options(2, 40), from: PlanGeneration(1), from_epoch: Epoch(0) };
    ring.gateway_sends(Frame::Resume(resume));
    ring.start(2, &[1, 2], &[], 1);
    ring.gateway_sends(Frame::Pause { key: key(2, 0) });
    ring.settle();
    assert_eq!(ring.failures(), [FailureCode::HandOver, FailureCode::HandOver]);
    assert!(ring.stages.iter().all(|stage| stage.decoding().n_sessions() == 0));
}

#[test]
fn frames_come_from_where_the_graph_says_and_from_nowhere_else() {
    let now = Instant::now();
    let table = [
        (4, HiddenKind::Encoded, Source::Previous),
        (2, HiddenKind::Encoded, Source::Encoder),
        (1, HiddenKind::Encoded, Source::Previous),
        (3, HiddenKind::Encoding, Source::Previous),
        (0, HiddenKind::Encoding, Source::Tail),
        (1, HiddenKind::Decoding, Source::Previous),
        (2, HiddenKind::Decoding, Source::Previous),
    ];
    for (at, kind, source) in table {
        let mut stage = stage(at, 5, encoder(1, 2));
        let source_of_sessions = if at == 0 { Source::Host } else { Source::Previous };
        stage.accept(open(1, 1), source_of_sessions, now);
        assert_eq!(stage.accept(rows(kind, 0, &[1.0]), source, now), [], "stage {at}, {kind:?}");
        assert!(!stage.has_work() && stage.decoding().n_sessions() == 1, "stage {at}, {kind:?} from {source:?}");
    }
}

#[test]
fn sessions_decode_in_as_many_groups_as_stages_decode_whatever_the_plan_says() {
    for (n_stages, first_decoder, session_groups, expected) in [(3, 1, 0, 2), (3, 1, 4, 2), (4, 2, 1, 2), (1, 0, 5, 1)]
    {
        let encoder = encoder(u32::saturating_sub(first_decoder, 1), first_decoder);
        let shape = StageShape { encoder: Some(encoder), session_groups, ..shape(0, n_stages) };
        assert_eq!(shape.n_decoding_groups(), expected, "{n_stages} stages, decoding from {first_decoder}");
    }
}

#[test]
fn an_encoders_output_that_is_no_number_ends_the_session_by_name() {
    let (mut stage, now) = (stage(1, 3, encoder(1, 2)), Instant::now());
    stage.accept(open(1, 2), Source::Previous, now);
    let effects = stage.encoded(key(1, 0), vec![1.0, f32::NAN]);
    let layers = LayerRange { from: 1, to: 2 };
    let reason = Reason::NonFinite { layers, of: Numbers::EncoderOutput };
    assert_eq!(effects, [Effect::Fail { key: key(1, 0), reason }, Effect::Next(Frame::Close { key: key(1, 0) })]);
    assert_eq!(stage.decoding().n_sessions(), 0);
}
