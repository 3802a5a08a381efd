//! The session's moves, one by one.

#![allow(clippy::unwrap_used)]

use polyphony_protocol::session::Sampling;

use super::*;

const RING: RingId = RingId(7);
const GENERATION: PlanGeneration = PlanGeneration(3);

fn options(end_position: u32) -> SessionOptions {
    SessionOptions {
        sampling: Default::default(),
        end_position,
        end_tokens: vec![99],
        top_logprobs: 0,
        n_prompt: 3,
        logprobs: false,
        history: Default::default(),
    }
}

fn session(end_position: u32) -> Session {
    Session::new(SessionId(1), vec![1, 2, 3], options(end_position), 4)
}

/// The session on a ring, with the frames that put it there.
fn placed(session: &mut Session) -> (RouteKey, [Frame; 2]) {
    let key = session.next_key(RING, GENERATION);
    (key, session.open(key, 0))
}

fn token(key: RouteKey, position: u32, token: u32) -> Token {
    Token { key, position, token, finish: None, logprob: 0.0, top: vec![] }
}

#[test]
fn a_placement_opens_the_session_and_sends_the_prompt_with_the_first_credit() {
    let (key, frames) = placed(&mut session(20));
    let prompt = Prompt { key, position: 0, tokens: vec![1, 2, 3], credit: 4 };
    assert_eq!(frames, [Frame::Open { key, options: options(20) }, Frame::Prompt(prompt)]);
}

#[test]
fn penalties_know_the_prompt_from_the_answer_wherever_the_session_opens() {
    let sampling = Sampling { repetition_penalty: 1.5, ..Default::default() };
    let options = SessionOptions { sampling: sampling.clone(), ..options(20) };
    let mut session = Session::new(SessionId(1), vec![1, 2, 1], options.clone(), 4);
    let history = |frame: &Frame| match frame {
        Frame::Open { options, .. } => options.history.clone(),
        other => panic!("{other:?}"),
    };
    let (key, [open, _]) = placed(&mut session);
    assert_eq!(history(&open), History::new(&sampling, &[1, 2, 1], &[]));
    session.take(&token(key, 3, 2));
    session.take(&token(key, 4, 2));
    let (_, [open, prompt]) = placed(&mut session);
    assert_eq!(history(&open), History::new(&sampling, &[1, 2], &[2, 2]));
    assert_ne!(history(&open), History::new(&sampling, &[1, 2, 2, 2], &[]));
    assert!(matches!(prompt, Frame::Prompt(Prompt { tokens, .. }) if tokens == [1, 2, 1, 2, 2]));
}

#[test]
fn no_credit_goes_beyond_the_end_of_the_answer() {
    let mut session = session(5);
    let (key, [_, prompt]) = placed(&mut session);
    assert!(matches!(prompt, Frame::Prompt(Prompt { credit: 2, .. })));
    session.take(&token(key, 3, 10));
    assert_eq!(session.read(key, 0), None);
}

#[test]
fn credit_is_granted_again_as_the_client_reads_and_never_more_than_the_window_ahead() {
    let mut session = session(1000);
    let (key, _) = placed(&mut session);
    let mut granted = 4;
    for n in 0..100 {
        assert_eq!(session.take(&token(key, 3 + n, 10)), Arrival::Next(None));
        if let Some(Frame::Credit { steps, .. }) = session.read(key, 0) {
            granted += steps;
        }
        let ahead = granted - (n + 1);
        assert!((1..=4).contains(&ahead), "{ahead} steps ahead after {n}");
    }
}

#[test]
fn tokens_are_taken_once_and_in_order_and_each_ring_gets_them_all() {
    let mut session = session(20);
    let (old, _) = placed(&mut session);
    assert_eq!(session.take(&token(old, 3, 10)), Arrival::Next(None));
    assert_eq!(session.take(&token(old, 3, 11)), Arrival::Ignored, "repeated");
    assert!(matches!(session.take(&token(old, 5, 12)), Arrival::Wrong(_)), "a gap");
    let (new, [_, prompt]) = placed(&mut session);
    assert_eq!(new.epoch, Epoch(old.epoch.0 + 1));
    assert_eq!(prompt, Frame::Prompt(Prompt { key: new, position: 0, tokens: vec![1, 2, 3, 10], credit: 4 }));
    assert_eq!(session.take(&token(new, 4, 14)), Arrival::Next(None));
    assert_eq!(session.tokens, [1, 2, 3, 10, 14]);
}

#[test]
fn a_ring_that_runs_past_its_credit_is_wrong() {
    let mut session = session(1000);
    let (key, _) = placed(&mut session);
    for position in 3..7 {
        assert_eq!(session.take(&token(key, position, 10)), Arrival::Next(None));
    }
    assert!(!session.has_credit());
    assert!(matches!(session.take(&token(key, 7, 10)), Arrival::Wrong(_)));
}

#[test]
fn an_answer_ends_by_an_end_token_by_the_tail_or_by_its_length() {
    let mut by_token = session(20);
    let (key, _) = placed(&mut by_token);
    assert_eq!(by_token.take(&token(key, 3, 99)), Arrival::Next(Some(Finish::Stop)));
    assert_eq!(by_token.take(&token(key, 4, 10)), Arrival::Ignored, "after the end");
    assert_eq!(by_token.read(key, 0), None);

    let mut by_tail = session(20);
    let (key, _) = placed(&mut by_tail);
    let last = Token { finish: Some(Finish::Stop), ..token(key, 3, 10) };
    assert_eq!(by_tail.take(&last), Arrival::Next(Some(Finish::Stop)));

    let mut by_length = session(4);
    let (key, _) = placed(&mut by_length);
    assert_eq!(by_length.take(&token(key, 3, 10)), Arrival::Next(Some(Finish::Length)));
}

#[test]
fn only_replays_without_a_token_between_are_counted() {
    let mut session = session(20);
    placed(&mut session);
    assert_eq!(session.fail(2), AfterFailure::Replay { n_fruitless: 1 });
    let (key, _) = placed(&mut session);
    session.take(&token(key, 3, 10));
    assert_eq!(session.fail(2), AfterFailure::Replay { n_fruitless: 1 });
    assert_eq!(session.fail(2), AfterFailure::Replay { n_fruitless: 2 });
    assert_eq!(session.fail(2), AfterFailure::GiveUp { n_fruitless: 2 });
}

#[test]
fn what_the_client_has_not_read_gets_no_credit() {
    let mut session = session(1000);
    let (key, _) = placed(&mut session);
    for position in 3..7 {
        session.take(&token(key, position, 10));
        assert_eq!(session.read(key, position - 2), None, "nothing of it is read");
    }
    assert_eq!(session.read(key, 3), None, "less than half of the window");
    assert_eq!(session.read(key, 2), Some(Frame::Credit { key, steps: 2 }));
    assert_eq!(session.read(key, 0), Some(Frame::Credit { key, steps: 2 }));
}
