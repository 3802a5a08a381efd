//! Sessions go on or end in time: when the host dies, when a phone is slower than the one before it, when a plan is replaced.

use std::path::Path;
use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, real_model, wait_until};
use polyphony_e2e::stream::{Gateway, Pieces};
use polyphony_farm::NamespaceFarm;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::manifests::{deployment, model};
use crate::moves::metric;

/// Reads on until the answer has so many tokens.
async fn until_tokens(pieces: &mut Pieces, n_tokens: usize) {
    let mut tokens = 0;
    while tokens < n_tokens {
        let piece = pieces.next().await.unwrap().expect("the answer is longer");
        assert!(piece.get("error").is_none(), "{piece}");
        tokens += piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
    }
}

fn question(max_tokens: usize) -> Value {
    json!({
        "model": "talk", "prompt": "Once upon a time", "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true, "stream": true,
    })
}

#[tokio::test]
async fn a_control_plane_that_dies_in_the_only_stream_leaves_room_for_the_next_one() {
    let Some(path) = real_model() else { return };
    let shelf = Shelf::planned("cpu", 2, "400Mi").unwrap();
    shelf.start().unwrap();
    let of_one_session = deployment("talk", "smollm2", 2, "f16", 512).replace("maxSessions: 2", "maxSessions: 1");
    shelf.apply(&format!("{}---\n{of_one_session}", model("smollm2", &path))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut pieces = gateway.stream("/v1/completions", &question(500)).await.unwrap();
    until_tokens(&mut pieces, 5).await;

    shelf.kill("controller").unwrap();
    shelf.start().unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let first_token = async {
        // Until its phones are back the deployment is not there to be asked.
        let mut pieces = loop {
            match gateway.stream("/v1/completions", &question(5)).await {
                Ok(pieces) => break pieces,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        until_tokens(&mut pieces, 1).await;
    };
    timeout(Duration::from_secs(5), first_token).await.expect("a new answer begins within 5 s");
    assert_eq!(metric(&gateway, "polyphony_replays_total").await, 0.0);
}

/// Steps of prompts that a phone has computed.
fn chunks(shelf: &Shelf, phone: &str) -> f64 {
    let metrics = shelf.metrics(phone).unwrap();
    let is_count = |line: &&str| line.starts_with("polyphony_segment_step_seconds_count") && line.contains("prefill");
    let line = metrics.lines().find(is_count).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The most memory that the agent of a phone has ever had, and what its segment has declared, in bytes.
fn peak_and_declared(shelf: &Shelf, phone: &str) -> (u64, u64) {
    let folder = shelf.data_dir().to_string_lossy().into_owned();
    let is_agent = |process: &Path| {
        let Ok(command) = std::fs::read_to_string(process.join("cmdline")) else { return false };
        let words: Vec<&str> = command.split('\0').collect();
        let is_program = words.first().is_some_and(|program| program.ends_with("polyphony-agent"));
        is_program && words.contains(&phone) && command.contains(&folder)
    };
    let mut processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let agent = processes.find(|process| is_agent(process)).unwrap();
    let status = std::fs::read_to_string(agent.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    let metrics = shelf.metrics(phone).unwrap();
    let declared = metrics.lines().find_map(|line| line.strip_prefix("polyphony_memory_reserved_bytes ")).unwrap();
    (peak << 10, declared.parse::<f64>().unwrap() as u64)
}

/// What an agent has for itself besides its segments, as labs count it.
const OF_ITSELF: u64 = 96 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ten_times_as_slow_as_its_head_reads_long_prompts_in_time_and_short_ones_between() {
    let Some(path) = real_model() else { return };
    if let Some(why) = NamespaceFarm::obstacle() {
        polyphony_skip::skipped(why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.yaml");
    // By their memory the first one gets 2 layers of 30 and the second one 28: 3 and 31 layers a whole core.
    let phones = "phones:\n- {name: a-head, profile: flagship, cpu: 0.65, link: good-wifi, memory: 96Mi}\n- \
                  {name: b-tail, profile: flagship, cpu: 0.9, link: good-wifi, memory: 1600Mi}\n";
    std::fs::write(&file, phones).unwrap();
    let shelf = Shelf::lab(&file, &["--tolerance=100000"]).unwrap();
    let talk = deployment("talk", "smollm2", 2, "f16", 2048);
    let talk = talk.replace("  placement:\n", "  placement:\n    strategy: MemoryProportional\n");
    shelf.apply(&format!("{}---\n{talk}", model("smollm2", &path))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    assert_eq!(shelf.phones_of("talk").unwrap(), ["a-head", "b-tail"]);
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();

    let prompt: Vec<u32> = (0..2000).map(|n| 100 + n % 1000).collect();
    let long = json!({"model": "talk", "prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": true});
    let asked = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.post("/v1/completions", &long).await.unwrap() }
    });
    wait_until("the long prompt to be read", Duration::from_secs(60), || {
        Ok((chunks(&shelf, "b-tail") >= 4.0).then_some(()))
    })
    .unwrap();
    let before = chunks(&shelf, "b-tail");
    let short = json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 1, "temperature": 0});
    let (status, answer) = gateway.post("/v1/completions", &short).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let between = chunks(&shelf, "b-tail") - before;
    assert!(!asked.is_finished(), "the long prompt is still being read");
    // Three, and what was computed while the two looks were taken: one at most each.
    assert!(between <= 5.0, "the short prompt's token took {between} chunks");

    let (status, answer) = asked.await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(metric(&gateway, "polyphony_replays_total").await, 0.0);
    for phone in ["a-head", "b-tail"] {
        let (peak, declared) = peak_and_declared(&shelf, phone);
        println!("{phone}: {} MiB at most, {} MiB declared", peak >> 20, declared >> 20);
        assert!(peak <= declared + OF_ITSELF, "{phone} took {peak} bytes, its segment declares {declared}");
    }
}

#[tokio::test]
async fn a_context_length_that_changes_in_the_middle_of_an_answer_leaves_nobody_waiting() {
    let Some(path) = real_model() else { return };
    let shelf = Shelf::up(1, "400Mi").unwrap();
    let manifest = |context_length| {
        format!("{}---\n{}", model("smollm2", &path), deployment("talk", "smollm2", 1, "f16", context_length))
    };
    shelf.apply(&manifest(512)).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut pieces = gateway.stream("/v1/completions", &question(300)).await.unwrap();
    until_tokens(&mut pieces, 5).await;
    shelf.apply(&manifest(448)).unwrap().ok().unwrap();
    let mut n_tokens = 5;
    loop {
        let next = timeout(Duration::from_secs(2), pieces.next()).await;
        let Some(piece) = next.expect("it goes on, or ends, within 2 s").unwrap() else { break };
        if piece.get("error").is_some() {
            return;
        }
        n_tokens += piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(n_tokens, 300);
}
