//! Many at once: prompts far too long, and connections that say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::manifests::{deployment, tiny_model};

/// Above what the control plane takes at rest: 400 MB.
const MEMORY_BOUND_MIB: u64 = 400_000_000 >> 20;
/// Connections of a crowd that has nothing to say, and how long it stays.
const N_IDLE: usize = 2000;
/// So many are there at a time, whatever the gateway shows out.
const LEAST_IDLE: usize = 500;
const IDLE_FOR: Duration = Duration::from_secs(60);

/// A value of the controller's `/proc/PID/status`, in MiB.
fn memory_mib(shelf: &Shelf, name: &str) -> u64 {
    let pid = shelf.endpoints().unwrap().pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// A shelf whose one phone answers for `talk`.
fn answering() -> (Shelf, Gateway) {
    let shelf = Shelf::up(1, "64Mi").unwrap();
    shelf.apply(&format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 1, "f16", 128))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    (shelf, gateway)
}

/// The tokens of an answer, which comes soon whatever else goes on.
async fn answer(gateway: &Gateway) -> Value {
    let body = json!({
        "model": "talk", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0, "return_token_ids": true,
    });
    let answering = gateway.post("/v1/completions", &body);
    let answered = timeout(Duration::from_secs(10), answering).await;
    let (status, answer) = answered.expect("nobody waits for who is silent").unwrap();
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["token_ids"].clone()
}

/// Lets this process have so many files and connections open.
fn allow_descriptors(n: u64) {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < n) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(n), ..now }).expect("this user may have that many");
    }
}

/// Keeps a connection for ever: one that says nothing, or nothing more after it was answered once. Dialled anew when it is shown out.
async fn stay(address: SocketAddr, asks_once: bool, n_open: Arc<AtomicUsize>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            n_open.fetch_add(1, Ordering::Relaxed);
            if asks_once {
                let question = format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n");
                // Who was shown out before learns it when it reads.
                let _ = stream.write_all(question.as_bytes()).await;
            }
            while stream.read(&mut [0; 1024]).await.is_ok_and(|n_bytes| n_bytes > 0) {}
            n_open.fetch_sub(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn two_thousand_connections_that_stay_idle_for_a_minute_keep_nobody_from_an_answer() {
    let (shelf, gateway) = answering();
    let before = answer(&gateway).await;
    // Not sooner: what the control plane may have is its own matter.
    allow_descriptors(N_IDLE as u64 + 500);
    let address: SocketAddr = shelf.endpoints().unwrap().gateway.trim_start_matches("http://").parse().unwrap();
    let (mut idle, n_open, mut most) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)), 0);
    for n in 0..N_IDLE {
        idle.spawn(stay(address, n % 2 == 0, n_open.clone()));
    }
    let (began, mut n_answers) = (Instant::now(), 0);
    while began.elapsed() < IDLE_FOR {
        assert_eq!(answer(&gateway).await, before);
        assert!(!shelf.list("phones").unwrap().is_empty(), "the API, too, answers as before");
        n_answers += 1;
        most = most.max(n_open.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(most > LEAST_IDLE, "{most} connections at a time");
    println!("{n_answers} answers beside {most} idle connections at most");
    drop(idle);
    assert_eq!(answer(&gateway).await, before);
}

#[tokio::test]
async fn prompts_of_megabytes_at_once_are_answered_or_refused_within_bounded_memory() {
    let (shelf, gateway) = answering();
    let before = answer(&gateway).await;
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
        let (status, text) = timeout(Duration::from_secs(120), one).await.expect("every one is answered").unwrap();
        assert!([400, 503].contains(&status) && text.contains("\"error\""), "{status}: {text}");
    }
    let peak = memory_mib(&shelf, "VmHWM");
    println!("{at_rest} MiB at rest, {peak} MiB at most");
    assert!(peak < at_rest + MEMORY_BOUND_MIB, "{at_rest} MiB at rest, {peak} MiB at most");
    assert_eq!(answer(&gateway).await, before);
}
