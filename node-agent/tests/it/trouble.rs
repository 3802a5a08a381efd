//! What goes wrong on a phone: a damaged cache, a death in a load, a log that takes nothing, a host of another version.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use polyphony_agent::told::Told;
use polyphony_protocol::hub::{self, Assignment, Peer, SegmentPhase, ToHub};
use polyphony_protocol::version::{self, ProtocolVersion};
use polyphony_protocol::{ActivationType, Frame, PlanGeneration, RingId};
use polyphony_wire::LinkError;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use crate::exposition::value;
use crate::hub::{Hub, Joined, PATIENCE};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf")
}

/// The whole model on one phone.
fn whole(hub: &Hub, agent: &Joined) -> Assignment {
    Assignment {
        namespace: "default".into(),
        name: "chat-0".into(),
        ring: RingId(1),
        generation: PlanGeneration(1),
        plan_digest: String::new(),
        stage: 0,
        holds: hub::Holds { embedding: true, from: 0, to: hub.model.manifest.hyperparameters.n_layers, head: true },
        peers: vec![Peer {
            stage: 0,
            phone: agent.join.phone.clone(),
            ways: vec![polyphony_protocol::hub::Way::direct(agent.join.ring_address.clone())],
            key: hub.key_of(&agent.join.phone),
            layers: None,
        }],
        manifest_digest: hub.model.digest.clone(),
        context_length: 64,
        max_sessions: 1,
        session_groups: 0,
        activation_type: ActivationType::F16,
        numerics_class: format!("{}/f16", agent.join.numerics),
        standby: None,
        follows: None,
        successors: Vec::new(),
        encoder: None,
    }
}

/// Waits for a heartbeat whose segments are `so`.
async fn until_segments(agent: &mut Joined, so: impl Fn(&[hub::SegmentReport]) -> bool) {
    agent
        .until(|frame| match frame {
            Frame::ToHub(ToHub::Heartbeat(heartbeat)) => so(&heartbeat.segments).then_some(()),
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_is_mended_within_one_load() {
    let hub = Hub::open(&model()).await;
    let mut agent = hub.join("phone-1").await;
    let segment = whole(&hub, &agent);
    agent.assign(vec![segment.clone()]).await;
    agent.until_ready(1).await;
    agent.assign(vec![]).await;
    until_segments(&mut agent, <[_]>::is_empty).await;
    let weights = hub.folder_of("phone-1").join("weights");
    let mut n_damaged = 0;
    for entry in std::fs::read_dir(&weights).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        n_damaged += 1;
    }
    assert!(n_damaged > 3, "{n_damaged} tensors and the manifest");
    agent.assign(vec![segment]).await;
    // Fails at a segment that has failed.
    agent.until_ready(1).await;
    let fetched = value(&agent.scrape().await, "polyphony_weights_fetched_bytes_total", &[]);
    let all: u64 = hub.model.manifest.tensors.iter().map(|tensor| tensor.n_bytes).sum();
    assert_eq!(fetched, Some(2.0 * all as f64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_is_short_of_memory_breaks_its_load_off_and_offers_less() {
    let hub = Hub::open(&model()).await;
    let (app, told) = watch::channel(Told::default());
    hub.start_told("phone-1", told);
    let mut agent = hub.take_in(version::CURRENT).await;
    let segment = whole(&hub, &agent);
    agent.assign(vec![segment.clone()]).await;
    agent.until_ready(1).await;
    let reserved = |text: &str| value(text, "polyphony_memory_reserved_bytes", &[]);
    let held = reserved(&agent.scrape().await).unwrap();
    agent.assign(vec![]).await;
    agent.scrape_until("the memory to be given back", |text| reserved(text) == Some(0.0)).await;
    // The next load has its memory, and waits for a tensor that does not come.
    for entry in std::fs::read_dir(hub.folder_of("phone-1").join("weights")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| !name.to_string_lossy().contains(&hub.model.digest)) {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    hub.model.keeps_tensors.store(true, Ordering::Relaxed);
    agent.assign(vec![segment]).await;
    agent.scrape_until("the memory to be taken", |text| reserved(text) == Some(held)).await;
    app.send_modify(|told| (told.available_bytes, told.low_memory_bytes) = (Some(1), Some(1000)));
    let is_let_go = |text: &str| reserved(text) == Some(0.0);
    let text = agent.scrape_until("the load to be broken off", is_let_go).await;
    let offered = value(&text, "polyphony_memory_allocatable_bytes", &[]);
    assert_eq!(offered, Some((held * 0.75).floor()));
    until_offer(&mut agent, offered.map(|bytes| bytes as u64)).await;
}

/// Waits for a heartbeat that offers so much memory.
async fn until_offer(agent: &mut Joined, bytes: Option<u64>) {
    agent
        .until(|frame| match frame {
            Frame::ToHub(ToHub::Heartbeat(heartbeat)) => (heartbeat.allocatable_bytes == bytes).then_some(()),
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_a_load_is_reported_as_a_failed_load_and_then_tried_again() {
    let hub = Hub::open(&model()).await;
    let folder = hub.folder_of("phone-1");
    std::fs::create_dir_all(&folder).unwrap();
    let mark = serde_json::json!({"neededBytes": 1, "nLoading": 1, "nDeaths": 0, "isDue": false});
    let marks = serde_json::json!({ hub.model.digest.clone(): mark });
    std::fs::write(folder.join("loads.json"), marks.to_string()).unwrap();
    let mut agent = hub.join("phone-1").await;
    let segment = whole(&hub, &agent);
    agent.assign(vec![segment]).await;
    until_segments(&mut agent, |segments| {
        let failed = segments.iter().find(|segment| segment.phase == SegmentPhase::Failed);
        let message = failed.and_then(|segment| segment.message.as_deref()).unwrap_or_default();
        message.contains("the agent died while it loaded this segment") && message.contains("lower its --memory")
    })
    .await;
    until_segments(&mut agent, |segments| segments.iter().all(|segment| segment.phase == SegmentPhase::Ready)).await;
    assert!(!folder.join("loads.json").exists(), "it has lived through it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_one_minor_version_apart_is_served_and_one_further_apart_is_left() {
    let hub = Hub::open(&model()).await;
    let newer = |minors: u8| ProtocolVersion { minor: version::CURRENT.minor + minors, ..version::CURRENT };
    hub.start("phone-1");
    let mut far = hub.take_in(newer(2)).await;
    let end = loop {
        match far.reader.next_within(PATIENCE).await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert!(!matches!(end, LinkError::Silent(_)), "{end}");
    let mut near = hub.take_in(newer(1)).await;
    let segment = whole(&hub, &near);
    near.assign(vec![segment]).await;
    near.until_ready(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_takes_nothing_ends_no_agent_and_no_token_is_left_on_its_command_line() {
    let hub = Hub::open(&model()).await;
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (idx, stderr) in [Stdio::from(full()), Stdio::from(closed)].into_iter().enumerate() {
        let name = format!("phone-{idx}");
        hub.certify(&name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_polyphony-agent"))
            .args(["--name", &name, "--hub", &hub.address(), "--backend", "cpu"])
            .args(["--memory", "64Mi", "--data-dir"])
            .arg(hub.folder_of(&name))
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(full())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut agent = hub.take_in(version::CURRENT).await;
        assert_eq!(agent.join.phone, name);
        let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("unheard-of"), "every user of this machine can read it");
        let segment = whole(&hub, &agent);
        agent.assign(vec![segment]).await;
        agent.until_ready(1).await;
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A running agent, killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_welcomed_before_dials_a_lost_host_every_two_seconds() {
    let hub = Hub::open(&model()).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    hub.certify("phone-1");
    let child = Command::new(env!("CARGO_BIN_EXE_polyphony-agent"))
        .args(["--name", "phone-1", "--hub", &hub.address(), "--backend", "cpu", "--memory", "64Mi"])
        .arg("--data-dir")
        .arg(hub.folder_of("phone-1"))
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let welcomed = hub.take_in(version::CURRENT).await;
    let address = hub.address().parse().unwrap();
    drop((welcomed, hub));
    // From now on nobody listens there, nor can another test.
    let kept = TcpSocket::new_v4().unwrap();
    kept.set_reuseaddr(true).unwrap();
    kept.bind(address).unwrap();
    let expected = ["100ms", "200ms", "400ms", "800ms", "1.6s", "2s", "2s"];
    let began = Instant::now();
    let pauses = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter(|line| line.contains("no link to the host"));
        let pause = |line: &str| line.split("retry_in=").nth(1)?.split_whitespace().next().map(str::to_owned);
        let pauses: Vec<String> = lines.filter_map(pause).collect();
        if pauses.len() >= expected.len() {
            break pauses;
        }
        assert!(began.elapsed() < PATIENCE, "it does not dial on:\n{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(pauses[..expected.len()], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_takes_as_many_descriptors_as_there_are() {
    let hub = Hub::open(&model()).await;
    hub.certify("phone-1");
    let child = Command::new("sh")
        .args(["-c", "ulimit -Sn 128 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_polyphony-agent")])
        .args(["--name", "phone-1", "--hub", &hub.address(), "--backend", "cpu"])
        .args(["--memory", "64Mi", "--data-dir"])
        .arg(hub.folder_of("phone-1"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    hub.take_in(version::CURRENT).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.0.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut limits = line.split_whitespace().map(|limit| limit.parse().unwrap_or(u64::MAX));
    let (soft, hard) = (limits.next().unwrap(), limits.next().unwrap());
    assert!(soft > 128 && soft == hard.min(1 << 16), "{line}");
}
