//! What each event leads to, as tables.

#![allow(clippy::unwrap_used)]

use polyphony_model::Tokenizer;
use polyphony_protocol::session::SessionOptions;
use polyphony_protocol::{PlanGeneration, RingId, SessionId};

use super::*;
use crate::model_text::ModelText;

const SECOND: Duration = Duration::from_secs(1);

/// A run, what it listens to, and the time.
struct Scene {
    run: Run,
    tokenizer: Arc<Tokenizer>,
    keys: Vec<RouteKey>,
    now: Instant,
}

fn ring(generation: u32, class: &str) -> RingRoute {
    RingRoute {
        ring: RingId(1),
        replica: 0,
        generation: PlanGeneration(generation),
        phones: vec![format!("head-{generation}"), format!("tail-{generation}")],
        numerics_class: class.to_owned(),
        follows: None,
        moves_sessions: true,
    }
}

fn place(generation: u32) -> Event {
    Event::Placed { ring: ring(generation, "f32"), context_length: 100, n_sessions: 1 }
}

fn wanted(generation: u32) -> Event {
    Event::Wanted(Some(ring(generation, "f32")))
}

impl Scene {
    /// A prompt of three tokens, a window of four steps, and a stop string.
    fn new(stop: &str) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/golden/tiny/llama_q8_0.gguf");
        let tokenizer = Arc::new(Tokenizer::open(std::path::Path::new(path)).unwrap());
        let text = ModelText { tokenizer: tokenizer.clone(), template: None };
        let options = SessionOptions {
            sampling: Default::default(),
            end_position: 100,
            end_tokens: vec![0],
            top_logprobs: 0,
            n_prompt: 3,
            logprobs: false,
            history: Default::default(),
        };
        let config = GatewayConfig {
            first_token_deadline: 60 * SECOND,
            prefill_allowance: Duration::ZERO,
            inter_token_deadline: 30 * SECOND,
            hand_over_deadline: 10 * SECOND,
            client_deadline: 120 * SECOND,
            max_replays: 1,
            ..Default::default()
        };
        let session = Session::new(SessionId(1), vec![1, 2, 3], options, 4);
        let stops = if stop.is_empty() { Vec::new() } else { vec![stop.to_owned()] };
        let run = Run::new("m".into(), session, AnswerText::new(&text, stops), Arc::new(config));
        Self { run, tokenizer, keys: Vec::new(), now: Instant::now() }
    }

    /// What follows, a word each; what is only logged is left out.
    fn next(&mut self, event: Event) -> Vec<String> {
        let effects = self.run.next(event, self.now);
        for effect in &effects {
            if let Effect::Hear { key, .. } | Effect::HearResumed { key, .. } = effect {
                self.keys.push(*key);
            }
        }
        effects.iter().filter_map(word).collect()
    }

    fn key(&self) -> RouteKey {
        *self.keys.last().unwrap()
    }

    /// The next token of the answer, which `text` is.
    fn token(&self, text: &str) -> Event {
        let [token] = self.tokenizer.encode(text, false).unwrap()[..] else { panic!("{text:?} is not one token") };
        self.token_id(token)
    }

    fn token_id(&self, token: u32) -> Event {
        let position = self.run.position();
        let token = Token { key: self.key(), position, token, finish: None, logprob: 0.0, top: vec![] };
        Event::Token { token, at: self.now }
    }

    fn failed(&self, code: FailureCode) -> Event {
        let failure = Failure::Stage { phone: "tail".into(), code, message: "told to".into() };
        Event::Failed { key: self.key(), failure }
    }

    /// Ends when the run's own deadline has come.
    fn late(&mut self) -> Vec<String> {
        self.now = self.run.deadline().expect("there is a deadline");
        self.next(Event::Late)
    }

    /// The same scene after these events.
    fn after(mut self, events: impl IntoIterator<Item = fn(&Scene) -> Event>) -> Self {
        for event in events {
            let event = event(&self);
            self.next(event);
        }
        self
    }
}

fn word(effect: &Effect) -> Option<String> {
    let of_frame = |frame: &Frame| match frame {
        Frame::Open { .. } => "open".to_owned(),
        Frame::Prompt(prompt) => format!("prompt from {} for {}", prompt.position, prompt.credit),
        Frame::Credit { steps, .. } => format!("credit {steps}"),
        Frame::Pause { .. } => "pause".to_owned(),
        Frame::Resume(resume) => format!("resume at {}", resume.position),
        Frame::Close { .. } => "close".to_owned(),
        other => panic!("{other:?}"),
    };
    Some(match effect {
        Effect::Hear { key, .. } => format!("hear {}", key.generation.0),
        Effect::HearResumed { key, .. } => format!("hear {} resumed", key.generation.0),
        Effect::Send { phone, frame } | Effect::Tell { phone, frame } => format!("{phone}: {}", of_frame(frame)),
        Effect::Claim(ring) => format!("claim {}", ring.generation.0),
        Effect::GoOver => "go over".into(),
        Effect::Leave => "leave".into(),
        Effect::Suspect(_) => "suspect".into(),
        Effect::Seek { .. } => "seek".into(),
        Effect::Say(Output::Piece(piece)) => format!("say {:?}", piece.text),
        Effect::Say(Output::End(end)) => format!("end {} {:?}", end.reason.as_str(), end.text),
        Effect::Say(Output::Failed(error)) => format!("fail {}", error.code.unwrap()),
        Effect::Forget => "forget".into(),
        Effect::Unsound(_) => "unsound".into(),
        Effect::Note(Note::Ignored) => "ignored".into(),
        Effect::Note(Note::MoveFailed) => "move failed".into(),
        Effect::Note(_) => return None,
    })
}

fn on_ring() -> Scene {
    Scene::new("").after([(|_| place(1)) as fn(&Scene) -> Event])
}

/// Asked to move to generation 2, with its head stopped and all that it sampled here.
fn moving() -> Scene {
    on_ring().after([
        (|scene| scene.token("a")) as fn(&Scene) -> Event,
        |_| wanted(2),
        |scene| Event::Paused { key: scene.key(), position: 3 },
    ])
}

#[test]
fn an_answer_goes_from_its_place_to_its_end() {
    let mut scene = Scene::new("");
    type Step<'a> = (&'a str, fn(&Scene) -> Event, &'a [&'a str]);
    let table: [Step<'_>; 8] = [
        ("a place", |_| place(1), &["hear 1", "head-1: open", "head-1: prompt from 0 for 4"]),
        ("a token", |scene| scene.token("a"), &["say \"a\""]),
        ("a reader that took it, and half of the window is not used up", |_| Event::Taken, &[]),
        ("another", |scene| scene.token("b"), &["say \"b\""]),
        ("and its reader", |_| Event::Taken, &["head-1: credit 2"]),
        (
            "a failure of an older epoch",
            |scene| {
                let Event::Failed { key, failure } = scene.failed(FailureCode::Compute) else { unreachable!() };
                Event::Failed { key: RouteKey { epoch: polyphony_protocol::Epoch(key.epoch.0 - 1), ..key }, failure }
            },
            &[],
        ),
        ("the end", |scene| scene.token_id(0), &["say \"\"", "head-1: close", "leave", "end stop \"\""]),
        ("and after it", |_| Event::Closing, &[]),
    ];
    for (what, event, expected) in table {
        let event = event(&scene);
        assert_eq!(scene.next(event), expected, "{what}");
    }
    assert!(scene.run.is_over());
}

#[test]
fn what_ends_a_run_leaves_every_ring_and_says_why() {
    type Case<'a> = (&'a str, fn() -> Scene, fn(&mut Scene) -> Vec<String>, &'a [&'a str]);
    let table: [Case<'_>; 9] = [
        (
            "no place",
            || Scene::new(""),
            |scene| scene.next(Event::NotPlaced(ApiError::closing(SECOND))),
            &["leave", "fail shutting_down"],
        ),
        (
            "the program ends",
            on_ring,
            |scene| scene.next(Event::Closing),
            &["head-1: close", "leave", "fail shutting_down"],
        ),
        ("the client went away", on_ring, |scene| scene.next(Event::Unwanted), &["head-1: close", "leave", "forget"]),
        (
            "the client went away in a move",
            moving,
            |scene| scene.next(Event::Unwanted),
            &["head-1: close", "head-2: close", "leave", "forget"],
        ),
        (
            "a refusal",
            on_ring,
            |scene| {
                let failed = scene.failed(FailureCode::BadFrame);
                scene.next(failed)
            },
            &["head-1: close", "leave", "leave", "fail session_refused"],
        ),
        (
            "numbers that are none",
            on_ring,
            |scene| {
                let failed = scene.failed(FailureCode::NonFinite);
                scene.next(failed)
            },
            &["head-1: close", "leave", "unsound", "leave", "fail model_unsound"],
        ),
        (
            "a context that is full already",
            || {
                on_ring()
                    .after([(|scene| scene.token("a")) as fn(&Scene) -> Event, |scene| scene.failed(FailureCode::Busy)])
            },
            |scene| scene.next(Event::Placed { ring: ring(2, "f32"), context_length: 4, n_sessions: 1 }),
            &["leave", "end length \"\""],
        ),
        (
            "a client that does not read",
            || on_ring().after([(|scene| scene.token("a")) as fn(&Scene) -> Event]),
            |scene| {
                // The ring owes a token, too, and sooner.
                scene.now += 25 * SECOND;
                let second = scene.token("b");
                scene.next(second);
                scene.now += 25 * SECOND;
                let third = scene.token("c");
                scene.next(third);
                scene.now += 25 * SECOND;
                let fourth = scene.token("d");
                scene.next(fourth);
                scene.late()
            },
            &["forget", "head-1: close", "leave", "fail client_too_slow"],
        ),
        (
            "and its last word, neither",
            || on_ring().after([(|_| Event::Closing) as fn(&Scene) -> Event]),
            Scene::late,
            &["forget"],
        ),
    ];
    for (what, scene, event, expected) in table {
        let mut scene = scene();
        assert_eq!(event(&mut scene), expected, "{what}");
        assert!(scene.run.is_over(), "{what}");
    }
}

#[test]
fn whatever_fails_is_replayed_and_only_what_is_at_fault_is_suspected() {
    type Case<'a> = (&'a str, fn() -> Scene, fn(&mut Scene) -> Vec<String>, &'a [&'a str]);
    let table: [Case<'_>; 8] = [
        (
            "a stage",
            on_ring,
            |scene| {
                let failed = scene.failed(FailureCode::Compute);
                scene.next(failed)
            },
            &["suspect", "head-1: close", "leave", "seek"],
        ),
        (
            "a stage that is full",
            on_ring,
            |scene| {
                let failed = scene.failed(FailureCode::Busy);
                scene.next(failed)
            },
            &["head-1: close", "leave", "seek"],
        ),
        (
            "a frame that did not go out",
            on_ring,
            |scene| scene.next(Event::Unsent(crate::routes::Unsent::Full("head-1".into()))),
            &["head-1: close", "leave", "seek"],
        ),
        ("silence", on_ring, Scene::late, &["suspect", "head-1: close", "leave", "seek"]),
        (
            "a head that does not stop",
            || {
                on_ring().after([
                    (|scene| scene.token("a")) as fn(&Scene) -> Event,
                    |_| Event::Taken,
                    |scene| scene.token("b"),
                    |scene| scene.token("c"),
                    |scene| scene.token("d"),
                    |_| wanted(2),
                ])
            },
            Scene::late,
            &["move failed", "head-1: close", "leave", "seek"],
        ),
        (
            "a ring that does not take over",
            moving,
            Scene::late,
            &["move failed", "head-1: close", "head-2: close", "leave", "seek"],
        ),
        (
            "a stage of the next ring",
            moving,
            |scene| {
                let failed = scene.failed(FailureCode::HandOver);
                scene.next(failed)
            },
            &["move failed", "head-1: close", "head-2: close", "leave", "seek"],
        ),
        (
            "a next generation of other bits",
            on_ring,
            |scene| scene.next(Event::Wanted(Some(ring(2, "int8")))),
            &["head-1: close", "leave", "seek"],
        ),
    ];
    for (what, scene, event, expected) in table {
        let mut scene = scene();
        assert_eq!(event(&mut scene), expected, "{what}");
        assert!(!scene.run.is_over(), "{what}");
    }
}

#[test]
fn a_session_moves_at_a_token_boundary() {
    let mut scene = on_ring();
    type Step<'a> = (&'a str, fn(&Scene) -> Event, &'a [&'a str]);
    let table: [Step<'_>; 8] = [
        ("another generation is wanted", |_| wanted(2), &["head-1: pause"]),
        ("it is still wanted", |_| wanted(2), &[]),
        ("a token that was on its way", |scene| scene.token("a"), &["say \"a\""]),
        ("the reader took it, which is no credit now", |_| Event::Taken, &[]),
        (
            "the head has stopped, and its last token is not here",
            |scene| Event::Paused { key: scene.key(), position: 4 },
            &[],
        ),
        ("now it is", |scene| scene.token("b"), &["say \"b\"", "claim 2", "hear 2 resumed", "head-2: resume at 4"]),
        (
            "the next ring has it",
            |scene| Event::Resumed { key: scene.key() },
            &["head-1: close", "go over", "head-2: prompt from 4 for 3"],
        ),
        ("it goes on there", |scene| scene.token("c"), &["say \"c\""]),
    ];
    for (what, event, expected) in table {
        let event = event(&scene);
        assert_eq!(scene.next(event), expected, "{what}");
    }
}

#[test]
fn a_move_that_is_no_longer_wanted_becomes_a_replay() {
    let mut scene = on_ring();
    scene.next(wanted(2));
    scene.next(Event::Wanted(None));
    let token = scene.token("a");
    scene.next(token);
    let paused = Event::Paused { key: scene.key(), position: 3 };
    assert_eq!(scene.next(paused), ["move failed", "head-1: close", "leave", "seek"]);
}

#[test]
fn a_client_that_does_not_read_holds_up_no_move() {
    let mut scene = on_ring();
    for text in ["a", "b", "c", "d"] {
        let token = scene.token(text);
        scene.next(token);
    }
    // Nothing of it is taken.
    assert_eq!(scene.next(wanted(2)), ["head-1: pause"]);
    let paused = Event::Paused { key: scene.key(), position: 6 };
    assert_eq!(scene.next(paused), ["claim 2", "hear 2 resumed", "head-2: resume at 6"]);
    let resumed = Event::Resumed { key: scene.key() };
    assert_eq!(
        scene.next(resumed).last().unwrap(),
        "head-2: prompt from 6 for 1",
        "one step, for one is always to come"
    );
}

#[test]
fn text_that_was_held_back_is_not_lost_where_a_replay_meets_a_shorter_context() {
    let mut scene = Scene::new("abx");
    scene.next(place(1));
    for text in ["a", "b"] {
        let token = scene.token(text);
        assert_eq!(scene.next(token), ["say \"\""], "it may be the start of the stop string");
    }
    let failed = scene.failed(FailureCode::Busy);
    scene.next(failed);
    let shorter = Event::Placed { ring: ring(2, "f32"), context_length: 5, n_sessions: 1 };
    assert_eq!(scene.next(shorter), ["leave", "end length \"ab\""]);
}

#[test]
fn replays_that_bring_nothing_are_counted_and_given_up() {
    let mut scene = on_ring();
    let failed = scene.failed(FailureCode::Busy);
    assert_eq!(scene.next(failed).last().unwrap(), "seek");
    assert_eq!(scene.next(place(1)), ["hear 1", "head-1: open", "head-1: prompt from 0 for 4"]);
    let failed = scene.failed(FailureCode::Busy);
    assert_eq!(scene.next(failed).last().unwrap(), "fail session_lost");
}
