//! The client: the program `adb`, each call of which has a deadline and ends in an answer or a verdict.
//!
//! It never lets adb start a server on the way: such a server would know neither the devices of a network nor the ways that were laid to them, and
//! what was lost would only show later.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::verdict::{AdbError, judge};

/// Where adb's server listens unless `$ANDROID_ADB_SERVER_PORT` says otherwise.
const DEFAULT_PORT: u16 = 5037;
/// Said by the device after what it was asked, with the exit status: an answer without it was cut off.
const END_MARK: &str = "polyphony-ended:";
const POLL: Duration = Duration::from_millis(5);
/// For what adb has written to be read once it has ended, whatever is left of its time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The program, and where its server listens on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Adb {
    pub program: PathBuf,
    pub port: u16,
    pub patience: Patience,
    /// Ctrl-C in a terminal is for who asks alone, who gives devices back before it ends. Else it ends adb's calls as well, of which nobody knows the deadline
    /// any more.
    pub is_shielded: bool,
}

/// How long the driver waits before it gives its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Patience {
    /// For anything but what follows.
    pub call: Duration,
    /// A push that goes slower than this many bytes a second, beside the time of a call, is given up.
    pub least_push_rate: u64,
    /// From the order to restart until the device takes commands again.
    pub restart: Duration,
}

/// What a command on a device answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// What adb itself wrote and how it ended.
struct Said {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

// === impl Patience ===

impl Default for Patience {
    fn default() -> Self {
        Self { call: Duration::from_secs(20), least_push_rate: 1 << 20, restart: Duration::from_secs(180) }
    }
}

impl Patience {
    pub(crate) fn of_push(&self, n_bytes: u64) -> Duration {
        self.call + Duration::from_secs(n_bytes / self.least_push_rate.max(1))
    }
}

// === impl Adb ===

impl Adb {
    /// `$ADB`, or `adb` on the path, with the server of `$ANDROID_ADB_SERVER_PORT` or adb's usual one.
    pub fn from_environment() -> Self {
        let port = std::env::var("ANDROID_ADB_SERVER_PORT").ok().and_then(|port| port.parse().ok());
        Self {
            program: std::env::var_os("ADB").map_or_else(|| "adb".into(), PathBuf::from),
            port: port.unwrap_or(DEFAULT_PORT),
            patience: Patience::default(),
            is_shielded: false,
        }
    }

    /// Starts the server, if it does not run.
    ///
    /// # Errors
    /// When adb is not there, or its server does not start in time.
    pub fn start_server(&self) -> Result<(), AdbError> {
        if self.server_listens() {
            return Ok(());
        }
        // The server inherits what its starter writes to: nothing that anybody would wait for the end of.
        let mut command = self.command(&["start-server"]);
        // It outlives who started it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| self.no_client(source))?;
        let ended = self.await_end(&mut child, "adb start-server", self.patience.call)?;
        if !ended.success() || !self.server_listens() {
            return Err(AdbError::ServerGone { port: self.port });
        }
        Ok(())
    }

    /// Asks adb itself. `serial` is that of the device it is about, or empty.
    ///
    /// # Errors
    /// The verdict, when it fails or is not done by the deadline.
    pub fn call(&self, serial: &str, words: &[&str], deadline: Duration) -> Result<String, AdbError> {
        let what = format!("adb {}", words.first().copied().unwrap_or_default());
        let said = self.say(serial, words, &what, None, deadline)?;
        let stdout = String::from_utf8_lossy(&said.stdout).into_owned();
        if !said.status.success() {
            return Err(self.verdict(&what, serial, &format!("{}\n{stdout}", said.stderr)));
        }
        Ok(stdout)
    }

    /// Runs a script in the device's shell; `what` it is for is said in errors. Its own failure is an answer.
    ///
    /// # Errors
    /// The verdict, when the device does not answer whole.
    pub fn shell(&self, serial: &str, what: &str, script: &str, input: Option<&[u8]>) -> Result<Answer, AdbError> {
        let marked = format!("(\n{script}\n)\ncode=$?; echo; echo {END_MARK}$code");
        let words: &[&str] = if input.is_some() { &["shell", &marked] } else { &["shell", "-n", &marked] };
        let said = self.say(serial, words, what, input, self.patience.call)?;
        unmarked(&said.stdout).map(|(code, stdout)| Answer { code, stdout, stderr: said.stderr.clone() }).ok_or_else(
            || {
                let stdout = String::from_utf8_lossy(&said.stdout);
                match self.verdict(what, serial, &said.stderr) {
                    // The shell has spoken, and then no more.
                    AdbError::Refused { .. } if !stdout.is_empty() => AdbError::Cut { what: what.to_owned() },
                    verdict => verdict,
                }
            },
        )
    }

    /// The answer to a script that must not fail.
    ///
    /// # Errors
    /// As [`Adb::shell`], and when the script ends with another status than 0.
    pub fn ask(&self, serial: &str, what: &str, script: &str, input: Option<&[u8]>) -> Result<String, AdbError> {
        let answer = self.shell(serial, what, script, input)?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        if answer.code != 0 {
            return Err(judge(what, serial, &format!("{}\n{text} (exit status {})", answer.stderr, answer.code)));
        }
        Ok(text)
    }

    pub(crate) fn server_listens(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        TcpStream::connect_timeout(&address, self.patience.call).is_ok()
    }

    fn say(
        &self,
        serial: &str,
        words: &[&str],
        what: &str,
        input: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<Said, AdbError> {
        if !self.server_listens() {
            return Err(AdbError::ServerGone { port: self.port });
        }
        let of_device: &[&str] = if serial.is_empty() { &[] } else { &["-s", serial] };
        let mut command = self.command(&[of_device, words].concat());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().map_err(|source| self.no_client(source))?;
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input.map(<[u8]>::to_vec)) {
            // Ends with the child at the latest, which nobody else reads from.
            thread::spawn(move || stdin.write_all(&input));
        }
        let status = self.await_end(&mut child, what, deadline)?;
        // What adb has started may outlive it, and holds what it has written to open.
        let read = |reader: Option<Receiver<Vec<u8>>>| {
            let left = deadline.saturating_sub(began.elapsed()).max(LAST_WORDS);
            let bytes = reader.map_or(Ok(Vec::new()), |reader| reader.recv_timeout(left));
            bytes.map_err(|_| AdbError::Silent { what: what.to_owned(), deadline })
        };
        let stderr = String::from_utf8_lossy(&read(stderr)?).into_owned();
        Ok(Said { status, stdout: read(stdout)?, stderr })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).env("ANDROID_ADB_SERVER_PORT", self.port.to_string());
        // Which device and which server is said above.
        command.env_remove("ANDROID_SERIAL").env_remove("ADB_SERVER_SOCKET").env_remove("ANDROID_ADB_SERVER_ADDRESS");
        if self.is_shielded {
            command.process_group(0);
        }
        command
    }

    fn no_client(&self, source: io::Error) -> AdbError {
        AdbError::NoClient { program: self.program.display().to_string(), source }
    }

    /// Waits for adb, and kills it at the deadline.
    fn await_end(&self, child: &mut Child, what: &str, deadline: Duration) -> Result<ExitStatus, AdbError> {
        let began = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if began.elapsed() < deadline => thread::sleep(POLL),
                // One that cannot be waited for is none of ours any more: the same verdict.
                Ok(None) | Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(AdbError::Silent { what: what.to_owned(), deadline });
                }
            }
        }
    }

    /// A server that is gone explains any failure.
    fn verdict(&self, what: &str, serial: &str, said: &str) -> AdbError {
        if self.server_listens() {
            return judge(what, serial, said);
        }
        AdbError::ServerLost { port: self.port, what: what.to_owned() }
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (read, reader) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is.
        let _ = stream.read_to_end(&mut bytes);
        // Nobody waits any more for what comes too late.
        let _ = read.send(bytes);
    });
    reader
}

/// Exit status and answer, without the mark; none where there is no mark at the end.
fn unmarked(stdout: &[u8]) -> Option<(i32, Vec<u8>)> {
    let mark = format!("\n{END_MARK}");
    let at = stdout.windows(mark.len()).rposition(|window| window == mark.as_bytes())?;
    let code = std::str::from_utf8(&stdout[at + mark.len()..]).ok()?.trim().parse().ok()?;
    Some((code, stdout[..at].to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_call_ends_with_a_terminals_ctrl_c_unless_it_is_shielded() {
        let here = tempfile::tempdir().unwrap();
        let program = here.path().join("adb");
        // The group of its own process, in the kernel's words.
        let text = "#!/bin/sh\nread -r stat </proc/$$/stat\nset -- ${stat##*) }\necho \"$$ $3\"\n";
        // Past this process, whose other tests start programs meanwhile: what is open to be written to is not run.
        let write = ["-c", "printf %s \"$1\" >\"$0\"", program.to_str().unwrap(), text];
        assert!(Command::new("sh").args(write).status().unwrap().success());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        for is_shielded in [false, true] {
            let adb = Adb { program: program.clone(), port, patience: Patience::default(), is_shielded };
            let said = adb.call("", &["devices"], adb.patience.call).unwrap();
            let words: Vec<&str> = said.split_whitespace().collect();
            assert_eq!(words[0] == words[1], is_shielded, "{said}");
        }
    }

    #[test]
    fn an_answer_without_its_end_is_none() {
        assert_eq!(unmarked(b"a\nb\n\npolyphony-ended:3\n"), Some((3, b"a\nb\n".to_vec())));
        assert_eq!(unmarked(b"\npolyphony-ended:0\n"), Some((0, Vec::new())));
        assert_eq!(unmarked(b"a\nb\n"), None);
        assert_eq!(unmarked(b"a\n\npolyphony-ended:"), None);
    }

    #[test]
    fn a_push_has_time_by_its_size() {
        let patience = Patience { call: Duration::from_secs(2), least_push_rate: 1000, ..Patience::default() };
        assert_eq!(patience.of_push(500), Duration::from_secs(2));
        assert_eq!(patience.of_push(30_000), Duration::from_secs(32));
    }
}
