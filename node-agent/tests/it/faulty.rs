//! A backend that goes wrong is found out, told, and left: at the start, and while it serves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use polyphony_protocol::Frame;
use polyphony_protocol::frame::Failed;
use polyphony_protocol::hub::{BackendFault, ToHub};
use polyphony_protocol::session::Sampling;
use polyphony_protocol::version;

use crate::floor::{CONTEXT_LENGTH, Floor};
use crate::hub::{Hub, PATIENCE};

const PROMPT: [u32; 3] = [7, 100, 42];

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf")
}

fn classes(faults: &[BackendFault]) -> Vec<String> {
    let name = |fault: &BackendFault| fault.numerics.split('-').take(2).collect::<Vec<_>>().join("-");
    let mut classes: Vec<String> = faults.iter().map(name).collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// An agent that computes with one backend, and the file that says what goes wrong with it.
async fn floor(backend: &str) -> Option<(Floor, PathBuf)> {
    let hub = Hub::open(&model()).await;
    let wrong = hub.folder_of("wrong");
    let file = wrong.display().to_string();
    hub.start_with("phone-0", &["--backend", backend, "--sabotage-file", &file, "--step-deadline-seconds", "8"]);
    let joined = tokio::time::timeout(PATIENCE, hub.take_in(version::CURRENT)).await.ok()?;
    Some((Floor::of(hub, vec![joined]), wrong))
}

/// Sessions one after the other until one fails and the phone says why.
async fn until_found_out(floor: &mut Floor) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for session in 2.. {
        floor.start(session, 1, &PROMPT, Sampling::default(), CONTEXT_LENGTH).await;
        floor.until("it ends", |floor| floor.sessions[&session].is_over || !floor.failures.is_empty()).await;
        if !floor.failures.is_empty() {
            break;
        }
        floor.close(session).await;
        assert!(tokio::time::Instant::now() < deadline, "nobody notices");
    }
    let is_known = |failed: &Failed| failed.message.contains("computes wrongly");
    assert!(floor.failures.iter().any(is_known), "{:?}", floor.failures);
    floor.until("the phone says why", |floor| !floor.faults.is_empty() && !floor.failed_segments.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_flips_a_bit_while_it_serves_is_found_out_and_gives_no_token_more() {
    let (mut floor, wrong) = floor("cpu").await.unwrap();
    floor.plan(1, &[(0, 0, 4, None)], None).await;
    floor.start(1, 1, &PROMPT, Sampling::default(), CONTEXT_LENGTH).await;
    floor.until_tokens(1, CONTEXT_LENGTH as usize).await;
    assert_eq!((floor.failures.len(), floor.faults.len()), (0, 0));
    std::fs::write(&wrong, "cpu flip").unwrap();
    until_found_out(&mut floor).await;
    // The device is at fault, whatever it was computing.
    assert_eq!(classes(&floor.faults), ["cpu-f32", "cpu-int8"]);
    assert!(floor.faults.iter().all(|fault| fault.reason.contains("computes wrongly")), "{:?}", floor.faults);
    // It does not come back by itself, however right it is by now.
    std::fs::remove_file(&wrong).unwrap();
    let failed_by = |floor: &Floor, words: &str| floor.failed_segments.iter().any(|message| message.contains(words));
    floor.until("it is not loaded again", |floor| failed_by(floor, "set aside on this phone")).await;
    // Who comes anyway is sent away, and gets no token.
    floor.failures.clear();
    floor.start(1_000, 1, &PROMPT, Sampling::default(), CONTEXT_LENGTH).await;
    floor.until("it is sent away", |floor| floor.failures.iter().any(|failed| failed.key.session.0 == 1_000)).await;
    assert_eq!(floor.sessions[&1_000].tokens, PROMPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_stops_answering_is_left() {
    if !vulkan_is_here() {
        return polyphony_skip::skipped("no Vulkan device is here");
    }
    let (mut floor, wrong) = floor("vulkan").await.unwrap();
    floor.plan(1, &[(0, 0, 4, None)], None).await;
    // It serves, before it does not.
    floor.start(1, 1, &PROMPT, Sampling::default(), CONTEXT_LENGTH).await;
    floor.until_tokens(1, CONTEXT_LENGTH as usize).await;
    assert_eq!(floor.faults, []);
    floor.close(1).await;
    std::fs::write(&wrong, "vulkan hang").unwrap();
    floor.start(2, 1, &PROMPT, Sampling::default(), CONTEXT_LENGTH).await;
    floor.until("the phone says why", |floor| !floor.faults.is_empty()).await;
    assert_eq!(classes(&floor.faults), ["vulkan-f32", "vulkan-int8"]);
    assert!(floor.faults.iter().all(|fault| fault.reason.contains("hang")), "{:?}", floor.faults);
    // A thread in a driver is not to outlive the test.
    std::fs::remove_file(&wrong).unwrap();
}

fn vulkan_is_here() -> bool {
    let options = polyphony_kernels::vulkan::Options::default();
    polyphony_kernels::vulkan::VulkanEngine::new(options).is_ok()
}

/// `polyphony-agent doctor` in a folder of its own.
fn doctor(flags: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "vulkan flip").unwrap();
    let doctor = Command::new(env!("CARGO_BIN_EXE_polyphony-agent"))
        .args(["doctor", "--memory", "64Mi", "--sabotage-file"])
        .arg(&wrong)
        .arg("--data-dir")
        .arg(folder.path())
        .args(flags)
        .stdin(Stdio::null())
        .output();
    doctor.unwrap()
}

#[test]
fn a_doctor_finds_what_is_wrong_and_ends_with_a_failure_then() {
    let well = doctor(&["--backend", "cpu"]);
    let said = String::from_utf8(well.stdout).unwrap();
    let answers = |said: &str, class: &str| {
        let rows = said.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
        rows.filter(|row| row.len() == 2 && row[0].starts_with(class) && row[1] != "is")
            .map(|row| row[1].to_owned())
            .collect::<Vec<_>>()
    };
    assert!(well.status.success() && answers(&said, "cpu-") == ["known", "known"], "{said}");
    if !vulkan_is_here() {
        return polyphony_skip::skipped("no Vulkan device is here");
    }
    let ill = doctor(&[]);
    let said = String::from_utf8(ill.stdout).unwrap();
    assert!(!ill.status.success() && answers(&said, "vulkan-") == ["WRONG", "WRONG"], "{said}");
    assert!(answers(&said, "cpu-") == ["known", "known"] && said.contains("is not used"), "{said}");
    let nothing = doctor(&["--backend", "vulkan"]);
    let why = String::from_utf8(nothing.stderr).unwrap();
    assert!(!nothing.status.success() && why.contains("nothing that is left to this phone computes rightly"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_is_wrong_at_the_start_is_told_and_not_offered() {
    if !vulkan_is_here() {
        return polyphony_skip::skipped("no Vulkan device is here");
    }
    let hub = Hub::open(&model()).await;
    let wrong = hub.folder_of("wrong");
    std::fs::write(&wrong, "vulkan flip").unwrap();
    hub.start_with("phone-0", &["--sabotage-file", &wrong.display().to_string()]);
    let mut joined = hub.take_in(version::CURRENT).await;
    let offered: Vec<&str> = joined.join.speeds.iter().map(|speed| speed.backend.as_str()).collect();
    assert_eq!(offered, ["cpu", "cpu"]);
    let faults = joined.until(|frame| match frame {
        Frame::ToHub(ToHub::Heartbeat(heartbeat)) => heartbeat.faults,
        _ => None,
    });
    let faults = faults.await;
    assert_eq!(classes(&faults), ["vulkan-f32", "vulkan-int8"]);
    assert!(faults.iter().all(|fault| fault.reason.contains("computes wrongly")), "{faults:?}");
}
