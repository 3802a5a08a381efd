//! Installations: one program in one folder of a device's, which stays and runs when whoever put it there has ended.
//!
//! The folder says whose it is, what was started in it, and which ways were laid for it. So any later process finds it as it is, brings it up to date, and
//! removes all of it; nothing else on the device is touched.

use std::collections::BTreeSet;
use std::path::Path;

use crate::client::Adb;
use crate::elf;
use crate::launch::Launch;
use crate::script::{self, Told, quoted};
use crate::store::{Store, Wanted};
use crate::verdict::AdbError;

/// Says whose it is.
const OWNER: &str = ".owner";
const STORE: &str = ".store";
/// Ports of the device that lead to this machine, as they were laid for it.
const WAYS: &str = ".ways";
/// Where the program runs.
const HOME: &str = "home";
/// What was started last, in [`HOME`].
const LAUNCHED: &str = ".launched";

/// What is, or is to be, in one folder of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Installation {
    adb: Adb,
    serial: String,
    /// A path of plain words, which a shell takes as they are.
    folder: &'static str,
}

/// A program that lies in the device's store.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    name: String,
    /// By the digest of what it holds.
    path: String,
    /// None of it where it was there.
    pub pushed_bytes: u64,
}

// === impl Installation ===

impl Installation {
    /// What `folder` of the device holds. Asks nothing of it yet.
    pub fn new(adb: &Adb, serial: &str, folder: &'static str) -> Self {
        Self { adb: adb.clone(), serial: serial.to_owned(), folder }
    }

    /// Who has it; none where nobody has.
    ///
    /// # Errors
    /// The verdict on a device that does not answer; so too for the methods below.
    pub fn owner(&self) -> Result<Option<String>, AdbError> {
        let script = format!("cat {}/{OWNER} 2>/dev/null; true", self.folder);
        let said = self.ask("see whose it is", &script)?;
        Ok(Some(said.trim().to_owned()).filter(|owner| !owner.is_empty()))
    }

    /// Makes it `owner`'s where it is nobody's, and says whose it is then. Of two that come at once, one gets it.
    pub fn claim(&self, owner: &str) -> Result<String, AdbError> {
        let script = claim(self.folder, owner);
        Ok(self.ask("write whose it is", &script)?.trim().to_owned())
    }

    /// Brings a program into the store, and leaves what runs alone.
    ///
    /// # Errors
    /// When the file cannot be read or is for other devices than one that runs `abis`, and as [`Store::bring`].
    pub fn bring(&self, program: &Path, abis: &[String]) -> Result<Stored, AdbError> {
        let unreadable = |error: std::io::Error| AdbError::Refused {
            what: format!("read {}", program.display()),
            said: error.to_string(),
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = Wanted::of(program).map_err(unreadable)?;
        elf::check(&name, &elf::head(program).map_err(unreadable)?, abis)?;
        let store = Store { adb: &self.adb, serial: &self.serial, folder: format!("{}/{STORE}", self.folder) };
        let (paths, pushed_bytes) = store.bring(&[wanted])?;
        let path = paths.into_iter().next().unwrap_or_default();
        Ok(Stored { name, path, pushed_bytes })
    }

    /// How the program fares.
    pub fn state(&self, program: &str) -> Result<Told, AdbError> {
        let said = self.ask("see how a program fares", &script::state(&self.home(), program))?;
        script::told(&said).ok_or_else(|| AdbError::Refused { what: "see how a program fares".to_owned(), said })
    }

    /// Whether exactly this runs: the program, by what it holds, with these arguments.
    pub fn runs(&self, stored: &Stored, launch: &Launch) -> Result<bool, AdbError> {
        let script = format!("cat {}/{LAUNCHED} 2>/dev/null; true", self.home());
        let is_as_asked = self.ask("see what was started", &script)?.trim() == described(stored, launch);
        Ok(is_as_asked && self.state(&launch.program)? == Told::Running)
    }

    /// Ends what runs, puts the program and its files in their places, and starts it. Files are for the shell's user alone; those of earlier runs stay.
    ///
    /// # Errors
    /// When it cannot be started; with what the device's shell said.
    pub fn start(&self, stored: &Stored, files: &[(&str, &[u8])], launch: &Launch) -> Result<(), AdbError> {
        let home = self.home();
        self.ask("end what runs", &script::kill_all(&home))?;
        let (from, to) = (quoted(&stored.path), quoted(&format!("{home}/{}", stored.name)));
        // A second name for the same bytes costs nothing; where Android does not let a shell make one, it is a copy. What no program is made of any more goes.
        let script = format!(
            "rm -f {to} {home}/{LAUNCHED} && {{ ln {from} {to} 2>/dev/null || cp {from} {to}; }} && chmod 755 {to} || exit 1
for file in {}/{STORE}/*; do [ \"$file\" = {from} ] || rm -f \"$file\"; done",
            self.folder
        );
        self.ask("put the program in its place", &script)?;
        for (name, bytes) in files {
            self.put(name, bytes)?;
        }
        self.put(LAUNCHED, described(stored, launch).as_bytes())?;
        let answer = self.adb.shell(&self.serial, "start a program", &script::start(&home, launch), None)?;
        match answer.code {
            0 => Ok(()),
            code => Err(AdbError::Refused {
                what: format!("start {}", launch.program),
                said: format!("exit status {code}: {}{}", String::from_utf8_lossy(&answer.stdout), answer.stderr),
            }),
        }
    }

    /// The last lines of what the program wrote, and of `log`, which it keeps itself.
    pub fn last_words(&self, program: &str, log: &str, n_lines: usize) -> Result<Vec<String>, AdbError> {
        let (home, log) = (quoted(&self.home()), quoted(log));
        let said = quoted(&format!(".logs/{program}.log"));
        let script = format!(
            "cd {home} 2>/dev/null || exit 0\nfor file in {log} {said}; do [ ! -f \"$file\" ] || tail -n {n_lines} \"$file\"; done\ntrue"
        );
        Ok(self.ask("read a log", &script)?.lines().map(str::to_owned).collect())
    }

    /// Ends a program; one that does not run is ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&self, program: &str) -> Result<(), AdbError> {
        self.ask("end a program", &script::kill(&self.home(), program)).map(drop)
    }

    /// A file beside the program, such as it has written; empty where there is none.
    pub fn read(&self, name: &str) -> Result<String, AdbError> {
        let script = format!("cat {} 2>/dev/null; true", quoted(&format!("{}/{name}", self.home())));
        self.ask("read a file", &script)
    }

    /// Has these ports of the device's loopback lead to the same ones of this machine, and no others of ours. Whether one did not before.
    ///
    /// # Errors
    /// When a port of the device leads elsewhere, or a program on it has it.
    pub fn lay_ways(&self, ports: &BTreeSet<u16>) -> Result<bool, AdbError> {
        let (noted, laid) = (self.noted_ways()?, self.laid_ways()?);
        for port in noted.difference(ports).filter(|port| laid.contains(port)) {
            self.reverse(&["--remove", &way(*port)])?;
        }
        let missing: BTreeSet<u16> = ports.difference(&laid).copied().collect();
        // Written down before they are laid. What somebody else has laid is not ours to remove.
        let ours: BTreeSet<u16> = noted.intersection(ports).chain(&missing).copied().collect();
        if ours != noted {
            let lines: String = ours.iter().map(|port| format!("{port}\n")).collect();
            self.write(&format!("{}/{WAYS}", self.folder), lines.as_bytes())?;
        }
        for port in &missing {
            self.reverse(&["--no-rebind", &way(*port), &way(*port)])?;
        }
        Ok(!missing.is_empty())
    }

    /// Whether all of these ports lead to this machine.
    pub fn leads(&self, ports: &BTreeSet<u16>) -> Result<bool, AdbError> {
        Ok(ports.is_subset(&self.laid_ways()?))
    }

    /// Ends what runs and removes all of it, ways and folder. A device that has nothing of it is left as it is, and the folder stays while something runs.
    ///
    /// # Errors
    /// When something is left.
    pub fn remove(&self) -> Result<(), AdbError> {
        let (noted, laid) = (self.noted_ways()?, self.laid_ways()?);
        for port in noted.intersection(&laid) {
            self.reverse(&["--remove", &way(*port)])?;
        }
        self.ask("end and remove what is on it", &script::remove(self.folder, &self.home())).map(drop)
    }

    fn noted_ways(&self) -> Result<BTreeSet<u16>, AdbError> {
        let said = self.ask("see which ways were laid", &format!("cat {}/{WAYS} 2>/dev/null; true", self.folder))?;
        Ok(said.split_whitespace().filter_map(|port| port.parse().ok()).collect())
    }

    /// Those of the device's ports that lead to the same one of this machine, whoever has laid them.
    fn laid_ways(&self) -> Result<BTreeSet<u16>, AdbError> {
        Ok(parse_ways(&self.reverse(&["--list"])?))
    }

    fn reverse(&self, words: &[&str]) -> Result<String, AdbError> {
        self.adb.call(&self.serial, &[&["reverse"], words].concat(), self.adb.patience.call)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), AdbError> {
        self.write(&format!("{}/{name}", self.home()), bytes)
    }

    /// In place at once.
    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), AdbError> {
        let (to, fresh) = (quoted(path), quoted(&format!("{path}.new")));
        let script = format!("umask 077; cat >{fresh} && mv {fresh} {to}");
        self.adb.ask(&self.serial, "write a file", &script, Some(bytes)).map(drop)
    }

    fn ask(&self, what: &str, script: &str) -> Result<String, AdbError> {
        self.adb.ask(&self.serial, what, script, None)
    }

    fn home(&self) -> String {
        format!("{}/{HOME}", self.folder)
    }
}

/// Writes `owner` where nobody is written, and prints who is then. Of many that come at once, one writes.
fn claim(folder: &str, owner: &str) -> String {
    let (file, line) = (format!("{folder}/{OWNER}"), quoted(owner));
    // An empty one is of somebody who is just writing, or who was cut off, or had no room.
    format!(
        "umask 077
mkdir -p {folder}/{STORE} {folder}/{HOME} || exit 1
said=$( (set -C; echo {line} >{file}) 2>&1 ) || [ -s {file} ] || sleep 1
[ -s {file} ] || {{ rm -f {file}; echo \"$said\" >&2; exit 1; }}
cat {file}"
    )
}

fn way(port: u16) -> String {
    format!("tcp:{port}")
}

/// Lines of `adb reverse --list`: the transport, the device's end, this machine's end.
fn parse_ways(said: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let [_, from, to] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        (from == to).then(|| to.strip_prefix("tcp:")?.parse().ok())?
    };
    said.lines().filter_map(port).collect()
}

/// What is compared to tell whether the same runs: a line each, as no argument of ours has two.
fn described(stored: &Stored, launch: &Launch) -> String {
    let environment = launch.environment.iter().map(|(key, value)| format!("{key}={value}"));
    let words = std::iter::once(stored.path.clone()).chain(environment).chain(launch.arguments.iter().cloned());
    words.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    fn run(script: &str) -> (i32, String) {
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    #[test]
    fn of_many_that_claim_at_once_one_has_it_and_all_are_told_who() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("shelf").display().to_string();
        let told: BTreeSet<(i32, String)> = std::thread::scope(|scope| {
            let claimed = |n: usize| run(&claim(&folder, &format!("it's {n}")));
            let begun: Vec<_> = (0..8).map(|n| scope.spawn(move || claimed(n))).collect();
            begun.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(
            told.len() == 1 && told.iter().all(|(code, owner)| *code == 0 && owner.starts_with("it's ")),
            "{told:?}"
        );
    }

    #[test]
    fn who_was_cut_off_while_claiming_is_nobody() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().display().to_string();
        std::fs::write(here.path().join(OWNER), "").unwrap();
        assert_eq!(run(&claim(&folder, "shelf")).0, 1);
        assert_eq!(run(&claim(&folder, "shelf")), (0, "shelf".to_owned()));
    }

    #[test]
    fn only_ways_to_the_same_port_are_ours_to_use() {
        let said = "UsbFfs tcp:7700 tcp:7700\nhost-17 tcp:7701 tcp:7700\n10.0.0.2:5555 tcp:40123 tcp:40123\nx localabstract:a tcp:1\n\n";
        assert_eq!(parse_ways(said), [7700, 40123].into());
        assert_eq!(parse_ways(""), BTreeSet::new());
    }

    #[test]
    fn another_program_or_another_flag_is_another_launch() {
        let stored = |path: &str, pushed_bytes| Stored { name: "agent".into(), path: path.into(), pushed_bytes };
        let launch = Launch::of("agent", ["--name", "a"]);
        let first = described(&stored("/store/1", 9), &launch);
        assert_eq!(first, described(&stored("/store/1", 0), &launch), "it was pushed before");
        assert_ne!(first, described(&stored("/store/2", 0), &launch));
        assert_ne!(first, described(&stored("/store/1", 0), &Launch::of("agent", ["--name", "b"])));
        assert_ne!(first, described(&stored("/store/1", 0), &launch.with("MOOD", "joy")));
    }
}
