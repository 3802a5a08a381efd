//! Many at once: prompts far too long, and connections that say nothing.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, tiny_model};

/// Above what the control plane takes at rest.
const MEMORY_BOUND_MIB: u64 = 400;

/// A value of the controller's `/proc/PID/status`, in MiB.
fn memory_mib(shelf: &Shelf, name: &str) -> u64 {
    let endpoints = std::fs::read(shelf.data_dir().join("endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_slice(&endpoints).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", endpoints["pid"])).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

async fn answers(gateway: &Gateway) {
    let body = json!({"model": "talk", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0});
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_crowd_keeps_nobody_waiting_and_takes_no_more_memory_than_there_is_for_it() {
    let shelf = Shelf::up(1, "64Mi").unwrap();
    shelf.apply(&format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 1, "f16", 128))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let endpoints = shelf.endpoints().unwrap();
    let gateway = Gateway::new(&endpoints.gateway).unwrap();
    answers(&gateway).await;

    // More than the port has places, and none says anything.
    let address: SocketAddr = endpoints.gateway.trim_start_matches("http://").parse().unwrap();
    let silent: Vec<TcpStream> = (0..600).map(|_| TcpStream::connect(address).unwrap()).collect();
    tokio::time::timeout(Duration::from_secs(10), answers(&gateway)).await.expect("nobody waits for who is silent");
    assert!(!shelf.list("phones").unwrap().is_empty(), "nor at the API");
    drop(silent);

    let at_rest = memory_mib(&shelf, "VmRSS");
    let long = "the quick brown fox jumps over the lazy dog ".repeat(90_000);
    let ids = vec![5; 1_900_000];
    let bodies = [
        json!({"model": "talk", "prompt": long}).to_string(),
        json!({"model": "talk", "prompt": ids}).to_string(),
        json!({"model": "talk", "messages": [{"role": "user", "content": long}]}).to_string(),
        // Brackets, which take many times their bytes.
        format!("{{\"model\": \"talk\", \"prompt\": [{}]}}", vec!["[5]"; 950_000].join(",")),
    ];
    assert!(bodies.iter().all(|body| (3 << 20..4 << 20).contains(&body.len())));
    let crowd = (0..64).map(|n| {
        let (gateway, body) = (gateway.clone(), bodies[n % bodies.len()].clone());
        let path = ["/v1/completions", "/v1/completions", "/v1/chat/completions", "/v1/completions"][n % bodies.len()];
        tokio::spawn(async move { gateway.post_text(path, &body).await.unwrap() })
    });
    for one in crowd.collect::<Vec<_>>() {
        let (status, text) = one.await.unwrap();
        assert!([400, 503].contains(&status) && text.contains("\"error\""), "{status}: {text}");
    }
    let peak = memory_mib(&shelf, "VmHWM");
    assert!(peak < at_rest + MEMORY_BOUND_MIB, "{at_rest} MiB at rest, {peak} MiB at most");
    answers(&gateway).await;
}
