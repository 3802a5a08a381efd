//! A device of adb's: programs in one folder of its shell's, ways to this machine, restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use polyphony_adb::script::{self, Told, quoted};
use polyphony_adb::store::{Store, Wanted};
use polyphony_adb::{AdbError, Traits, elf};
use polyphony_journal::tell;

use super::{BASE, FORWARDS, Hold, Lab, REVERSES, STORE, refuse_limits};
use crate::scrape::scrape;
use crate::{Content, Device, FarmError, Launch, Package, Shape, State};

/// Lines of a log that an error shows.
const LAST_WORDS: usize = 12;
/// How often another port is tried where somebody was faster.
const N_PORTS: usize = 3;

/// A device that was taken from an [`AdbFarm`](super::AdbFarm).
pub struct AdbDevice {
    name: String,
    serial: String,
    traits: Traits,
    folder: PathBuf,
    /// Ports of this machine that the device reaches at its own loopback.
    ways: BTreeSet<u16>,
    is_given_back: bool,
    /// Whether nothing of it is left.
    is_cleared: bool,
    lab: Arc<Lab>,
}

// === impl AdbDevice ===

impl AdbDevice {
    /// A device with an empty folder. From here on it is given back by being dropped.
    pub(super) fn new(name: &str, serial: String, traits: Traits, lab: Arc<Lab>) -> Result<Self, AdbError> {
        let (folder, ways) = (Path::new(BASE).join(name), BTreeSet::new());
        let (name, is_given_back, is_cleared) = (name.to_owned(), false, false);
        let device = Self { name, serial, traits, folder, ways, is_given_back, is_cleared, lab };
        let folder = quoted(&device.folder_text());
        // One of that name that went away while it was taken has left something.
        let script = format!("{} && rm -rf {folder} && mkdir {folder}", script::kill_all(&folder));
        device.ask("make its folder", &script)?;
        Ok(device)
    }

    /// What adb calls it.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What it says it is.
    pub fn traits(&self) -> &Traits {
        &self.traits
    }

    /// Puts bytes on the device while programs run, in place at once: a program may read them at any moment. Nobody but the shell's user may.
    ///
    /// # Errors
    /// When the path leaves the folder, or they do not arrive.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), FarmError> {
        let place = self.place(path)?;
        let (to, fresh) = (quoted(&place), quoted(&format!("{place}.new")));
        let script = format!("umask 077; mkdir -p $(dirname {to}) && cat >{fresh} && mv {fresh} {to}");
        let put = self.lab.adb.ask(&self.serial, "write a file", &script, Some(bytes));
        put.map(drop).map_err(|source| self.error(source))
    }

    /// Restarts the device, and waits until it takes commands again and reaches this machine as before. Its programs have ended then; its files are there.
    ///
    /// # Errors
    /// When it is not back in time.
    pub fn restart(&mut self) -> Result<(), FarmError> {
        let adb = &self.lab.adb;
        let restarted = self.life().and_then(|before| {
            let asked = adb.call(&self.serial, &["reboot"], adb.patience.call);
            // An adbd that knows no such order has a shell that does. That its connection ends is what was asked for.
            if let Err(AdbError::Cut { .. } | AdbError::Refused { .. }) = asked
                && let Err(error) = adb.shell(&self.serial, "restart the device", "reboot", None)
                && !matches!(error, AdbError::Cut { .. } | AdbError::Offline | AdbError::NotListed { .. })
            {
                return Err(error);
            }
            self.lab.await_ready(&self.serial, adb.patience.restart, || {
                Ok(self.life()? != before
                    && self.ask("see whether it has started", "getprop sys.boot_completed")?.trim() == "1")
            })
        });
        restarted.map_err(|source| self.error(source))?;
        self.lay_ways()
    }

    /// Waits for a device whose connection was lost, or whose adb server was, and lays its ways to this machine anew.
    ///
    /// # Errors
    /// When it does not come back within the time of a restart.
    pub fn await_back(&mut self) -> Result<(), FarmError> {
        let adb = &self.lab.adb;
        let back = adb
            .start_server()
            .and_then(|()| self.lab.await_ready(&self.serial, adb.patience.restart, || self.life().map(|_| true)));
        back.map_err(|source| self.error(source))?;
        self.lay_ways()
    }

    /// Another one after each restart: the kernel's boot, and adbd's own start.
    fn life(&self) -> Result<String, AdbError> {
        let script = "cat /proc/sys/kernel/random/boot_id && read -r stat </proc/$PPID/stat && set -- ${stat##*) } && echo $PPID ${20}";
        self.ask("see since when it runs", script)
    }

    /// What failed is tried again by the next call: the ways that were asked for stay known.
    fn lay_ways(&mut self) -> Result<(), FarmError> {
        let laid = self.laid_ways().map_err(|source| self.error(source))?;
        let asked_for = std::mem::take(&mut self.ways);
        let missing = asked_for.difference(&laid);
        let result = missing.copied().try_for_each(|port| self.host_port(port).map(drop));
        self.ways = asked_for;
        result
    }

    /// Those of the device's ports that lead to the same one of this machine, whoever has laid them.
    fn laid_ways(&self) -> Result<BTreeSet<u16>, AdbError> {
        let listed = self.lab.adb.call(&self.serial, &["reverse", "--list"], self.lab.adb.patience.call)?;
        let way = |line: &str| {
            let (from, to) = line.trim_end().rsplit_once(' ')?;
            let port = to.strip_prefix("tcp:")?;
            from.ends_with(&format!(" {to}")).then(|| port.parse().ok())?
        };
        Ok(listed.lines().filter_map(way).collect())
    }

    fn ask(&self, what: &str, script: &str) -> Result<String, AdbError> {
        self.lab.adb.ask(&self.serial, what, script, None)
    }

    fn folder_text(&self) -> String {
        self.folder.to_string_lossy().into_owned()
    }

    fn error(&self, source: AdbError) -> FarmError {
        FarmError::Adb { device: self.name.clone(), source }
    }

    /// Where a relative path is on the device.
    fn place(&self, path: &Path) -> Result<String, FarmError> {
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.file_name().is_none() || !is_inside {
            return Err(FarmError::Outside { device: self.name.clone(), path: path.to_owned() });
        }
        Ok(self.folder.join(path).to_string_lossy().into_owned())
    }

    fn told(&self, program: &str) -> Result<Told, FarmError> {
        let said = self.ask("see how a program fares", &script::state(&self.folder_text(), program));
        let told = said.and_then(|said| {
            script::told(&said).ok_or_else(|| AdbError::Refused { what: "see how a program fares".to_owned(), said })
        });
        told.map_err(|source| self.error(source))
    }

    fn never_run(&self, program: &str) -> FarmError {
        FarmError::NeverRun { device: self.name.clone(), program: program.to_owned() }
    }

    fn ended(&self, program: &str, how: String) -> FarmError {
        let log = self.logs(program).unwrap_or_default();
        let lines: Vec<String> = log.lines().map(str::to_owned).collect();
        let words = lines[lines.len().saturating_sub(LAST_WORDS)..].to_vec();
        FarmError::Ended { device: self.name.clone(), program: program.to_owned(), how, words }
    }

    /// Writes a way down before it is laid.
    fn note(&self, file: &str, way: &str) -> Result<(), AdbError> {
        self.ask("note a way", &format!("echo {way} >>{BASE}/{file}")).map(drop)
    }

    /// Brings files into the device's store, and from there to their places.
    fn bring(&self, files: &BTreeMap<String, Wanted>) -> Result<(), AdbError> {
        let store = Store { adb: &self.lab.adb, serial: &self.serial, folder: format!("{BASE}/{STORE}") };
        let wanted: Vec<Wanted> = files.values().cloned().collect();
        let (stored, pushed_bytes) = store.bring(&wanted)?;
        self.lab.pushed_bytes.fetch_add(pushed_bytes, Ordering::Relaxed);
        let mut script = String::new();
        for (to, from) in files.keys().zip(&stored) {
            let (from, to) = (quoted(from), quoted(to));
            // A second name for the same bytes costs nothing; where Android does not let a shell make one, it is a copy.
            script += &format!(
                "mkdir -p $(dirname {to}) && rm -f {to} && {{ ln {from} {to} 2>/dev/null || cp {from} {to}; }} || exit 1\n"
            );
        }
        self.ask("put files in their places", &script).map(drop)
    }

    fn scrape_over_a_forward(&self, port: u16) -> Result<String, AdbError> {
        let local = self.lay_forward(port)?;
        let scraped = scrape((Ipv4Addr::LOCALHOST, local).into());
        let adb = &self.lab.adb;
        adb.call(&self.serial, &["forward", "--remove", &format!("tcp:{local}")], adb.patience.call)?;
        scraped.map_err(|said| AdbError::Refused { what: "scrape".to_owned(), said })
    }

    /// A port of this machine's that leads to the device's. Adb would choose one itself, and tell it when it is laid: too late to be noted.
    fn lay_forward(&self, port: u16) -> Result<u16, AdbError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
            let refused =
                |error: std::io::Error| AdbError::Refused { what: "find a port".to_owned(), said: error.to_string() };
            let local = free.map_err(refused)?.port();
            let way = format!("tcp:{local}");
            self.note(FORWARDS, &way)?;
            let adb = &self.lab.adb;
            let words = ["forward", "--no-rebind", &way, &format!("tcp:{port}")];
            match adb.call(&self.serial, &words, adb.patience.call) {
                Ok(_) => return Ok(local),
                Err(AdbError::Refused { .. }) if tried < N_PORTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends its programs, and removes its folder and its ways.
    fn clear(&mut self) -> Result<(), AdbError> {
        let folder = quoted(&self.folder_text());
        self.ask("end and remove what is on it", &script::remove(&folder, &folder))?;
        let (adb, laid) = (&self.lab.adb, self.laid_ways()?);
        // A device that was away has forgotten them.
        for port in std::mem::take(&mut self.ways).intersection(&laid) {
            adb.call(&self.serial, &["reverse", "--remove", &format!("tcp:{port}")], adb.patience.call)?;
        }
        Ok(())
    }
}

impl Device for AdbDevice {
    fn name(&self) -> &str {
        &self.name
    }

    /// Its own loopback: whom nobody can dial, others reach over the hub.
    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    /// The same port of the device's own loopback, which adb leads here.
    fn host_port(&mut self, port: u16) -> Result<SocketAddr, FarmError> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        if self.ways.contains(&port) {
            return Ok(address);
        }
        let way = format!("tcp:{port}");
        let adb = &self.lab.adb;
        let laid = self.note(REVERSES, &way).and_then(|()| {
            // Nobody else's way is taken away.
            adb.call(&self.serial, &["reverse", "--no-rebind", &way, &way], adb.patience.call)
        });
        laid.map_err(|source| self.error(source))?;
        self.ways.insert(port);
        Ok(address)
    }

    fn install(&mut self, package: &Package) -> Result<(), FarmError> {
        let program = package.program.file_name().map(PathBuf::from).unwrap_or_default();
        let program_name = program.to_string_lossy().into_owned();
        let mut files: BTreeMap<String, Wanted> = BTreeMap::new();
        let mut bytes: Vec<(&Path, &[u8])> = Vec::new();
        let content = Content::File(package.program.clone());
        for (path, content) in [(&program, &content)].into_iter().chain(&package.files) {
            let to = self.place(path)?;
            match content {
                Content::Bytes(content) => bytes.push((path, content)),
                Content::File(from) => {
                    let wanted = Wanted::of(from).map_err(|source| FarmError::Install {
                        device: self.name.clone(),
                        from: from.clone(),
                        to: to.clone().into(),
                        source,
                    })?;
                    files.insert(to, wanted);
                }
            }
        }
        if self.told(&program_name)? == Told::Running {
            return Err(FarmError::Running { device: self.name.clone(), program: program_name });
        }
        let head = elf::head(&package.program).map_err(|source| FarmError::Install {
            device: self.name.clone(),
            from: package.program.clone(),
            to: self.folder.join(&program),
            source,
        })?;
        elf::check(&program_name, &head, &self.traits.abis).map_err(|source| self.error(source))?;
        self.bring(&files).map_err(|source| self.error(source))?;
        bytes.into_iter().try_for_each(|(path, content)| self.put(path, content))
    }

    fn run(&mut self, launch: &Launch) -> Result<(), FarmError> {
        let started =
            self.lab.adb.shell(&self.serial, "start a program", &script::start(&self.folder_text(), launch), None);
        let answer = started.map_err(|source| self.error(source))?;
        let (device, program) = (self.name.clone(), launch.program.clone());
        match answer.code {
            0 => Ok(()),
            3 => Err(FarmError::NotInstalled { device, program }),
            4 => Err(FarmError::Running { device, program }),
            code => {
                let said = format!("exit status {code}: {}{}", String::from_utf8_lossy(&answer.stdout), answer.stderr);
                Err(FarmError::Start { device, program, source: std::io::Error::other(said) })
            }
        }
    }

    fn state(&mut self, program: &str) -> Result<State, FarmError> {
        match self.told(program)? {
            Told::Never => Err(self.never_run(program)),
            Told::Running => Ok(State::Running),
            Told::Exit(code) if code > 128 => Ok(State::Ended(format!("signal: {}", code - 128))),
            Told::Exit(code) => Ok(State::Ended(format!("exit status: {code}"))),
            Told::Gone => Ok(State::Ended("killed, or gone with a restart of the device".to_owned())),
        }
    }

    fn kill(&mut self, program: &str) -> Result<(), FarmError> {
        if let State::Ended(how) = self.state(program)? {
            return Err(self.ended(program, how));
        }
        let killed = self.ask("kill a program", &script::kill(&self.folder_text(), program));
        killed.map(drop).map_err(|source| self.error(source))
    }

    fn logs(&self, program: &str) -> Result<String, FarmError> {
        if self.told(program)? == Told::Never {
            return Err(self.never_run(program));
        }
        self.ask("read a log", &script::log(&self.folder_text(), program)).map_err(|source| self.error(source))
    }

    fn metrics(&mut self, port: u16) -> Result<String, FarmError> {
        self.scrape_over_a_forward(port).map_err(|error| FarmError::Metrics {
            device: self.name.clone(),
            url: format!("http://127.0.0.1:{port}/metrics"),
            detail: error.to_string(),
        })
    }

    fn reshape(&mut self, shape: &Shape) -> Result<(), FarmError> {
        refuse_limits(&self.name, shape)
    }

    fn give_back(mut self: Box<Self>) -> Result<(), FarmError> {
        self.is_given_back = true;
        let cleared = self.clear();
        self.is_cleared = cleared.is_ok();
        cleared.map_err(|source| self.error(source))
    }
}

impl Drop for AdbDevice {
    fn drop(&mut self) {
        if !self.is_given_back {
            match self.clear() {
                Ok(()) => self.is_cleared = true,
                Err(error) => tell!("{}", self.error(error)),
            }
        }
        // Its name is free, whatever is left on it: the farm's end and the next who takes it look after that.
        let hold = if self.is_cleared { Hold::Free } else { Hold::Claimed };
        self.lab.devices().insert(self.serial.clone(), hold);
    }
}
