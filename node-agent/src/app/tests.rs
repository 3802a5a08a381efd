//! An app's agent from call to call, and hosts that are none.
#![allow(clippy::unwrap_used)]

mod names;

use polyphony_identity::{Authority, Clock, DEFAULT_DOMAIN, Digest, JoinToken, Lifetimes, Name, Signed};

use super::*;
use crate::data_dir::DataDir;
use crate::identity::Identity;

fn link_to(hub: &str) -> String {
    JoinLink { hub: hub.into(), token: JoinToken::generate(), ca_hash: Digest::of_spki(b"root") }.reveal()
}

/// The first status that `is_so`.
fn status_that(app: &App, is_so: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = app.status();
        if is_so(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The status once its agent has ended.
fn ended(app: &App) -> Status {
    status_that(app, |status| status.state == State::Stopped)
}

/// The board of the agent that runs.
fn board_of(app: &App) -> Arc<Board> {
    match &*app.lock() {
        Agent::Running(life, _) => life.board.clone(),
        _ => panic!("it does not run"),
    }
}

/// Waits until an agent has the folder, which none had before. It is not to be tried: the agent would find it taken.
fn until_taken(folder: &Path) {
    let begun = Instant::now();
    while !std::fs::read_to_string(folder.join("agent.lock")).is_ok_and(|pid| pid.ends_with('\n')) {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Puts into a folder what a phone has that joined a host at `hub`.
fn has_joined_at(folder: &Path, hub: &str) {
    let now = Clock::system().now();
    let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now).unwrap();
    let mut identity = Identity::open(folder).unwrap();
    let request = Signed::read(&identity.key().request().unwrap()).unwrap();
    let papers = authority.certify(&request, &Name::phone("phone", DEFAULT_DOMAIN), now).unwrap();
    identity.keep("phone", papers, now, None).unwrap();
    Membership { hub: hub.to_owned(), flags: [("name".to_owned(), "phone".to_owned())].into() }.write(folder).unwrap();
}

#[test]
fn a_text_that_is_no_link_starts_nothing_and_says_so() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    let error = app.start(folder.path(), "phone", Some("polyphony://desk:7700")).unwrap_err().to_string();
    assert!(error.contains("no whole join link"), "{error}");
    // The app asks before it ends an agent that works.
    assert_eq!(read_link("polyphony://desk:7700").unwrap_err().to_string(), error);
    let link = link_to("desk:0");
    let error = read_link(&link).unwrap_err().to_string();
    assert!(error.contains("no port"), "{error}");
    assert_eq!(app.start(folder.path(), "phone", Some(&link)).unwrap_err().to_string(), error);
    assert_eq!(read_link(&link_to("desk:7700")).unwrap().hub, "desk:7700");
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
fn who_has_joined_and_leaves_before_anybody_has_looked_has_joined() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    app.start(folder.path(), "phone", Some(&link_to(&silent.local_addr().unwrap().to_string()))).unwrap();
    board_of(&app).set_welcomed();
    app.stop(false);
    assert_eq!(app.status(), Status { has_joined: true, ..Status::stopped("") });
}

#[test]
fn an_agent_that_is_ending_is_told_from_one_that_has_ended() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link_to(&silent.local_addr().unwrap().to_string());
    let start = || app.start(folder.path(), "phone", Some(&link));
    let is_ending = |status: &Status| status.state == State::Ending;
    // It has something that its host is to move away, which takes until somebody wants it to end at once.
    start().unwrap();
    let board = board_of(&app);
    board.set_welcomed();
    board.add("default", "a");
    std::thread::scope(|scope| {
        let leaving = scope.spawn(|| app.stop(true));
        assert!(status_that(&app, is_ending).holds_segments);
        let also = scope.spawn(|| app.stop(true));
        assert!(matches!(start(), Err(StartError::Ends)), "it has the data folder still");
        assert!(!leaving.is_finished() && !also.is_finished());
        app.stop(false);
        assert_eq!(app.status(), Status { has_joined: true, ..Status::stopped("") });
        assert!(!app.told.borrow().leaving && !board.segments().is_empty());
    });
    // Whoever waits for its end finds its folder free.
    let folder = tempfile::tempdir().unwrap();
    app.start(folder.path(), "phone", Some(&link)).unwrap();
    let board = board_of(&app);
    until_taken(folder.path());
    board.set_welcomed();
    board.add("default", "a");
    std::thread::scope(|scope| {
        let stops: Vec<_> = (0..2).map(|_| scope.spawn(|| app.stop(true))).collect();
        status_that(&app, is_ending);
        board.remove("default", "a");
        for stop in stops {
            stop.join().unwrap();
            assert_eq!(app.status(), Status { has_joined: true, ..Status::stopped("") }, "whoever asked, it has ended");
            assert!(DataDir::take(folder.path()).is_ok());
        }
    });
}

#[test]
fn a_phone_that_waits_for_its_host_says_what_keeps_it() {
    let (app, folder) = (App::default(), tempfile::tempdir().unwrap());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    has_joined_at(folder.path(), &free.to_string());
    app.start(folder.path(), "phone", None).unwrap();
    let waiting = status_that(&app, |status| status.message.is_some());
    assert_eq!(waiting.state, State::Joining, "{waiting:?}");
    assert!(waiting.message.unwrap().contains(&format!("nothing listens at {free}")));
    app.stop(true);
    assert_eq!(app.status(), Status::stopped(""));
}

#[test]
fn what_an_app_tells_is_kept_until_it_tells_again() {
    let app = App::default();
    app.tell(r#"{ "paused": true, "batteryPercent": 50 }"#).unwrap();
    assert!(app.told.borrow().paused);
    app.tell("{}").unwrap();
    assert_eq!(*app.told.borrow(), Told::default());
    app.tell(r#"{ "paused": true, "batteryPercent": "much" }"#).unwrap();
    assert!(app.tell("[]").is_err());
    assert_eq!(*app.told.borrow(), Told { paused: true, ..Told::default() }, "what is no word changes nothing");
}
