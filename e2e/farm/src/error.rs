//! Why a farm or a device does not do what it was asked.

use std::io;
use std::path::PathBuf;

use polyphony_adb::AdbError;

/// Cause, place and remedy. `device` is the name that the device was taken by.
#[derive(Debug, thiserror::Error)]
pub enum FarmError {
    #[error("{name:?} is no name for a device: use 1 to 63 lower-case letters, digits and hyphens")]
    BadName { name: String },
    #[error("{device} of the {kind} farm is taken already: give it back first, or choose another name")]
    Taken { kind: &'static str, device: String },
    #[error(
        "{device} comes from the {kind} farm, which cannot give it {what}: take it from a farm that can, or leave that out"
    )]
    Unsupported { kind: &'static str, device: String, what: String },
    #[error("{device}: the folder {} cannot be {verb}: {source}", .folder.display())]
    Folder { device: String, folder: PathBuf, verb: &'static str, source: io::Error },
    #[error("{device}: {} cannot be installed as {}: {source}; is it built, readable, and is there room?", .from.display(), .to.display())]
    Install { device: String, from: PathBuf, to: PathBuf, source: io::Error },
    #[error("{device}: {} would leave the device's folder: name files by relative paths without `..`", .path.display())]
    Outside { device: String, path: PathBuf },
    #[error("{program} is not installed on {device}: install it before it is run")]
    NotInstalled { device: String, program: String },
    #[error("{program} could not be started on {device}: {source}")]
    Start { device: String, program: String, source: io::Error },
    #[error("{program} runs on {device} already: kill it first")]
    Running { device: String, program: String },
    #[error("{program} was never run on {device}: run it first")]
    NeverRun { device: String, program: String },
    #[error("{program} does not run on {device} any more ({how}); its log ends:\n{}", indented(.words))]
    Ended { device: String, program: String, how: String, words: Vec<String> },
    #[error("{program} on {device} does not obey: {source}")]
    Signal { device: String, program: String, source: io::Error },
    #[error("{device}: the log {} cannot be read: {source}", .path.display())]
    Log { device: String, path: PathBuf, source: io::Error },
    #[error("{device}: no metrics from {url}: {detail}; does the program run, and is that where it listens?")]
    Metrics { device: String, url: String, detail: String },
    #[error("this machine cannot hold a {kind} farm: {why}")]
    Unable { kind: &'static str, why: String },
    #[error("{device} is to have {what}")]
    BadShape { device: String, what: String },
    #[error(
        "{device} is to have {asked} cores, with {taken:.2} given to others; together they may have {most:.2}, so that this machine keeps up: give less"
    )]
    TooMuchProcessor { device: String, asked: f64, taken: f64, most: f64 },
    #[error("{device}: {source}")]
    Adb { device: String, source: AdbError },
    #[error("{device} does not get {what}: {source}")]
    Kernel { device: String, what: &'static str, source: io::Error },
}

fn indented(lines: &[String]) -> String {
    if lines.is_empty() {
        return "  (it wrote nothing)".to_owned();
    }
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
