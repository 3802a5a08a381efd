//! An app's agent from call to call, and hosts that are none.
#![allow(clippy::unwrap_used)]

use polyphony_identity::{Digest, JoinToken};

use super::*;

fn link_to(hub: &str) -> String {
    JoinLink { hub: hub.into(), token: JoinToken::generate(), ca_hash: Digest::of_spki(b"root") }.reveal()
}

/// The status once its agent has ended.
fn ended(app: &App) -> Status {
    let begun = Instant::now();
    loop {
        let status = app.status();
        if status.state == State::Stopped {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn a_text_that_is_no_link_starts_nothing_and_says_so() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    let error = app.start(folder.path(), "phone", Some("polyphony://desk:7700")).unwrap_err().to_string();
    assert!(error.contains("no whole join link"), "{error}");
    assert_eq!(app.status(), Status::stopped(""));
}

#[test]
fn an_agent_that_cannot_join_says_why_and_may_be_started_again() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    // Nobody listens there: what was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for _ in 0..2 {
        app.start(folder.path(), "phone", Some(&link_to(&free.to_string()))).unwrap();
        let message = ended(&app).message.unwrap();
        assert!(message.contains(&format!("nothing listens at {free}")), "{message}");
    }
    app.start(folder.path(), "phone", None).unwrap();
    let message = ended(&app).message.unwrap();
    assert!(message.contains("join token"), "a phone that joined nobody: {message}");
}

#[test]
fn an_agent_ends_when_it_is_asked_to_whatever_it_does() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link_to(&silent.local_addr().unwrap().to_string());
    app.start(folder.path(), "phone", Some(&link)).unwrap();
    assert!(matches!(app.start(folder.path(), "phone", Some(&link)), Err(StartError::Runs)));
    assert_eq!(app.status().state, State::Joining);
    for leaves in [true, false] {
        app.stop(leaves);
        assert_eq!(app.status(), Status::stopped(""));
    }
}

#[test]
fn what_an_app_tells_is_kept_until_it_tells_again() {
    let app = App::default();
    app.tell(r#"{ "paused": true, "batteryPercent": 50 }"#).unwrap();
    assert!(app.told.borrow().paused);
    app.tell("{}").unwrap();
    assert_eq!(*app.told.borrow(), Told::default());
    assert!(app.tell("[").is_err() && app.tell(r#"{ "batteryPercent": "much" }"#).is_err());
}
