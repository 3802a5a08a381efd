//! Apart: a GPU is measured by a process of its own. What its driver loads and keeps goes with that process, and so does a driver that
//! crashes or hangs.
//!
//! The process says one line, which is marked, since drivers print what they like; it ends when its standard input does, so that it outlives
//! nobody who asked. Nobody waits for its end: in a driver a process may hang so that nothing can end it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use polyphony_kernels::EngineError;
use polyphony_protocol::hub::Speed;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use super::{Measuring, Sabotage};
use crate::enrolment;

/// What was found of a device in one arithmetic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub device: String,
    pub numerics: String,
    pub verdict: Verdict,
}

/// How fast it is, or why it is not to be used.
pub type Verdict = Result<Speed, String>;

/// What the process that measures says, as JSON behind [`MARK`].
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Measured(Vec<Measured>),
    NoAdapter { reason: String },
    Failed { message: String },
}

/// How the process ended, as far as anybody waits for that.
enum End {
    Said(Report),
    /// It ended, or closed its output, and has said nothing of the kind.
    Silent(Option<ExitStatus>),
    Late,
}

/// What the line begins with that is meant.
const MARK: &str = "polyphony-measured: ";
/// A longer line is a driver's.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// A driver that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// What a process said before it ended is heard by then.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Has `program`, which is this one, measure the GPU in each arithmetic.
///
/// # Errors
/// When it has none, or one that cannot be used.
pub(super) fn measure(program: &Path, how: &Measuring) -> Result<Vec<Measured>, EngineError> {
    measure_within(DEADLINE, program, how)
}

fn measure_within(deadline: Duration, program: &Path, how: &Measuring) -> Result<Vec<Measured>, EngineError> {
    let mut command = Command::new(program);
    command.args(["measure", "--memory", &how.memory_bytes.to_string(), "--data-dir"]).arg(&how.data_dir);
    if let Some(sabotage) = &how.sabotage {
        command.arg("--sabotage-file").arg(sabotage.file());
    }
    let child = command
        .env_remove(enrolment::TOKEN_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let failed = |why: std::io::Error| EngineError::Device(format!("no process to measure it in: {why}"));
    let mut child = child.map_err(failed)?;
    let end = hear_out(&mut child, deadline);
    part_with(child);
    match end.map_err(failed)? {
        End::Said(Report::Measured(measured)) => Ok(measured),
        End::Said(Report::NoAdapter { reason }) => Err(EngineError::NoAdapter { reason }),
        End::Said(Report::Failed { message }) => Err(EngineError::Device(message)),
        End::Silent(Some(status)) => {
            Err(EngineError::Lost(format!("the process that measured it ended with {status}")))
        }
        End::Silent(None) => Err(EngineError::Lost("the process that measured it said nothing of it".to_owned())),
        End::Late => Err(EngineError::Lost(format!("it was not measured within {deadline:?}"))),
    }
}

/// Waits for its report, its end, or the deadline.
fn hear_out(child: &mut Child, deadline: Duration) -> std::io::Result<End> {
    let (report, reports) = sync_channel(1);
    if let Some(output) = child.stdout.take() {
        // Its output may stay open for longer than it lives, and then so does this thread, which holds nothing else.
        std::thread::Builder::new().name("gpu-report".to_owned()).spawn(move || hear(output, &report))?;
    }
    let (began, mut quiet_since, mut is_closed) = (Instant::now(), None, false);
    loop {
        match reports.recv_timeout(POLL) {
            Ok(report) => return Ok(End::Said(report)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                is_closed = true;
                std::thread::sleep(POLL);
            }
        }
        let status = child.try_wait()?;
        if is_closed || status.is_some() {
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if is_closed && status.is_some() || since.elapsed() > LAST_WORDS {
                return Ok(End::Silent(status));
            }
        }
        if began.elapsed() > deadline {
            return Ok(End::Late);
        }
    }
}

/// Hears the report among whatever else there is.
fn hear(output: impl Read, report: &SyncSender<Report>) {
    let (mut output, mut line) = (BufReader::new(output), Vec::new());
    while let Ok(1..) = output.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
        if let Some(said) = line.strip_prefix(MARK.as_bytes()).and_then(|said| serde_json::from_slice(said).ok()) {
            // Who waited may have given up.
            let _ = report.try_send(said);
            return;
        }
        line.clear();
    }
}

/// Ends the process, if it can be ended, and leaves what is left of it to a thread.
fn part_with(mut child: Child) {
    // It has ended already, mostly.
    let _ = child.kill();
    // Without a thread it stays a zombie, which harms nobody.
    let _ = std::thread::Builder::new().name("gpu-reaper".to_owned()).spawn(move || child.wait());
}

/// Measures the GPU in this process, which another agent has started for that, and says what came of it.
///
/// # Errors
/// When nobody hears it.
pub fn answer(data_dir: &Path, memory_bytes: u64, sabotage: Option<Sabotage>) -> std::io::Result<()> {
    end_with_who_asked()?;
    let report = match super::measure_gpu(data_dir, memory_bytes, sabotage) {
        Ok(measured) => Report::Measured(measured),
        Err(EngineError::NoAdapter { reason }) => Report::NoAdapter { reason },
        Err(error) => Report::Failed { message: error.to_string() },
    };
    let mut stdout = std::io::stdout();
    // A driver may have left a line without its end.
    write!(stdout, "\n{MARK}{}\n", serde_json::to_string(&report)?)?;
    stdout.flush()
}

/// Who asked holds the other end of this process's standard input, and says nothing there.
fn end_with_who_asked() -> std::io::Result<()> {
    let watch = || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // At once: what a driver does at an orderly end may never be over.
        let _ = kill_process(getpid(), Signal::KILL);
    };
    std::thread::Builder::new().name("parent-watch".to_owned()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::mpsc::channel;

    use rustix::process::Pid;
    use tempfile::TempDir;

    use super::*;

    /// Whatever a test waits for comes within this on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A program that stands for the one that measures.
    fn script(folder: &TempDir, lines: &str) -> PathBuf {
        let path = folder.path().join("measure");
        std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// What comes of it, if that comes at all.
    fn measured(deadline: Duration, program: PathBuf, data_dir: &Path) -> Result<Vec<Measured>, String> {
        let (done, end) = channel();
        let data_dir = data_dir.to_owned();
        let how = Measuring { threads: 1, share: None, data_dir, memory_bytes: 1, program: None, sabotage: None };
        std::thread::spawn(move || done.send(measure_within(deadline, &program, &how)));
        end.recv_timeout(PATIENCE).expect("nobody waits for ever").map_err(|error| error.to_string())
    }

    /// The process that a script has written the number of, killed when it is dropped.
    struct Left(Pid);

    impl Left {
        fn of(folder: &TempDir) -> Self {
            let number = std::fs::read_to_string(folder.path().join("pid")).unwrap();
            Self(Pid::from_raw(number.trim().parse().unwrap()).unwrap())
        }
    }

    impl Drop for Left {
        fn drop(&mut self) {
            let _ = kill_process(self.0, Signal::KILL);
        }
    }

    #[test]
    fn a_process_that_dies_or_talks_nonsense_costs_no_more_than_the_gpu() {
        let folder = tempfile::tempdir().unwrap();
        for (program, why) in
            [("/bin/false", "ended with exit status: 1"), ("/bin/echo", "ended with"), ("/none", "no process")]
        {
            let end = measured(PATIENCE, program.into(), folder.path()).unwrap_err();
            assert!(end.contains(why), "{program}: {end}");
        }
    }

    #[test]
    fn what_a_driver_prints_spoils_no_report() {
        let folder = tempfile::tempdir().unwrap();
        let report = r#"{"NoAdapter":{"reason":"none is here"}}"#;
        // More than a pipe holds, and a line without its end.
        let noise = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo loaded; printf 'loading'";
        let program = script(&folder, &format!("{noise}\necho\necho '{MARK}{report}'\necho unloaded"));
        let end = measured(PATIENCE, program, folder.path()).unwrap_err();
        assert!(end.contains("none is here"), "{end}");
    }

    #[test]
    fn nobody_waits_for_what_a_process_leaves_behind_or_for_one_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        // A part of a driver that keeps the output open.
        let program = script(&folder, &format!("sleep 600 & echo $! > {}/pid; exit 3", folder.path().display()));
        let end = measured(2 * PATIENCE, program, folder.path()).unwrap_err();
        let _left = Left::of(&folder);
        assert!(end.contains("ended with exit status: 3"), "{end}");

        let program = script(&folder, "exec sleep 600");
        let end = measured(Duration::from_millis(50), program, folder.path()).unwrap_err();
        assert!(end.contains("not measured within"), "{end}");
    }
}
