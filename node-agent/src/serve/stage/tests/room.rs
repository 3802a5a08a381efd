//! Stages of an encoder–decoder model, filled: they hold no more than a segment declares for them.

use std::path::Path;

use polyphony_model::{Hyperparameters, Manifest};
use polyphony_protocol::activation::encode_rows;
use polyphony_protocol::hub::EncoderStages;

use super::*;
use crate::serve::outlet::Outlet;

const CONTEXT: usize = 600;

fn model() -> Hyperparameters {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/t5.gguf");
    Manifest::build(&path).unwrap().hyperparameters
}

fn stage(stage: usize, n_stages: usize, n_slots: usize, model: &Hyperparameters) -> EncoderStage {
    let encoder = EncoderShape { start_token: 0, stages: EncoderStages { last: 0, first_decoder: 1 } };
    let capacity = Capacity { n_slots, n_positions: CONTEXT, max_rows: 32 };
    let hidden_size = model.hidden_size as usize;
    let shape = StageShape { encoder: Some(encoder), capacity, hidden_size, ..shape(stage, n_stages) };
    EncoderStage::new(shape, encoder, Slots::new(n_slots))
}

fn open(session: u64, n_prompt: usize) -> Frame {
    let options = SessionOptions { n_prompt: n_prompt as u32, ..options(CONTEXT as u32) };
    Frame::Open { key: key(session, 0), options }
}

fn rows(session: u64, n_rows: usize, hidden_size: usize) -> Frame {
    let (dtype, kind) = (ActivationType::F32, HiddenKind::Encoded);
    let payload = encode_rows(dtype, hidden_size, &vec![0.5; n_rows * hidden_size]);
    let n_tokens = n_rows as u32;
    Frame::Hidden(Hidden { key: key(session, 0), position: 0, n_tokens, dtype, kind, sample: false, payload })
}

/// Bytes of prompts of a stage that decodes, when every session waits with as much as it may and more has come early than is kept.
fn filled(n_slots: usize, model: &Hyperparameters) -> u64 {
    let (mut stage, now) = (stage(2, 3, n_slots, model), Instant::now());
    let hidden_size = model.hidden_size as usize;
    for session in 0..n_slots as u64 {
        assert_eq!(stage.accept(open(session, CONTEXT - 1), Source::Previous, now), []);
        // One of them has all and waits for its step, the others lack a row.
        let n_rows = CONTEXT - if session == 0 { 1 } else { 2 };
        assert_eq!(stage.accept(rows(session, n_rows, hidden_size), Source::Encoder, now), []);
    }
    for session in 0..3 * n_slots as u64 {
        assert_eq!(stage.accept(rows(100 + session, CONTEXT, hidden_size), Source::Encoder, now), []);
    }
    let (held, early) = stage.prompt_bytes();
    assert_eq!(held, n_slots * (CONTEXT - 1) * hidden_size * size_of::<f32>(), "room for all of each prompt");
    (held + early) as u64
}

#[test]
fn prompts_that_wait_and_those_that_come_early_take_no_more_than_each_session_declares() {
    let model = model();
    let declared = |n_slots| {
        let capacity = Capacity { n_slots, n_positions: CONTEXT, max_rows: 32 };
        model.waiting_bytes(capacity.room())
    };
    let (held, declared) = (filled(6, &model) - filled(3, &model), declared(6) - declared(3));
    assert!(held > 0 && held <= declared, "three sessions more hold {held} bytes and declare {declared}");
}

#[test]
fn sessions_that_come_and_go_never_fill_a_link_that_carries_nothing() {
    let (n_slots, model) = (2, model());
    let (mut stage, now) = (stage(0, 2, n_slots, &model), Instant::now());
    let limits = stage.decoding().shape().limits_out();
    let outlet = Outlet::new(limits);
    let mut link = outlet.connect();
    let out = |effects: Vec<Effect>| {
        for effect in effects {
            let Effect::Next(frame) = effect else { panic!("{effect:?}") };
            assert_eq!(outlet.send(frame), Ok(()));
        }
    };
    let begin = |stage: &mut EncoderStage, session: u64| {
        let mut effects = stage.accept(open(session, CONTEXT - 1), Source::Host, now);
        let prompt = Prompt { key: key(session, 0), position: 0, tokens: vec![1; CONTEXT - 1], credit: 1 };
        effects.extend(stage.accept(Frame::Prompt(prompt), Source::Host, now));
        let Some(Work::Encoder(job)) = stage.next_work(now) else { panic!("the prompt is to be encoded") };
        effects.extend(stage.encoded(job.key, vec![0.5; (CONTEXT - 1) * model.hidden_size as usize]));
        effects
    };
    for session in 0..10 {
        out(begin(&mut stage, session));
        out(stage.accept(Frame::Close { key: key(session, 0) }, Source::Host, now));
    }
    for session in 10..10 + n_slots as u64 {
        out(begin(&mut stage, session));
    }
    let mut n_bytes = 0;
    while let Some(frame) = link.waiting.try_next() {
        if let Frame::Hidden(hidden) = frame {
            n_bytes += hidden.payload.len();
        }
    }
    assert_eq!(n_bytes, n_slots * (CONTEXT - 1) * model.hidden_size as usize * size_of::<f32>(), "those that are open");
    let room = stage.decoding().shape().capacity.room();
    let declared = (room.chunk_rows() + room.prompt_rows().passing) * u64::from(model.hidden_size) * 4;
    assert!(n_bytes <= limits.bytes && limits.bytes as u64 <= declared, "{n_bytes}, {limits:?}, {declared} declared");
}
