//! Sessions go on or end in time: when the host dies, when a phone is slower than the one before it, when a plan is replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    let shelf = Arc::new(Shelf::planned("cpu", 2, "400Mi").unwrap());
    shelf.start().unwrap();
    let of_one_session = deployment("talk", "smollm2", 2, "f16", 512).replace("maxSessions: 2", "maxSessions: 1");
    shelf.apply(&format!("{}---\n{of_one_session}", model("smollm2", &path))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut pieces = gateway.stream("/v1/completions", &question(500)).await.unwrap();
    until_tokens(&mut pieces, 5).await;

    let before = shelf.endpoints().unwrap().pid;
    shelf.kill("controller").unwrap();
    let starting = tokio::task::spawn_blocking({
        let shelf = shelf.clone();
        move || shelf.start()
    });
    // From here on, though `up` itself still waits for its phones.
    let endpoints = wait_until("the control plane to listen", Duration::from_secs(30), || {
        Ok(shelf.endpoints().ok().filter(|endpoints| endpoints.pid != before))
    })
    .unwrap();
    let gateway = Gateway::new(&endpoints.gateway).unwrap();
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
    starting.await.unwrap().unwrap();
}

/// A session's rows in a step of a stage, as its phone's log tells.
struct Computed {
    session: String,
    /// Whether the stage drew the session's next token in this step.
    sample: bool,
}

/// Whose rows the steps in a piece of a log took, in order.
fn computed(log: &str) -> Vec<Computed> {
    let field = |line: &str, name: &str| line.split(name).nth(1)?.split_whitespace().next().map(str::to_owned);
    let told = log.lines().filter(|line| line.contains(": computed session="));
    told.map(|line| Computed {
        session: field(line, "session=").unwrap(),
        sample: field(line, "sample=").unwrap() == "true",
    })
    .collect()
}

/// The agent of a phone, in `/proc`.
fn agent_of(shelf: &Shelf, phone: &str) -> PathBuf {
    let folder = shelf.data_dir().to_string_lossy().into_owned();
    let is_agent = |process: &Path| {
        let Ok(command) = std::fs::read_to_string(process.join("cmdline")) else { return false };
        let words: Vec<&str> = command.split('\0').collect();
        let is_program = words.first().is_some_and(|program| program.ends_with("polyphony-agent"));
        is_program && words.contains(&phone) && command.contains(&folder)
    };
    let mut processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.find(|process| is_agent(process)).unwrap()
}

/// A figure of a process's memory, in bytes.
fn memory(process: &Path, figure: &str) -> u64 {
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// What the segments of a phone have declared, in bytes.
fn declared(shelf: &Shelf, phone: &str) -> u64 {
    let metrics = shelf.metrics(phone).unwrap();
    let declared = metrics.lines().find_map(|line| line.strip_prefix("polyphony_memory_reserved_bytes ")).unwrap();
    declared.parse::<f64>().unwrap() as u64
}

/// What an allocator keeps of what was given back, and what a log and a few connections take.
const SLACK: u64 = 16 << 20;

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
    let steps_are_told = [("RUST_LOG", "info,kube=warn,polyphony_agent::serve::worker=debug")];
    let shelf = Shelf::planned_lab(&file, &["--tolerance=100000"]).unwrap().with_environment(&steps_are_told);
    shelf.start().unwrap();
    let agents = ["a-head", "b-tail"].map(|phone| (phone, agent_of(&shelf, phone)));
    let idle = agents.clone().map(|(_, agent)| memory(&agent, "VmRSS:"));
    let talk = deployment("talk", "smollm2", 2, "f16", 2048);
    let talk = talk.replace("  placement:\n", "  placement:\n    strategy: MemoryProportional\n");
    shelf.apply(&format!("{}---\n{talk}", model("smollm2", &path))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let mut held: Vec<(String, u64)> = Vec::new();
    for placement in shelf.list("segmentplacements").unwrap() {
        let holds = &placement["spec"]["holds"];
        let n_layers = holds["to"].as_u64().unwrap() - holds["from"].as_u64().unwrap();
        held.push((placement["spec"]["phone"].as_str().unwrap().to_owned(), n_layers));
    }
    held.sort_unstable();
    assert_eq!(held, [("a-head".to_owned(), 2), ("b-tail".to_owned(), 28)]);
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();

    // From here on the most that they have; what a load takes for a moment is another matter.
    agents.iter().for_each(|(_, agent)| std::fs::write(agent.join("clear_refs"), "5").unwrap());
    let prompt: Vec<u32> = (0..2000).map(|n| 100 + n % 1000).collect();
    let long = json!({"model": "talk", "prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": true});
    let asked = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.post("/v1/completions", &long).await.unwrap() }
    });
    let n_chunks = || computed(&shelf.log("b-tail")).len();
    wait_until("the long prompt to be read", Duration::from_secs(60), || Ok((n_chunks() >= 4).then_some(()))).unwrap();
    let before = shelf.log("b-tail");
    let short = json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 1, "temperature": 0});
    let answer = timeout(Duration::from_secs(60), gateway.post("/v1/completions", &short)).await;
    let (status, answer) = answer.expect("the short prompt is answered").unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(!asked.is_finished(), "the long prompt is still being read");
    // What the tail had begun when the short one was asked counts, too.
    let long = computed(&before)[0].session.clone();
    let steps = computed(&shelf.log("b-tail")[before.len()..]);
    let token = steps.iter().position(|step| step.session != long && step.sample).unwrap();
    let between = steps[..token].iter().filter(|step| step.session == long).count();
    println!("{between} chunks of the long prompt before the short one's token");
    assert!(between <= 3, "the short prompt's token took {between} chunks");

    let answered = timeout(Duration::from_secs(120), asked).await;
    let (status, answer) = answered.expect("the long prompt is answered").unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(metric(&gateway, "polyphony_replays_total").await, 0.0);
    for ((phone, agent), idle) in agents.iter().zip(idle) {
        let (peak, declared) = (memory(agent, "VmHWM:"), declared(&shelf, phone));
        println!("{phone}: {} MiB idle, {} MiB declared, {} MiB at most", idle >> 20, declared >> 20, peak >> 20);
        assert!(peak <= idle + declared + SLACK, "{phone}: {idle} B idle, {declared} B declared, {peak} B at most");
    }
}

#[tokio::test]
async fn a_context_length_that_changes_in_the_middle_of_an_answer_leaves_nobody_waiting() {
    let Some(path) = real_model() else { return };
    // The first phone has room for the plan of before and the one that follows, the second for one at a time.
    for memory in ["400Mi", "180Mi"] {
        let shelf = Shelf::up(1, memory).unwrap();
        let manifest = |context_length| {
            format!("{}---\n{}", model("smollm2", &path), deployment("talk", "smollm2", 1, "f16", context_length))
        };
        shelf.apply(&manifest(512)).unwrap().ok().unwrap();
        shelf.wait_available("talk").unwrap();
        let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
        let mut pieces = gateway.stream("/v1/completions", &question(400)).await.unwrap();
        until_tokens(&mut pieces, 5).await;
        shelf.apply(&manifest(448)).unwrap().ok().unwrap();
        let (mut n_tokens, mut longest) = (5, Duration::ZERO);
        let has_failed = loop {
            let began = Instant::now();
            let next = timeout(Duration::from_secs(2), pieces.next()).await;
            let Some(piece) = next.expect("it goes on, or ends, within 2 s").unwrap() else { break false };
            longest = longest.max(began.elapsed());
            if piece.get("error").is_some() {
                break true;
            }
            n_tokens += piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
        };
        assert!(has_failed || n_tokens == 400, "{memory}: it ended without a word after {n_tokens} tokens");
        println!("{memory}: {n_tokens} tokens, an error: {has_failed}, a pause of {longest:?} at most");
        // The plan that took the change up was there before the answer was over.
        let newest = shelf.list("segmentplacements").unwrap();
        assert!(newest.iter().any(|placement| placement["spec"]["contextLength"] == 448), "{memory}: {newest:?}");
    }
}
