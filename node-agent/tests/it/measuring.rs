//! An agent measures what its phone has, and keeps nothing of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use polyphony_protocol::version;

use crate::hub::Hub;

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
    let agent = Command::new(env!("CARGO_BIN_EXE_polyphony-agent"))
        .args(["--name", "phone-1", "--hub", &hub.address(), "--token", "t", "--memory", "64Mi", "--data-dir"])
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
