//! What is said when the controller cannot start.
#![allow(clippy::unwrap_used)]

use polyphony_controller::Process;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::farm::flags;

async fn error_of(flags: polyphony_controller::Flags) -> String {
    let started = Process::start(flags, CancellationToken::new()).await;
    format!("{:#}", started.err().expect("it started"))
}

#[tokio::test]
async fn a_port_in_use_names_the_address_and_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut api = flags(folder.path());
    api.api_address = address;
    let mut hub = flags(folder.path());
    hub.hub_address = address;
    for (flags, flag) in [(api, "--api-address"), (hub, "--hub-address")] {
        let error = error_of(flags).await;
        assert!(error.contains(&address.to_string()) && error.contains(flag), "{error}");
    }
    assert!(!folder.path().join("endpoints.json").exists());
}

#[tokio::test]
async fn metrics_beyond_loopback_that_ask_nobody_who_he_is_do_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = flags(folder.path());
    flags.metrics_address = "0.0.0.0:0".parse().unwrap();
    let error = error_of(flags).await;
    assert!(error.contains("--metrics-token-file") && error.contains("--metrics-address"), "{error}");
}
