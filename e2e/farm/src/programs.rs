//! Programs: what is installed in a device's folder and runs there as processes of this machine. Knows no limits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use polyphony_journal::tell;

use crate::{Content, FarmError, Launch, Package, State};

/// Lines of a log that an error shows.
const LAST_WORDS: usize = 12;
/// Where logs are, beside what is installed.
const LOGS: &str = ".logs";
/// How long another process may hold a program open for writing.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// The programs of one device, in a folder of its own. Dropped, they end.
pub(crate) struct Programs {
    device: String,
    folder: PathBuf,
    /// By program; those that ended as well.
    processes: BTreeMap<String, Child>,
}

/// # Errors
/// When it is no DNS label.
pub(crate) fn check_name(name: &str) -> Result<(), FarmError> {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(is_fit) {
        return Err(FarmError::BadName { name: name.to_owned() });
    }
    Ok(())
}

// === impl Programs ===

impl Programs {
    /// An empty folder for the device, in `farm`; what an earlier device of that name left there is removed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn new(device: &str, farm: &Path) -> Result<Self, FarmError> {
        let folder_error =
            |verb, source| FarmError::Folder { device: device.to_owned(), folder: farm.join(device), verb, source };
        let folder = std::path::absolute(farm.join(device)).map_err(|source| folder_error("named", source))?;
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|source| folder_error("emptied", source))?;
        }
        fs::create_dir_all(folder.join(LOGS)).map_err(|source| folder_error("made", source))?;
        Ok(Self { device: device.to_owned(), folder, processes: BTreeMap::new() })
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn install(&mut self, package: &Package) -> Result<(), FarmError> {
        let program = package.program.file_name().map(PathBuf::from).unwrap_or_default();
        self.refuse_running(&program.to_string_lossy())?;
        self.put(&program, &Content::File(package.program.clone()))?;
        package.files.iter().try_for_each(|(path, content)| self.put(path, content))
    }

    /// Starts an installed program; `spawn` says in which surroundings.
    pub(crate) fn run(
        &mut self,
        launch: &Launch,
        spawn: impl Fn(Command) -> io::Result<Child>,
    ) -> Result<(), FarmError> {
        self.refuse_running(&launch.program)?;
        let program = self.place(Path::new(&launch.program))?;
        if !program.is_file() {
            return Err(FarmError::NotInstalled { device: self.device.clone(), program: launch.program.clone() });
        }
        let child = self.start(&program, launch, spawn).map_err(|source| FarmError::Start {
            device: self.device.clone(),
            program: launch.program.clone(),
            source,
        })?;
        self.processes.insert(launch.program.clone(), child);
        Ok(())
    }

    pub(crate) fn state(&mut self, program: &str) -> Result<State, FarmError> {
        let device = self.device.clone();
        let Some(child) = self.processes.get_mut(program) else {
            return Err(FarmError::NeverRun { device, program: program.to_owned() });
        };
        match child.try_wait() {
            Ok(None) => Ok(State::Running),
            Ok(Some(status)) => Ok(State::Ended(status.to_string())),
            Err(source) => Err(FarmError::Signal { device, program: program.to_owned(), source }),
        }
    }

    pub(crate) fn kill(&mut self, program: &str) -> Result<(), FarmError> {
        if let State::Ended(how) = self.state(program)? {
            let words = self.last_words(program);
            return Err(FarmError::Ended { device: self.device.clone(), program: program.to_owned(), how, words });
        }
        let Some(child) = self.processes.get_mut(program) else { return Ok(()) };
        child.kill().and_then(|()| child.wait().map(drop)).map_err(|source| FarmError::Signal {
            device: self.device.clone(),
            program: program.to_owned(),
            source,
        })
    }

    pub(crate) fn logs(&self, program: &str) -> Result<String, FarmError> {
        if !self.processes.contains_key(program) {
            return Err(FarmError::NeverRun { device: self.device.clone(), program: program.to_owned() });
        }
        let path = self.log(program);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(FarmError::Log { device: self.device.clone(), path, source }),
        }
    }

    pub(crate) fn end_all(&mut self) -> Result<(), FarmError> {
        for (program, mut child) in std::mem::take(&mut self.processes) {
            // One that has ended by itself is reaped by the second call.
            child.kill().and_then(|()| child.wait().map(drop)).map_err(|source| FarmError::Signal {
                device: self.device.clone(),
                program,
                source,
            })?;
        }
        Ok(())
    }

    /// Ends what runs and removes the folder.
    pub(crate) fn remove(&mut self) -> Result<(), FarmError> {
        self.end_all()?;
        fs::remove_dir_all(&self.folder).map_err(|source| FarmError::Folder {
            device: self.device.clone(),
            folder: self.folder.clone(),
            verb: "removed",
            source,
        })
    }

    fn log(&self, program: &str) -> PathBuf {
        self.folder.join(LOGS).join(format!("{program}.log"))
    }

    fn last_words(&self, program: &str) -> Vec<String> {
        let log = self.logs(program).unwrap_or_default();
        let lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].to_vec()
    }

    fn refuse_running(&mut self, program: &str) -> Result<(), FarmError> {
        if self.processes.contains_key(program) && self.state(program)? == State::Running {
            return Err(FarmError::Running { device: self.device.clone(), program: program.to_owned() });
        }
        Ok(())
    }

    /// Where a relative path is on this machine.
    fn place(&self, path: &Path) -> Result<PathBuf, FarmError> {
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.file_name().is_none() || !is_inside {
            return Err(FarmError::Outside { device: self.device.clone(), path: path.to_owned() });
        }
        Ok(self.folder.join(path))
    }

    fn put(&self, path: &Path, content: &Content) -> Result<(), FarmError> {
        let to = self.place(path)?;
        let written = (|| {
            fs::create_dir_all(to.parent().unwrap_or(&self.folder))?;
            match fs::remove_file(&to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            match content {
                // A second name for the same bytes costs nothing, and stays when the first is written anew by a build.
                Content::File(from) => fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(drop)),
                Content::Bytes(bytes) => {
                    fs::write(&to, bytes)?;
                    // A token must not be for every user of the machine.
                    fs::set_permissions(&to, fs::Permissions::from_mode(0o600))
                }
            }
        })();
        let from = match content {
            Content::File(from) => from.clone(),
            Content::Bytes(bytes) => format!("{} bytes", bytes.len()).into(),
        };
        written.map_err(|source| FarmError::Install { device: self.device.clone(), from, to, source })
    }

    fn start(
        &self,
        program: &Path,
        launch: &Launch,
        spawn: impl Fn(Command) -> io::Result<Child>,
    ) -> io::Result<Child> {
        let output = File::options().create(true).append(true).open(self.log(&launch.program))?;
        let began = Instant::now();
        loop {
            let mut command = Command::new(program);
            command
                .args(&launch.arguments)
                // A log is for reading with any program: no colours.
                .env("NO_COLOR", "1")
                .envs(&launch.environment)
                .current_dir(&self.folder)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output.try_clone()?)
                // Ctrl-C in a terminal is for the test, which then ends its devices.
                .process_group(0);
            match spawn(command) {
                // A process that another thread is just starting may still hold the program open as it was written.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && began.elapsed() < BUSY_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                spawned => return spawned,
            }
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if let Err(error) = self.end_all() {
            tell!("{error}");
        }
    }
}
