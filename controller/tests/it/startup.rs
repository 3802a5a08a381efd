//! What is said when the controller cannot start.
#![allow(clippy::unwrap_used)]

use polyphony_controller::door::client_keys;
use polyphony_controller::{Flags, Process, kubeconfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::farm::flags;

async fn error_of(flags: Flags) -> String {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_beyond_loopback_that_nobody_has_a_key_for_does_not_start_unless_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Flags { gateway_address: "0.0.0.0:0".parse().unwrap(), ..flags(folder.path()) };
    let error = error_of(open()).await;
    for word in ["--gateway-address", "polyctl key create", "--await-keys", "--no-auth"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let starts = async |flags: Flags| {
        let stop = CancellationToken::new();
        let process = Process::start(flags, stop.clone()).await.map_err(|error| format!("{error:#}"))?;
        stop.cancel();
        process.run().await.map_err(|error| format!("{error:#}"))
    };
    assert_eq!(starts(Flags { await_keys: true, ..open() }).await, Ok(()));
    assert_eq!(starts(Flags { no_auth: true, ..open() }).await, Ok(()));
    // With a key there is somebody who can ask.
    let stop = CancellationToken::new();
    let process = Process::start(Flags { await_keys: true, ..open() }, stop.clone()).await.unwrap();
    let (client, _) = kubeconfig::client(&folder.path().join("kubeconfig")).await.unwrap();
    let terms = client_keys::Terms { name: "app".into(), ..client_keys::Terms::default() };
    client_keys::create(&client, &terms).await.unwrap();
    stop.cancel();
    process.run().await.unwrap();
    assert_eq!(starts(open()).await, Ok(()));
}
