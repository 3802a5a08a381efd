//! Apart: a GPU is measured by a process of its own. What its driver loads and keeps goes with that process, and so does a driver that
//! crashes or hangs.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use polyphony_kernels::EngineError;
use polyphony_protocol::hub::Speed;
use serde::{Deserialize, Serialize};

use crate::discretion;

/// What was measured of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub device: String,
    pub numerics: String,
    pub speed: Speed,
}

/// What the process that measures says, as JSON on its standard output.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Measured(Measured),
    NoAdapter { reason: String },
    Failed { message: String },
}

/// A driver that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Has `program`, which is this one, measure the GPU.
///
/// # Errors
/// When it has none, or one that cannot be used.
pub(super) fn measure(program: &Path, data_dir: &Path, memory_bytes: u64) -> Result<Measured, EngineError> {
    let child = Command::new(program)
        .args(["measure", "--memory", &memory_bytes.to_string(), "--data-dir"])
        .arg(data_dir)
        .env_remove(discretion::VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let failed = |why: std::io::Error| EngineError::Device(format!("no process to measure it in: {why}"));
    let mut child = child.map_err(failed)?;
    let Some(status) = wait(&mut child).map_err(failed)? else {
        return Err(EngineError::Device(format!("it was not measured within {DEADLINE:?}")));
    };
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut said).map_err(failed)?;
    }
    match serde_json::from_slice(&said) {
        Ok(Report::Measured(measured)) => Ok(measured),
        Ok(Report::NoAdapter { reason }) => Err(EngineError::NoAdapter { reason }),
        Ok(Report::Failed { message }) => Err(EngineError::Device(message)),
        Err(_) => Err(EngineError::Device(format!("the process that measured it ended with {status}"))),
    }
}

/// How it ended; none where it had to be ended. What it says is short and waits in the pipe.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > DEADLINE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Measures the GPU in this process, which another agent has started for that, and says what came of it.
///
/// # Errors
/// When nobody hears it.
pub fn answer(data_dir: &Path, memory_bytes: u64) -> std::io::Result<()> {
    let report = match super::measure_gpu(data_dir, memory_bytes) {
        Ok(measured) => Report::Measured(measured),
        Err(EngineError::NoAdapter { reason }) => Report::NoAdapter { reason },
        Err(error) => Report::Failed { message: error.to_string() },
    };
    let mut stdout = std::io::stdout();
    stdout.write_all(&serde_json::to_vec(&report)?)?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_that_dies_or_talks_nonsense_costs_no_more_than_the_gpu() {
        let folder = tempfile::tempdir().unwrap();
        for (program, why) in
            [("/bin/false", "ended with exit status: 1"), ("/bin/echo", "ended with"), ("/none", "no process")]
        {
            let end = measure(Path::new(program), folder.path(), 1).unwrap_err();
            assert!(matches!(&end, EngineError::Device(said) if said.contains(why)), "{program}: {end}");
        }
    }
}
