//! The binary under test, and what it printed.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// A program's file may not be open for writing while it is started, and a process that another test starts meanwhile
/// would hold it open for an instant: files are written and processes started one at a time.
static FILES_AND_STARTS: Mutex<()> = Mutex::new(());

/// What one run left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The binary, in a world without the person's own clusters; its home is `home`.
pub fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_polyctl"))
}

pub fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let _turn = FILES_AND_STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts a command whose standard output is read.
pub fn start(command: &mut Command) -> Child {
    let _turn = FILES_AND_STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    start(command).wait_with_output().unwrap().into()
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// The output of a run that has to succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The errors of a run that has to fail as kubectl fails.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.stderr
    }
}
