//! The process farm: each device is a folder, and its programs are processes of this machine. Limits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::scrape::scrape;
use crate::{Content, Device, Farm, FarmError, Launch, Package, Shape, State, Wish};

const KIND: &str = "process";
/// Lines of a log that an error shows.
const LAST_WORDS: usize = 12;
/// Where logs are, beside what is installed.
const LOGS: &str = ".logs";
/// How long another process may hold a program open for writing.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Lends folders below its own.
pub struct ProcessFarm {
    folder: PathBuf,
    taken: Arc<Mutex<BTreeSet<String>>>,
}

struct ProcessDevice {
    name: String,
    folder: PathBuf,
    /// By program; those that ended as well.
    processes: BTreeMap<String, Child>,
    /// The farm's names; this one's is removed at the end.
    taken: Arc<Mutex<BTreeSet<String>>>,
}

// === impl ProcessFarm ===

impl ProcessFarm {
    /// A farm whose devices are folders in `folder`, which is made when it is not there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), taken: Arc::default() }
    }
}

impl Farm for ProcessFarm {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn take(&mut self, wish: &Wish) -> Result<Box<dyn Device>, FarmError> {
        let name = wish.name.clone();
        let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(is_fit) {
            return Err(FarmError::BadName { name });
        }
        refuse_limits(&name, &wish.shape)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains(&name) {
            return Err(FarmError::Taken { kind: KIND, device: name });
        }
        let folder_error =
            |verb, source| FarmError::Folder { device: name.clone(), folder: self.folder.join(&name), verb, source };
        let folder = std::path::absolute(self.folder.join(&name)).map_err(|source| folder_error("named", source))?;
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|source| folder_error("emptied", source))?;
        }
        fs::create_dir_all(folder.join(LOGS)).map_err(|source| folder_error("made", source))?;
        taken.insert(name.clone());
        Ok(Box::new(ProcessDevice { name, folder, processes: BTreeMap::new(), taken: Arc::clone(&self.taken) }))
    }
}

fn refuse_limits(device: &str, shape: &Shape) -> Result<(), FarmError> {
    let limits = shape.limits();
    if limits.is_empty() {
        return Ok(());
    }
    Err(FarmError::Unsupported { kind: KIND, device: device.to_owned(), what: limits.join(" or ") })
}

// === impl ProcessDevice ===

impl Device for ProcessDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn host_port(&mut self, port: u16) -> Result<SocketAddr, FarmError> {
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    fn install(&mut self, package: &Package) -> Result<(), FarmError> {
        let program = package.program.file_name().map(PathBuf::from).unwrap_or_default();
        self.refuse_running(&program.to_string_lossy())?;
        self.put(&program, &Content::File(package.program.clone()))?;
        package.files.iter().try_for_each(|(path, content)| self.put(path, content))
    }

    fn run(&mut self, launch: &Launch) -> Result<(), FarmError> {
        self.refuse_running(&launch.program)?;
        let program = self.place(Path::new(&launch.program))?;
        if !program.is_file() {
            return Err(FarmError::NotInstalled { device: self.name.clone(), program: launch.program.clone() });
        }
        let child = self.start(&program, launch).map_err(|source| FarmError::Start {
            device: self.name.clone(),
            program: launch.program.clone(),
            source,
        })?;
        self.processes.insert(launch.program.clone(), child);
        Ok(())
    }

    fn state(&mut self, program: &str) -> Result<State, FarmError> {
        let device = self.name.clone();
        let Some(child) = self.processes.get_mut(program) else {
            return Err(FarmError::NeverRun { device, program: program.to_owned() });
        };
        match child.try_wait() {
            Ok(None) => Ok(State::Running),
            Ok(Some(status)) => Ok(State::Ended(status.to_string())),
            Err(source) => Err(FarmError::Signal { device, program: program.to_owned(), source }),
        }
    }

    fn kill(&mut self, program: &str) -> Result<(), FarmError> {
        if let State::Ended(how) = self.state(program)? {
            let words = self.last_words(program);
            return Err(FarmError::Ended { device: self.name.clone(), program: program.to_owned(), how, words });
        }
        let Some(child) = self.processes.get_mut(program) else { return Ok(()) };
        child.kill().and_then(|()| child.wait().map(drop)).map_err(|source| FarmError::Signal {
            device: self.name.clone(),
            program: program.to_owned(),
            source,
        })
    }

    fn logs(&self, program: &str) -> Result<String, FarmError> {
        if !self.processes.contains_key(program) {
            return Err(FarmError::NeverRun { device: self.name.clone(), program: program.to_owned() });
        }
        let path = self.log(program);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(FarmError::Log { device: self.name.clone(), path, source }),
        }
    }

    fn metrics(&mut self, port: u16) -> Result<String, FarmError> {
        let address = SocketAddr::new(self.address(), port);
        scrape(address).map_err(|detail| FarmError::Metrics {
            device: self.name.clone(),
            url: format!("http://{address}/metrics"),
            detail,
        })
    }

    fn reshape(&mut self, shape: &Shape) -> Result<(), FarmError> {
        refuse_limits(&self.name, shape)
    }

    fn give_back(mut self: Box<Self>) -> Result<(), FarmError> {
        self.end_all()?;
        fs::remove_dir_all(&self.folder).map_err(|source| FarmError::Folder {
            device: self.name.clone(),
            folder: self.folder.clone(),
            verb: "removed",
            source,
        })
    }
}

impl ProcessDevice {
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
            return Err(FarmError::Running { device: self.name.clone(), program: program.to_owned() });
        }
        Ok(())
    }

    /// Where a relative path is on this machine.
    fn place(&self, path: &Path) -> Result<PathBuf, FarmError> {
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.file_name().is_none() || !is_inside {
            return Err(FarmError::Outside { device: self.name.clone(), path: path.to_owned() });
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
        written.map_err(|source| FarmError::Install { device: self.name.clone(), from, to, source })
    }

    fn start(&self, program: &Path, launch: &Launch) -> io::Result<Child> {
        let output = File::options().create(true).append(true).open(self.log(&launch.program))?;
        let mut command = Command::new(program);
        command
            .args(&launch.arguments)
            // A log is for reading with any program: no colours.
            .env("NO_COLOR", "1")
            .envs(&launch.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal is for the test, which then ends its devices.
            .process_group(0);
        let began = Instant::now();
        loop {
            match command.spawn() {
                // A process that another thread is just starting may still hold the program open as it was written.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && began.elapsed() < BUSY_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                spawned => return spawned,
            }
        }
    }

    fn end_all(&mut self) -> Result<(), FarmError> {
        for (program, mut child) in std::mem::take(&mut self.processes) {
            // One that has ended by itself is reaped by the second call.
            child.kill().and_then(|()| child.wait().map(drop)).map_err(|source| FarmError::Signal {
                device: self.name.clone(),
                program,
                source,
            })?;
        }
        Ok(())
    }
}

impl Drop for ProcessDevice {
    fn drop(&mut self) {
        if let Err(error) = self.end_all() {
            eprintln!("{error}");
        }
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
