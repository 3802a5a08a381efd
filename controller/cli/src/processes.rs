//! The processes that `up` starts in a data directory: a ledger of who runs, and starting and stopping exactly those.
//!
//! A process is known by its id, its start time and the machine's boot, so that an id that was given to another process
//! is never signalled.

pub mod endpoints;
pub mod identity;
pub mod log_file;
pub mod ports;
pub mod program;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use log_file::LogFile;

const POLL: Duration = Duration::from_millis(50);

/// What the ledger knows of one process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// `controller` or the phone's name.
    pub name: String,
    pub pid: u32,
    /// The kernel's start time, in clock ticks since boot.
    pub start_ticks: u64,
    pub started_at: jiff::Timestamp,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Where this run's lines begin in the log.
    #[serde(default)]
    pub log_start: u64,
}

/// What the last `up` was asked for; the next one goes by it where its flags say nothing.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub phones: u32,
    pub phone_memory: String,
    pub backend: String,
    pub grace_period: String,
    pub api_port: u16,
    pub gateway_port: u16,
    pub hub_port: u16,
    /// Where phones of other machines reach this one.
    #[serde(default)]
    pub listen: Option<IpAddr>,
    #[serde(default)]
    pub no_auth: bool,
    #[serde(default)]
    pub cors_origins: Vec<String>,
    #[serde(default)]
    pub fetching: Fetching,
}

/// Where the controller may fetch models from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fetching {
    /// The hub, where it is another than the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub private_addresses: bool,
}

// === impl Fetching ===

impl Fetching {
    /// As flags of the controller.
    pub fn arguments(&self) -> Vec<String> {
        let endpoint = self.endpoint.iter().flat_map(|url| ["--model-endpoint".to_owned(), url.clone()]);
        let hosts = self.hosts.iter().flat_map(|host| ["--model-host".to_owned(), host.clone()]);
        let private = self.private_addresses.then(|| "--model-private-addresses".to_owned());
        endpoint.chain(hosts).chain(private).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ledger {
    boot_id: String,
    settings: Option<Settings>,
    processes: Vec<Process>,
}

/// The processes of one data directory. Holds its lock: one `up` or `down` at a time.
pub struct Processes {
    data_dir: PathBuf,
    ledger: Ledger,
    /// Those that this program started itself; they are reaped through these.
    children: BTreeMap<String, Child>,
    _lock: File,
}

/// Why processes cannot be started, stopped or counted.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("data directory {}: {source}{}", .path.display(), remedy(.source))]
    Directory { path: PathBuf, source: io::Error },
    #[error("another `polyctl up` or `polyctl down` is at work in {}: wait for it to end", .path.display())]
    Locked { path: PathBuf },
    #[error("{} cannot be read: {detail}: if none of its processes runs any more, remove it", .path.display())]
    Ledger { path: PathBuf, detail: String },
    #[error("{name} could not be started from {}: {source}", .program.display())]
    Start { name: String, program: PathBuf, source: io::Error },
    #[error("{name} (pid {pid}) cannot be signalled: {source}")]
    Signal { name: String, pid: u32, source: rustix::io::Errno },
    #[error(
        "{name} (pid {pid}) still runs after SIGKILL: it waits for the kernel; look at `ps -o stat,wchan -p {pid}`"
    )]
    Immortal { name: String, pid: u32 },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free space on its disk, or name a folder on another one with --data-dir"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": make it writable for this user, or name another folder with --data-dir"
        }
        _ => "",
    }
}

// === impl Processes ===

impl Processes {
    /// Locks the directory and reads its ledger; forgets processes of an earlier boot.
    ///
    /// # Errors
    /// When the directory is in use or cannot be read or written.
    pub fn open(data_dir: &Path) -> Result<Self, ProcessError> {
        let directory_error = |source| ProcessError::Directory { path: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir.join("logs")).map_err(directory_error)?;
        let lock = File::create(data_dir.join("up.lock")).map_err(directory_error)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => ProcessError::Locked { path: data_dir.to_owned() },
            fs::TryLockError::Error(source) => directory_error(source),
        })?;
        let path = data_dir.join("processes.json");
        let boot_id = identity::boot_id();
        let mut ledger = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ProcessError::Ledger { path, detail: error.to_string() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(error) => return Err(ProcessError::Ledger { path, detail: error.to_string() }),
        };
        if ledger.boot_id != boot_id {
            ledger.processes.clear();
            ledger.boot_id = boot_id;
        }
        Ok(Self { data_dir: data_dir.to_owned(), ledger, children: BTreeMap::new(), _lock: lock })
    }

    pub fn settings(&self) -> Option<&Settings> {
        self.ledger.settings.as_ref()
    }

    pub fn set_settings(&mut self, settings: Settings) -> Result<(), ProcessError> {
        self.ledger.settings = Some(settings);
        self.save()
    }

    /// The process of that name, if it still runs.
    pub fn running(&self, name: &str) -> Option<&Process> {
        self.ledger.processes.iter().find(|process| process.name == name && process.is_running())
    }

    /// Everything that runs, controller first.
    pub fn all_running(&self) -> Vec<Process> {
        self.ledger.processes.iter().filter(|process| process.is_running()).cloned().collect()
    }

    pub fn log(&self, name: &str) -> LogFile {
        LogFile::new(&self.data_dir, name)
    }

    /// Starts a process of its own group, which outlives this one: no input, output to its log.
    ///
    /// # Errors
    /// When the program cannot be run or the ledger not written.
    pub fn start(&mut self, name: &str, program: &Path, arguments: Vec<String>) -> Result<&Process, ProcessError> {
        let start_error = |source| ProcessError::Start { name: name.to_owned(), program: program.to_owned(), source };
        // What could not be written down afterwards is not begun.
        self.save()?;
        let (output, log_start) = self.log(name).open_for_run().map_err(start_error)?;
        let errors = output.try_clone().map_err(start_error)?;
        let mut command = Command::new(program);
        // A log is for reading with any program: no colours.
        command
            .args(&arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let started_at = jiff::Timestamp::now();
        let mut child = command.spawn().map_err(start_error)?;
        let pid = child.id();
        // A process that ended within this instant has no start time any more, and is then seen as ended.
        let start_ticks = identity::start_ticks(pid).unwrap_or(0);
        let process = Process {
            name: name.to_owned(),
            pid,
            start_ticks,
            started_at,
            program: program.to_owned(),
            arguments,
            log_start,
        };
        self.ledger.processes.retain(|known| known.name != name);
        self.ledger.processes.push(process);
        if let Err(error) = self.save() {
            // Nobody would find it again to stop it.
            self.ledger.processes.pop();
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error);
        }
        self.children.insert(name.to_owned(), child);
        Ok(self.ledger.processes.last().expect("the process was pushed above"))
    }

    /// How a process of this program ended, such as `exit status: 1`; none while it runs.
    pub fn ended(&mut self, name: &str) -> Option<String> {
        if let Some(child) = self.children.get_mut(name) {
            return match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            };
        }
        self.running(name).is_none().then(|| "it is gone".to_owned())
    }

    /// The last lines that this run of a process wrote.
    pub fn last_words(&self, name: &str, n_lines: usize) -> Vec<String> {
        let start =
            self.ledger.processes.iter().find(|process| process.name == name).map_or(0, |process| process.log_start);
        self.log(name).last_lines(n_lines, start).unwrap_or_default()
    }

    /// Ends processes: SIGTERM, then SIGKILL when `patience` is over. Says how each ended.
    ///
    /// # Errors
    /// When a process may not be signalled, or does not die.
    pub async fn stop(
        &mut self,
        names: &[String],
        patience: Duration,
    ) -> Result<Vec<(Process, &'static str)>, ProcessError> {
        let targets: Vec<Process> =
            self.all_running().into_iter().filter(|process| names.contains(&process.name)).collect();
        for process in &targets {
            process.signal(Signal::TERM)?;
        }
        let polite = self.await_end(&targets, patience).await;
        let stubborn: Vec<Process> = targets.iter().filter(|process| process.is_running()).cloned().collect();
        if !polite {
            for process in &stubborn {
                process.signal(Signal::KILL)?;
            }
            if !self.await_end(&stubborn, Duration::from_secs(5)).await
                && let Some(process) = stubborn.iter().find(|process| process.is_running())
            {
                return Err(ProcessError::Immortal { name: process.name.clone(), pid: process.pid });
            }
        }
        self.ledger.processes.retain(|process| !names.contains(&process.name));
        self.save()?;
        let how = |process: &Process| {
            if stubborn.iter().any(|other| other.pid == process.pid) { "killed" } else { "stopped" }
        };
        Ok(targets.into_iter().map(|process| (process.clone(), how(&process))).collect())
    }

    async fn await_end(&mut self, processes: &[Process], patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            for child in self.children.values_mut() {
                // Reaps; a child that cannot be waited for is seen by its state instead.
                let _ = child.try_wait();
            }
            if !processes.iter().any(Process::is_running) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn save(&self) -> Result<(), ProcessError> {
        let directory_error = |source| ProcessError::Directory { path: self.data_dir.clone(), source };
        let text = serde_json::to_vec_pretty(&self.ledger).map_err(|error| directory_error(error.into()))?;
        let (path, fresh) = (self.data_dir.join("processes.json"), self.data_dir.join("processes.json.new"));
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            // Half of it would keep a full disk full.
            let _ = fs::remove_file(&fresh);
        }
        written.map_err(directory_error)
    }
}

// === impl Process ===

impl Process {
    /// Whether this very process still runs (and is no zombie).
    pub fn is_running(&self) -> bool {
        identity::start_ticks(self.pid) == Some(self.start_ticks)
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        if !self.is_running() {
            return Ok(());
        }
        match kill_process(pid, signal) {
            // It ended by itself in between.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(source) => Err(ProcessError::Signal { name: self.name.clone(), pid: self.pid, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SH: &str = "/bin/sh";

    fn script(text: &str) -> Vec<String> {
        vec!["-c".to_owned(), text.to_owned()]
    }

    #[tokio::test]
    async fn what_was_started_is_found_again_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::open(folder.path()).unwrap();
        let process = processes.start("sleeper", Path::new(SH), script("echo awake; exec sleep 600")).unwrap().clone();
        assert!(process.is_running());
        drop(processes);
        let mut processes = Processes::open(folder.path()).unwrap();
        assert_eq!(processes.running("sleeper"), Some(&process));
        let stopped = processes.stop(&["sleeper".to_owned()], Duration::from_secs(20)).await.unwrap();
        assert_eq!(stopped[0].1, "stopped");
        assert!(processes.all_running().is_empty());
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::open(folder.path()).unwrap();
        processes.start("deaf", Path::new(SH), script("trap '' TERM; echo deaf; while :; do sleep 1; done")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while processes.last_words("deaf", 1).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        let stopped = processes.stop(&["deaf".to_owned()], Duration::from_millis(200)).await.unwrap();
        assert_eq!(stopped[0].1, "killed");
    }

    #[test]
    fn a_recycled_pid_is_not_ours() {
        let ours = Process {
            name: "x".into(),
            pid: std::process::id(),
            start_ticks: identity::start_ticks(std::process::id()).unwrap(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            program: SH.into(),
            arguments: Vec::new(),
            log_start: 0,
        };
        assert!(ours.is_running());
        let recycled = Process { start_ticks: ours.start_ticks + 1, ..ours };
        assert!(!recycled.is_running());
        recycled.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn what_cannot_be_written_down_is_not_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::open(folder.path()).unwrap();
        let touched = folder.path().join("touched");
        let start = |processes: &mut Processes| {
            let touch = script(&format!("touch {}", touched.display()));
            processes.start("toucher", Path::new(SH), touch).map(|process| process.pid)
        };
        // A ledger that is a folder takes no words, as one on a full disk does not.
        fs::create_dir_all(folder.path().join("processes.json/in-the-way")).unwrap();
        let error = start(&mut processes).unwrap_err().to_string();
        assert!(error.starts_with("data directory"), "{error}");
        assert!(processes.all_running().is_empty() && !folder.path().join("processes.json.new").exists());
        fs::remove_dir_all(folder.path().join("processes.json")).unwrap();
        start(&mut processes).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !touched.exists() {
            assert!(Instant::now() < deadline, "it was not started");
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn one_directory_has_one_up_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Processes::open(folder.path()).unwrap();
        let error = Processes::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("another `polyctl up`"), "{error}");
    }

    #[tokio::test]
    async fn a_process_that_ends_leaves_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::open(folder.path()).unwrap();
        processes.start("brief", Path::new(SH), script("echo old run")).unwrap();
        let ended = |processes: &mut Processes| {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                if let Some(how) = processes.ended("brief") {
                    return how;
                }
                assert!(Instant::now() < deadline, "it does not end");
                std::thread::sleep(POLL);
            }
        };
        ended(&mut processes);
        processes.start("brief", Path::new(SH), script("echo cause; echo remedy >&2; exit 3")).unwrap();
        assert_eq!(ended(&mut processes), "exit status: 3");
        assert_eq!(processes.last_words("brief", 10), ["cause", "remedy"]);
    }
}
