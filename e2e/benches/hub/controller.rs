//! The controller of the bench: the real program, in a folder of its own, at a port that it keeps.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use polyphony_e2e::shelf::{program, run, wait_until};
use polyphony_identity::Digest;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel counts user time for programs in hundredths of a second (`USER_HZ`), whatever it counts by inside.
const TICKS_A_SECOND: f64 = 100.0;

pub struct Controller {
    folder: PathBuf,
    /// Of the hub.
    port: u16,
    ca_hash: Digest,
    child: Child,
}

// === impl Controller ===

impl Controller {
    pub fn start(folder: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Self::start_at(folder, port)
    }

    fn start_at(folder: &Path, port: u16) -> Result<Self> {
        let data = folder.join("data");
        let endpoints = data.join("endpoints.json");
        // What a killed one left is no word of this one.
        let _ = fs::remove_file(&endpoints);
        let log = fs::File::create(folder.join("controller.log"))?;
        let mut command = Command::new(program("polyphony-controller")?);
        command.arg("--data-dir").arg(&data).args(["--api-address", "127.0.0.1:0", "--gateway-address", "127.0.0.1:0"]);
        command.args(["--hub-address", &format!("127.0.0.1:{port}"), "--advertise", "never"]).env("RUST_LOG", "warn");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let told = wait_until("the controller to be up", PATIENCE, || {
            Ok(fs::read(&endpoints).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()))
        })?;
        let ca_hash = told["caHash"].as_str().context("endpoints.json has no caHash")?.parse()?;
        Ok(Self { folder: folder.to_owned(), port, ca_hash, child })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn ca_hash(&self) -> Digest {
        self.ca_hash
    }

    /// A join token for so many phones.
    pub fn token(&self, uses: usize) -> Result<String> {
        let mut command = Command::new(program("polyctl")?);
        command.arg("--data-dir").arg(self.folder.join("data")).args(["token", "create", "--uses", &uses.to_string()]);
        Ok(run(command)?.ok()?.stdout.trim().to_owned())
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Another life of it.
    pub fn again(&self) -> Result<Self> {
        Self::start_at(&self.folder, self.port)
    }

    /// What it has in memory (RSS).
    pub fn memory_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// User and system time so far.
    pub fn processor_seconds(&self) -> Result<f64> {
        processor_seconds(&self.child.id().to_string())
    }
}

/// User and system time of a process so far, with all its threads.
pub fn processor_seconds(pid: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS_A_SECOND)
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.kill();
    }
}
