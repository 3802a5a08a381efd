//! How a phone stays with its host: by links that lead elsewhere than the last one did, and through times without a host.

use std::path::{Path, PathBuf};
use std::time::Instant;

use polyphony_agent::app::{App, State, Status};
use polyphony_agent::join::membership::Membership;
use polyphony_identity::{JoinLink, JoinToken};

use crate::hub::{Hub, PATIENCE};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf")
}

/// Waits for something that is there some time.
async fn until<T>(what: &str, find: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn status_that(app: &App, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
    until(what, || Some(app.status()).filter(&is_so)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_address_of_a_host_that_was_joined_before_is_remembered() {
    let hub = Hub::open(&model()).await;
    hub.certify("pocket");
    let folder = hub.folder_of("pocket");
    let flags = [("name", "pocket"), ("backend", "cpu"), ("memory", "64Mi")];
    let flags: std::collections::BTreeMap<_, _> = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    // Where the host was once.
    Membership { hub: "127.0.0.1:1".into(), flags: flags.clone() }.write(&folder).unwrap();
    let app = App::default();
    let stop = || tokio::task::block_in_place(|| app.stop(false));
    let link = JoinLink { hub: hub.address(), token: JoinToken::generate(), ca_hash: hub.ca_hash() };
    app.start(&folder, "pocket", Some(&link.reveal())).unwrap();
    let joined = hub.take_in_again().await;
    let now = Membership { hub: hub.address(), flags };
    until("the address to be written", || Membership::read(&folder).ok().flatten().filter(|it| *it == now)).await;
    stop();
    drop(joined);
    app.start(&folder, "pocket", None).unwrap();
    let _joined = hub.take_in_again().await;
    status_that(&app, "it to be there again", |status| status.state == State::Idle && status.has_joined).await;
    stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_whose_host_is_lost_says_so_until_it_is_back() {
    let hub = Hub::open(&model()).await;
    hub.certify("pocket");
    let folder = hub.folder_of("pocket");
    let flags = [("name", "pocket"), ("backend", "cpu"), ("memory", "64Mi")];
    let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Membership { hub: hub.address(), flags }.write(&folder).unwrap();
    let app = App::default();
    app.start(&folder, "pocket", None).unwrap();
    let joined = hub.take_in_again().await;
    let there = status_that(&app, "it to be there", |status| status.state == State::Idle).await;
    assert_eq!(there.message, None);
    drop(joined);
    let away = status_that(&app, "it to be away", |status| status.state == State::Joining).await;
    let message = away.message.unwrap();
    assert!(message.contains(&format!("no link to the host at {}", hub.address())), "{message}");
    assert!(away.has_joined);
    let _joined = hub.rejoin().await;
    let there = status_that(&app, "it to be back", |status| status.state == State::Idle).await;
    assert_eq!(there.message, None);
    tokio::task::block_in_place(|| app.stop(false));
}
