//! An agent measures what its phone has, and keeps nothing of it; who measures for it does not outlive it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use polyphony_protocol::version;

use crate::hub::{Hub, PATIENCE};

/// An agent of its own process, which ends with this.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_computes_nothing_keeps_nothing_of_the_gpu_that_it_has_measured() {
    let hub = Hub::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf")).await;
    hub.certify("phone-1");
    let agent = Command::new(env!("CARGO_BIN_EXE_polyphony-agent"))
        .args(["--name", "phone-1", "--hub", &hub.address(), "--memory", "64Mi", "--data-dir"])
        .arg(hub.folder_of("phone-1"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let agent = Agent(agent.unwrap());
    let joined = hub.take_in(version::CURRENT).await;
    if !joined.join.speeds.iter().any(|speed| speed.backend == "vulkan") {
        return polyphony_skip::skipped("no Vulkan device is here");
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", agent.0.id())).unwrap();
    assert!(maps.contains("polyphony-agent") && !maps.contains("libvulkan"), "{maps}");
}

/// Looks again and again until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_measures_ends_with_who_asked_however_its_driver_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("driver.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // The loader reads of a driver there, and nothing comes.
    let mut measuring = Command::new(env!("CARGO_BIN_EXE_polyphony-agent"))
        .args(["measure", "--memory", "67108864", "--data-dir"])
        .arg(folder.path())
        .env("VK_DRIVER_FILES", &pipe)
        .env("VK_ICD_FILENAMES", &pipe)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (asking, mut measuring) = (measuring.stdin.take(), Agent(measuring));
    // Where nobody reads the pipe, it cannot be opened so.
    let open = || File::options().write(true).custom_flags(O_NONBLOCK).open(&pipe).ok();
    let reads = until("a driver is looked for", || match open() {
        Some(writer) => Some(Ok(writer)),
        None => measuring.0.try_wait().unwrap().map(Err::<File, ExitStatus>),
    });
    let Ok(_hanging) = reads else { return polyphony_skip::skipped("no Vulkan loader is here") };
    drop(asking);
    until("its end", || measuring.0.try_wait().unwrap());
}

/// Of Linux, but on MIPS and SPARC.
const O_NONBLOCK: i32 = 0o4000;
