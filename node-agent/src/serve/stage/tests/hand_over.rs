//! A session stops on one ring and goes on on another.

use polyphony_protocol::frame::Resume;

use super::*;

fn resume(session: u64, position: u32) -> Resume {
    let key = RouteKey { epoch: Epoch(7), ..key(session, 0) };
    Resume { key, position, options: options(60), from: PlanGeneration(1), from_epoch: Epoch(6) }
}

fn old(session: u64) -> RouteKey {
    RouteKey { generation: PlanGeneration(1), epoch: Epoch(6), ..key(session, 0) }
}

fn paused(ring: &Ring) -> Vec<u32> {
    let position = |frame: &Frame| if let Frame::Paused { position, .. } = frame { Some(*position) } else { None };
    ring.to_gateway.iter().filter_map(position).collect()
}

#[test]
fn a_head_stops_when_the_step_in_flight_is_done_and_says_so_once() {
    for n_stages in 1..=3 {
        let mut ring = Ring::new(n_stages);
        ring.start(1, &[3, 1], 60, 100);
        let now = ring.now;
        let batch = next(&mut ring.stages[0], now).unwrap();
        ring.gateway_sends(Frame::Pause { key: key(1, 0) });
        assert!(paused(&ring).is_empty(), "a token is on its way");
        ring.complete(0, batch);
        ring.settle();
        assert_eq!((paused(&ring), ring.tokens(1)), (vec![2], expected(&[3, 1], 1)), "{n_stages} stages");
        ring.gateway_sends(Frame::Credit { key: key(1, 0), steps: 5 });
        ring.settle();
        assert_eq!((paused(&ring), ring.tokens(1).len()), (vec![2], 1), "it stays where it is");
    }
}

#[test]
fn a_head_that_waits_for_credit_has_stopped_already() {
    let mut ring = Ring::new(2);
    ring.start(1, &[3, 1], 60, 3);
    ring.settle();
    ring.gateway_sends(Frame::Pause { key: key(1, 0) });
    assert_eq!(paused(&ring), [4]);
}

#[test]
fn a_prompt_is_computed_before_the_head_stops() {
    let mut ring = Ring::new(3);
    ring.start(1, &[1; 11], 60, 100);
    let now = ring.now;
    let batch = next(&mut ring.stages[0], now).unwrap();
    assert!(!batch.parts[0].sample, "a chunk of it");
    ring.gateway_sends(Frame::Pause { key: key(1, 0) });
    ring.complete(0, batch);
    ring.settle();
    assert_eq!((paused(&ring), ring.tokens(1).len()), (vec![11], 1));
}

#[test]
fn a_pause_of_a_session_that_is_not_here_is_refused() {
    let mut ring = Ring::new(2);
    ring.gateway_sends(Frame::Pause { key: key(1, 0) });
    assert_eq!(ring.failures(), [FailureCode::StaleGeneration]);
}

#[test]
fn a_stage_whose_segment_kept_all_goes_on_at_once_in_the_same_slot() {
    let now = Instant::now();
    let slots = Slots::new(2);
    assert_eq!(slots.take(), Some(0));
    let mut head = Stage::new(shape(0, 2), slots.clone());
    let kept = Kept { slot: 0, layers: LayerRange { from: 0, to: 3 } };
    let effects = head.resume(resume(1, 9), Some(kept), now);
    let key = resume(1, 9).key;
    let said = Frame::Resumed { key, stage: 0, position: 9 };
    assert_eq!(effects, [Effect::Next(Frame::Resume(resume(1, 9))), Effect::Host(said)]);
    assert_eq!(slots.n_held(), 1, "the slot is shared");
    // The last token is the next to be computed.
    head.accept(Frame::Prompt(Prompt { key, position: 9, tokens: vec![4], credit: 1 }), Source::Host, now);
    let batch = next(&mut head, now).unwrap();
    assert_eq!((batch.step.rows[0].slot, batch.step.rows[0].position, batch.step.rows.len()), (0, 9, 1));
    slots.give_back(0);
    assert_eq!(slots.n_held(), 1, "the old stage let go");
    head.accept(Frame::Close { key }, Source::Host, now);
    assert_eq!(slots.n_held(), 0);
}

#[test]
fn a_stage_pulls_what_it_lacks_and_takes_no_rows_before_it_has_come() {
    let now = Instant::now();
    let mut stage = stage_of(StageShape { layers: LayerRange { from: 2, to: 6 }, ..shape(1, 2) });
    let effects = stage.accept(Frame::Resume(resume(1, 9)), Source::Previous, now);
    let key = resume(1, 9).key;
    let layers = vec![LayerRange { from: 2, to: 6 }];
    assert_eq!(effects, [Effect::Pull(Pull { key, from: old(1), layers, n_positions: 9 })]);
    assert_eq!((stage.slot_to_fill(key), stage.kept(key, 9)), (Some(0), None));
    let hidden = Hidden {
        key,
        position: 9,
        n_tokens: 1,
        dtype: ActivationType::F32,
        kind: HiddenKind::Decoding,
        sample: true,
        payload: vec![0; 4].into(),
    };
    let mut early = stage_of(shape(1, 2));
    early.accept(Frame::Resume(resume(1, 9)), Source::Previous, now);
    let effects = early.accept(Frame::Hidden(hidden.clone()), Source::Previous, now);
    assert!(matches!(&effects[..], [Effect::Fail { reason: Reason::Rows { .. }, .. }]), "{effects:?}");
    assert_eq!(stage.kv_arrived(key, now), [Effect::Host(Frame::Resumed { key, stage: 1, position: 9 })]);
    assert_eq!(stage.slot_to_fill(key), None);
    assert_eq!(stage.accept(Frame::Hidden(hidden), Source::Previous, now), []);
    assert!(next(&mut stage, now).is_some());
}

#[test]
fn a_stage_that_cannot_have_the_kv_cache_says_why_and_frees_the_slot() {
    let now = Instant::now();
    let mut head = stage_of(shape(0, 2));
    head.accept(Frame::Resume(resume(1, 9)), Source::Host, now);
    let key = resume(1, 9).key;
    let effects = head.kv_failed(key, "phone-9 is gone");
    let reason = Reason::KvLost { cause: "phone-9 is gone".into() };
    assert!(reason.code() == FailureCode::HandOver && reason.code().is_retryable());
    assert_eq!(effects, [Effect::Fail { key, reason }, Effect::Next(Frame::Close { key })]);
    assert_eq!((head.n_sessions(), head.slots.n_held()), (0, 0));
    assert_eq!(head.kv_arrived(key, now), [], "what is late changes nothing");
}

#[test]
fn resumptions_that_cannot_be_are_refused() {
    let good = resume(1, 9);
    let table = [
        (Resume { position: 0, ..good.clone() }, FailureCode::BadFrame),
        (Resume { position: 60, ..good.clone() }, FailureCode::BadFrame),
        (Resume { from: PlanGeneration(2), ..good.clone() }, FailureCode::BadFrame),
        (Resume { from_epoch: Epoch(7), ..good.clone() }, FailureCode::BadFrame),
        (Resume { options: options(65), ..good.clone() }, FailureCode::BadFrame),
        (
            Resume { key: RouteKey { generation: PlanGeneration(9), ..good.key }, ..good.clone() },
            FailureCode::StaleGeneration,
        ),
    ];
    for (resume, code) in table {
        let mut ring = Ring::new(2);
        ring.gateway_sends(Frame::Resume(resume.clone()));
        assert_eq!(ring.failures(), [code], "{resume:?}");
        assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 0));
    }
    // From where it cannot come.
    let mut head = stage_of(shape(0, 2));
    assert_eq!(head.accept(Frame::Resume(good), Source::Previous, Instant::now()), []);
    assert_eq!(head.n_sessions(), 0);
}

#[test]
fn a_session_is_kept_for_its_own_key_and_for_what_is_computed() {
    let mut ring = Ring::new(2);
    ring.start(1, &[3, 1], 60, 3);
    ring.settle();
    let stage = &mut ring.stages[1];
    assert_eq!(stage.kept(key(1, 0), 4).map(|kept| kept.layers), Some(LayerRange { from: 1, to: 2 }));
    assert_eq!(stage.kept(key(1, 0), 5), None, "not computed");
    assert_eq!(stage.kept(key(1, 1), 4), None, "another epoch");
    stage.forget_before(key(1, 0));
    assert_eq!(stage.n_sessions(), 1);
    stage.forget_before(key(1, 1));
    assert_eq!((stage.n_sessions(), stage.slots.n_held()), (0, 0));
}
