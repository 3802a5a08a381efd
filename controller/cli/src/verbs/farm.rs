//! `farm`: a shelf of phones that adb lists, as phones of a control plane that runs here. The file says which, and what their agents are given.
//!
//! What a phone is given lies in one folder of its shell's, with whose it is. So every verb here finds the farm by asking the devices: nothing is kept on
//! this machine but which control plane it is, and who lost the file's folder or the control plane has lost no phone.

mod control_plane;
mod down;
mod file;
mod host;
mod member;
mod status;
mod title;
mod twins;
mod up;

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueHint};
use polyphony_adb::{Adb, Installation};

use crate::connection::ClusterFlags;

/// The program of a phone.
const AGENT: &str = "polyphony-agent";
/// Everything of ours on a device. A shell may write there, and run what it has written. Another than that of tests, who remove what they find, and
/// than that of who joins a phone by hand.
const FOLDER: &str = "/data/local/tmp/polyphony-shelf";
/// Devices that are looked after at a time: each has a process of adb's.
const AT_ONCE: usize = 8;

/// Phones on cables, or whatever else adb lists, as one farm: their agents are pushed, joined and kept in step with the control plane of this machine
#[derive(Debug, Args)]
pub struct FarmVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Have every phone of a file run its agent, joined; what is so already is left alone
    Up(up::FarmUp),
    /// Show the devices of a file: what each is, how adb is with it, how its agent fares, and what to do
    Status(status::FarmStatus),
    /// End the agents of a file's phones and remove all that was put on them; their Phones are kept
    Down(down::FarmDown),
}

/// Which farm.
#[derive(Debug, Args)]
struct FileFlag {
    /// The farm: which devices, and what their agents are given, as in manifests/farm.yaml; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: String,
}

// === impl FarmVerb ===

impl FarmVerb {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Up(verb) => verb.run(cluster).await,
            What::Status(verb) => verb.run(cluster).await,
            What::Down(verb) => verb.run(cluster).await,
        }
    }
}

/// What is ours on a device.
fn installation(adb: &Adb, serial: &str) -> Installation {
    Installation::new(adb, serial, FOLDER)
}

/// Does what waits for adb, on a thread where that hinders nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work on a device ended before its time")
}

/// One `farm up` or `farm down` at a time, of those by this folder. None where there is no such folder yet.
fn turn(data_dir: &Path) -> anyhow::Result<Option<File>> {
    let path = data_dir.join("farm.lock");
    let file = match File::create(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be written", path.display())),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another `polyctl farm up` or `polyctl farm down` is at work in {}: wait for it to end",
                data_dir.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// A line about a phone, told as it happens.
fn say(width: usize, phone: &str, what: &str) {
    let mut out = io::stdout().lock();
    // A reader that has gone must not stop what is being started.
    let _ = writeln!(out, "{phone:<width$}   {what}").and_then(|()| out.flush());
}

/// Places in words.
fn looked_in(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
