//! Farms: where tests and benches take devices from, whatever the devices are. Knows no program of ours.
//!
//! A [`Farm`] lends [`Device`]s by name. What runs on them is told in words that fit a process on this machine, a network
//! namespace with cgroups, and a phone behind a cable alike: a program and its files are *installed* into the device's own
//! folder, and *run* there, so that arguments name files by relative paths; addresses are asked of the device, never assumed.
//! What a kind of device cannot do (an own CPU share, a slow link) it refuses by [`FarmError::Unsupported`], never silently.
//!
//! A device that is dropped is given back: what was run on it ends, and so does a farm with its devices.

pub mod adb;
pub mod error;
pub mod lab;
pub mod namespaces;
pub mod process;
mod programs;
mod scrape;
pub mod shape;
mod started;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use adb::AdbFarm;
pub use error::FarmError;
pub use namespaces::NamespaceFarm;
pub use polyphony_adb::Launch;
pub use process::ProcessFarm;
pub use shape::{Link, Shape};

/// A place that lends devices.
pub trait Farm: Send {
    /// What its devices are, in words that errors use: `process`.
    fn kind(&self) -> &'static str;

    /// Takes a device, which has nothing installed and runs nothing.
    ///
    /// # Errors
    /// When the name is taken or unfit, when no device is free, or when none can have the shape.
    fn take(&mut self, wish: &Wish) -> Result<Box<dyn Device>, FarmError>;
}

/// A device that was taken. Programs on it are known by the name that they were installed under.
pub trait Device: Send {
    fn name(&self) -> &str;

    /// Where other devices and this machine reach it, and what programs on it may listen on.
    fn address(&self) -> IpAddr;

    /// The folder on the device that programs are installed into and run in.
    fn folder(&self) -> &Path;

    /// Where the device reaches a port that is listened on at this machine's loopback.
    ///
    /// # Errors
    /// When no way can be laid from the device to this machine.
    fn host_port(&mut self, port: u16) -> Result<SocketAddr, FarmError>;

    /// Puts a program and its files on the device, replacing those of an earlier installation.
    ///
    /// # Errors
    /// When the program runs, a file cannot be read here or written there, or a path leaves the folder.
    fn install(&mut self, package: &Package) -> Result<(), FarmError>;

    /// Starts an installed program and returns at once.
    ///
    /// # Errors
    /// When it is not installed, runs already, or cannot be started.
    fn run(&mut self, launch: &Launch) -> Result<(), FarmError>;

    /// Whether a program runs, and how it ended if not.
    ///
    /// # Errors
    /// When the program was never run, or the device does not answer.
    fn state(&mut self, program: &str) -> Result<State, FarmError>;

    /// Ends a program without warning, and returns when it is gone. Its files stay.
    ///
    /// # Errors
    /// When it does not run.
    fn kill(&mut self, program: &str) -> Result<(), FarmError>;

    /// What a program has written to its standard output and error, over all its runs.
    ///
    /// # Errors
    /// When it was never run, or the log cannot be read.
    fn logs(&self, program: &str) -> Result<String, FarmError>;

    /// What a program on the device answers to `GET /metrics` on `port`.
    ///
    /// # Errors
    /// When nothing listens there, or the answer is no success.
    fn metrics(&mut self, port: u16) -> Result<String, FarmError>;

    /// Changes the device's share of the machine and its links, while programs run.
    ///
    /// # Errors
    /// [`FarmError::Unsupported`] for what this kind of device cannot be given.
    fn reshape(&mut self, shape: &Shape) -> Result<(), FarmError>;

    /// Ends what runs, removes what was installed, and frees the name.
    ///
    /// # Errors
    /// When something is left behind; it says what.
    fn give_back(self: Box<Self>) -> Result<(), FarmError>;
}

/// What is asked of a farm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Lower-case letters, digits and hyphens; unique among the devices that are taken.
    pub name: String,
    pub shape: Shape,
}

/// A program and the files that it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// The executable on this machine; installed under its file name.
    pub program: PathBuf,
    /// By path relative to the device's folder.
    pub files: BTreeMap<PathBuf, Content>,
}

/// What a file on a device holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A copy of this file of this machine.
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// How a program fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    /// In the device's words, such as `exit status: 1`.
    Ended(String),
}

// === impl Wish ===

impl Wish {
    /// A device of that name, in whatever shape it comes.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), shape: Shape::default() }
    }
}

// === impl Package ===

impl Package {
    /// A program that needs no files.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), files: BTreeMap::new() }
    }

    pub fn with(mut self, path: impl Into<PathBuf>, content: Content) -> Self {
        self.files.insert(path.into(), content);
        self
    }
}
