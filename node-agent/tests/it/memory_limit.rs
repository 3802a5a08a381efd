//! An agent in a memory cgroup: it loads and serves within hardly more than its segment declares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use polyphony_model::{EngineForm, Holds, KvType, Room};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::ToHub;
use polyphony_protocol::session::Sampling;
use polyphony_protocol::version;

use crate::floor::{CONTEXT_LENGTH, Floor, MAX_SESSIONS};
use crate::hub::Hub;
use crate::real_models::{MODELS, RealModel};

const MIB: u64 = 1 << 20;
/// Prompt and answer.
const N_TOKENS: usize = 58;

/// A group of version 1 within the test's own, and the agent in it. Both end with it.
struct Limited {
    folder: PathBuf,
    agent: Option<Child>,
}

// === impl Limited ===

impl Limited {
    /// None where this machine or user has no such groups.
    fn new() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.split_once(":memory:")?.1.strip_prefix('/'))?;
        let name = format!("polyphony-test-{}", std::process::id());
        let folder = Path::new("/sys/fs/cgroup/memory").join(own).join(name);
        // Of an earlier process of this number.
        let _ = fs::remove_dir(&folder);
        fs::create_dir(&folder).ok()?;
        let limited = Self { folder, agent: None };
        limited.folder.join("memory.limit_in_bytes").exists().then_some(limited)
    }

    /// Starts an agent in the group.
    fn start(&mut self, hub: &Hub) {
        hub.certify("limited");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.folder);
        shell.arg(env!("CARGO_BIN_EXE_polyphony-agent"));
        shell.args(["--name", "limited", "--hub", &hub.address(), "--backend", "cpu"]);
        shell.args(["--memory", "1Gi", "--data-dir"]).arg(hub.folder_of("limited"));
        self.agent = Some(shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    }

    /// Bytes in use that are no copies of files.
    fn used(&self) -> u64 {
        let usage: u64 = self.read("memory.usage_in_bytes").trim().parse().unwrap();
        usage.saturating_sub(self.field("memory.stat", "total_cache"))
    }

    /// Of memory and swap together, where the kernel counts both.
    fn limit(&self, n_bytes: u64) {
        self.write("memory.limit_in_bytes", n_bytes);
        if self.folder.join("memory.memsw.limit_in_bytes").exists() {
            self.write("memory.memsw.limit_in_bytes", n_bytes);
        } else {
            self.write("memory.swappiness", 0);
        }
    }

    /// Whether the agent is alive, and none of the group was killed for memory.
    fn is_well(&mut self) -> bool {
        let is_alive = self.agent.as_mut().is_some_and(|agent| matches!(agent.try_wait(), Ok(None)));
        is_alive && self.field("memory.oom_control", "oom_kill") == 0
    }

    fn field(&self, file: &str, name: &str) -> u64 {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.read(file).lines().find_map(of).unwrap_or_else(|| panic!("{file} has no {name}"))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }

    fn write(&self, file: &str, value: u64) {
        fs::write(self.folder.join(file), value.to_string()).unwrap();
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // It may be gone, which is what the test then failed for.
            let _ = agent.kill();
            let _ = agent.wait();
        }
        // A group whose last process has just ended is busy for a moment.
        for _ in 0..20 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{} stays: remove it", self.folder.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_loads_and_serves_within_what_its_segment_declares() {
    for model in &MODELS {
        loads_and_serves(model).await;
    }
}

async fn loads_and_serves(model: &RealModel) {
    let Some(path) = model.path() else { return };
    let Some(mut limited) = Limited::new() else {
        return polyphony_skip::skipped("a memory cgroup of version 1 can only be made by root, where it is mounted");
    };
    let hub = Hub::open(&path).await;
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
    floor.until_tokens(1, N_TOKENS).await;
    assert!(limited.is_well(), "{}", path.display());
    assert!(floor.sessions[&1].tokens.len() >= N_TOKENS, "{}", path.display());
    println!("{}: base {base}, declared {declared}, used {}", path.display(), limited.used());
    // While its folders are there.
    drop(limited);
}
