//! Sessions end: by whoever is gone, by numbers that are none, by tokens that are not there. Every slot is free after, and who can be told is.

use super::*;

#[test]
fn a_stage_that_is_released_tells_the_gateway_of_each_session() {
    let mut ring = Ring::new(1);
    ring.start(1, &[1], 60, 1);
    ring.start(2, &[2], 60, 1);
    ring.settle();
    let effects = ring.stages[0].release();
    ring.carry(0, effects);
    ring.failed.sort_by_key(|(key, _)| key.session);
    let reason = Reason::Released { generation: PlanGeneration(2) };
    assert_eq!(reason.code(), FailureCode::StaleGeneration);
    assert_eq!(ring.failed, [(key(1, 0), reason.clone()), (key(2, 0), reason)]);
    assert_eq!((ring.stages[0].n_sessions(), ring.stages[0].slots.n_held()), (0, 0));
}

#[test]
fn a_stage_whose_host_link_ended_frees_all_sessions_here_and_behind_it() {
    for at in 0..3 {
        let mut ring = Ring::new(3);
        ring.start(1, &[1, 2], 60, 9);
        ring.start(2, &[3], 60, 1);
        ring.settle();
        ring.to_gateway.clear();
        let effects = ring.stages[at].host_lost();
        ring.carry(at, effects);
        assert!(ring.failed.is_empty() && ring.to_gateway.is_empty(), "there is nobody to tell");
        for stage in &ring.stages[at..] {
            assert_eq!((stage.n_sessions(), stage.slots.n_held()), (0, 0));
        }
        // The gateway of old, or a new one, finds a slot at once.
        (0..at).for_each(|before| drop(ring.stages[before].host_lost()));
        ring.start(3, &[5], 9, 9);
        ring.settle();
        assert_eq!((ring.tokens(3), ring.failures()), (expected(&[5], 8), vec![]));
    }
}

#[test]
fn an_end_is_passed_on_by_who_does_not_know_the_session_any_more() {
    let mut ring = Ring::new(3);
    ring.start(1, &[1], 60, 1);
    // The head alone has lost it.
    ring.stages[0].forget(SessionId(1));
    ring.gateway_sends(Frame::Close { key: key(1, 0) });
    assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 0));
}

#[test]
fn an_end_of_another_plan_or_an_older_epoch_ends_nothing() {
    let mut ring = Ring::new(2);
    ring.gateway_sends(Frame::Open { key: key(1, 5), options: options(60) });
    let current = key(1, 5);
    for other in [
        RouteKey { ring: RingId(6), ..current },
        RouteKey { generation: PlanGeneration(3), epoch: Epoch(9), ..current },
        RouteKey { epoch: Epoch(4), ..current },
    ] {
        ring.gateway_sends(Frame::Close { key: other });
        assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 1), "{other:?}");
    }
    ring.gateway_sends(Frame::Close { key: current });
    assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 0));
}

/// Two sessions with a step in common, of which the first gets `broken` for a value.
fn with_a_broken_value(at: usize, broken: f32) -> Ring {
    let mut ring = Ring::new(2);
    let capacity = wide(0, 1).shape.capacity;
    for (stage, it) in ring.stages.iter_mut().enumerate() {
        *it = stage_of(StageShape { capacity, session_groups: 1, ..shape(stage, 2) });
    }
    ring.start(1, &[1, 2], 60, 1);
    ring.start(2, &[3, 4], 60, 1);
    if at == 1 {
        let batch = next(&mut ring.stages[0], ring.now).unwrap();
        ring.complete(0, batch);
    }
    let batch = next(&mut ring.stages[at], ring.now).unwrap();
    assert_eq!(sessions_of(&batch), [1, 2]);
    let output = match at {
        0 => Output::Hidden(vec![1.0, broken, 3.0, 4.0]),
        _ => Output::Logits([vec![broken; 1], vec![0.0; 2 * VOCABULARY - 1]].concat()),
    };
    let effects = ring.stages[at].complete(&batch.parts, &output, ring.now);
    ring.carry(at, effects);
    ring
}

#[test]
fn numbers_that_are_none_end_their_session_by_name_and_no_other() {
    for (at, of) in [(0, Numbers::HiddenStates), (1, Numbers::Logits)] {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut ring = with_a_broken_value(at, broken);
            let reason = Reason::NonFinite { layers: LayerRange { from: at as u32, to: at as u32 + 1 }, of };
            assert!(!reason.code().is_retryable(), "another phone would get the same");
            assert_eq!(ring.failed, [(key(1, 0), reason)], "{broken} from stage {at}");
            ring.settle();
            assert_eq!((ring.tokens(1).len(), ring.tokens(2).len()), (0, 1));
        }
    }
}

#[test]
fn a_token_beyond_the_embedding_is_refused_before_any_step() {
    let mut ring = Ring::new(2);
    ring.start(1, &[3, VOCABULARY as u32, 5], 60, 1);
    ring.start(2, &[4], 60, 1);
    let reason = Reason::UnknownToken { token: VOCABULARY as u32, n_rows: VOCABULARY as u32 };
    assert!(!reason.code().is_retryable());
    assert_eq!(ring.failed, [(key(1, 0), reason)]);
    ring.settle();
    assert_eq!(ring.tokens(2), expected(&[4], 1), "nobody else is disturbed");
    // One that the tail drew: its output matrix has more rows than the embedding.
    let now = ring.now;
    let token = Token { key: key(2, 0), position: 2, token: 99, finish: None, logprob: 0.0, top: Vec::new() };
    let mut head = stage_of(shape(0, 2));
    head.accept(Frame::Open { key: key(2, 0), options: options(60) }, Source::Host, now);
    let prompt = Prompt { key: key(2, 0), position: 0, tokens: vec![1, 2], credit: 5 };
    head.accept(Frame::Prompt(prompt), Source::Host, now);
    next(&mut head, now).unwrap();
    let effects = head.accept(Frame::Token(token), Source::Tail, now);
    assert!(matches!(&effects[0], Effect::Fail { reason: Reason::UnknownToken { token: 99, .. }, .. }), "{effects:?}");
}

#[test]
fn a_plan_and_a_segment_that_do_not_fit_fail_the_step_and_nothing_else() {
    let mut ring = Ring::new(2);
    ring.start(1, &[1], 60, 1);
    let batch = next(&mut ring.stages[0], ring.now).unwrap();
    let effects = ring.stages[0].complete(&batch.parts, &Output::Logits(vec![0.0; VOCABULARY]), ring.now);
    ring.carry(0, effects);
    assert_eq!(ring.failures(), [FailureCode::Compute]);
    assert!(ring.stages.iter().all(|stage| stage.n_sessions() == 0));
}

#[test]
fn a_session_of_which_nothing_is_heard_is_forgotten_in_time() {
    let (mut stage, now) = (stage_of(shape(1, 2)), Instant::now());
    assert_eq!(stage.poll_timeout(), None);
    stage.accept(Frame::Open { key: key(1, 0), options: options(60) }, Source::Previous, now);
    let due = stage.poll_timeout().unwrap();
    assert_eq!(due, now + Duration::from_secs(100));
    assert_eq!(stage.handle_timeout(due - Duration::from_millis(1)), []);
    let reason = Reason::Idle { deadline: Duration::from_secs(100) };
    assert_eq!(stage.handle_timeout(due), [Effect::Fail { key: key(1, 0), reason }]);
    assert_eq!(stage.poll_timeout(), None);
}
