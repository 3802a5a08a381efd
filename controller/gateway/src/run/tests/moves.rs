//! How a session moves to the next generation of its ring.

use super::*;

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
