//! An agent in a memory cgroup: it loads and serves within hardly more than its segment declares.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use polyphony_model::{EngineForm, Holds, KvType, Room};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::ToHub;
use polyphony_protocol::session::Sampling;
use polyphony_protocol::version;

use crate::floor::{CONTEXT_LENGTH, Floor, MAX_SESSIONS};
use crate::hub::Hub;
use crate::real_models::SMOLLM2;

const MIB: u64 = 1 << 20;

/// A group of version 1, and the agent in it. Both end with it.
struct Limited {
    folder: PathBuf,
    agent: Option<Child>,
}

// === impl Limited ===

impl Limited {
    /// None where this machine or user has no such groups.
    fn new() -> Option<Self> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/polyphony-test-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let limited = Self { folder, agent: None };
        limited.folder.join("memory.limit_in_bytes").exists().then_some(limited)
    }

    /// Starts an agent in the group.
    fn start(&mut self, hub: &Hub) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.folder);
        shell.arg(env!("CARGO_BIN_EXE_polyphony-agent"));
        shell.args(["--name", "limited", "--hub", &hub.address(), "--token", "t", "--backend", "cpu"]);
        shell.args(["--memory", "1Gi", "--data-dir"]).arg(hub.folder_of("limited"));
        self.agent = Some(shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Bytes in use that are no copies of files.
    fn used(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap();
        let of = |name: &str| -> u64 {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
            line.parse().unwrap()
        };
        let usage = fs::read_to_string(self.folder.join("memory.usage_in_bytes")).unwrap();
        usage.trim().parse::<u64>().unwrap().saturating_sub(of("total_cache"))
    }

    fn limit(&self, n_bytes: u64) {
        fs::write(self.folder.join("memory.limit_in_bytes"), n_bytes.to_string()).unwrap();
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // It may be gone, which is what the test then failed for.
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_loads_and_serves_within_what_its_segment_declares() {
    let Some(model) = SMOLLM2.path() else { return };
    let Some(mut limited) = Limited::new() else {
        return polyphony_skip::skipped("a memory cgroup of version 1 can only be made by root, where it is mounted");
    };
    let hub = Hub::open(&model).await;
    limited.start(&hub);
    let mut agent = hub.take_in(version::CURRENT).await;
    agent.until(|frame| matches!(frame, Frame::ToHub(ToHub::Heartbeat(_))).then_some(())).await;
    let base = limited.used();
    assert!(base <= 40 * MIB, "an idle agent takes {base} bytes");
    let manifest = &hub.model.manifest;
    let n_layers = manifest.hyperparameters.n_layers;
    let room = Room { n_sessions: MAX_SESSIONS, context_length: CONTEXT_LENGTH };
    let form = EngineForm::of(&agent.join.numerics);
    let declared = manifest.footprint(&Holds::all(n_layers), room, form, KvType::F16).total();
    limited.limit(base + declared + declared / 20 + 16 * MIB);
    let mut floor = Floor::of(hub, vec![agent]);
    assert_eq!(floor.kept, "kv-f16", "as was counted");
    floor.plan(1, &[(0, 0, n_layers, None)], None).await;
    floor.start(1, 1, &(10..60).collect::<Vec<u32>>(), Sampling::default(), 8).await;
    floor.until_tokens(1, 58).await;
}
