//! `up` and `down` with programs that fail or merely sleep: what they say, and what they leave running.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::polyctl::{self, Ran};

/// A folder with polyctl and the programs that it shall find beside it.
struct Bench {
    folder: TempDir,
}

// === impl Bench ===

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::hard_link(polyctl::program(), folder.path().join("polyctl")).unwrap();
        Self { folder }
    }

    fn with(self, name: &str, script: &str) -> Self {
        polyctl::write_program(&self.path(name), &format!("#!/bin/sh\n{script}\n"));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, line: &str) -> Ran {
        let mut command = polyctl::command(&self.path("polyctl"), self.folder.path());
        // The scripts need sleep; no folder of it has our programs.
        polyctl::run(command.env("PATH", "/usr/bin:/bin").args(line.split_whitespace()).args(["--data-dir", "d"]))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.run("down --timeout 5s");
    }
}

const ANY_PORTS: &str = "--api-port 0 --gateway-port 0 --hub-port 0";

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Path::new(&format!("/proc/{pid}")).exists() && !stat.contains(") Z ")
}

#[test]
fn a_controller_that_ends_gives_its_last_words() {
    let bench = Bench::new()
        .with("polyphony-controller", "echo starting; echo 'Error: the store is damaged' >&2; exit 2")
        .with("polyphony-agent", "exit 0");
    let error = bench.run(&format!("up {ANY_PORTS}")).failed();
    assert!(
        error.contains("controller ended (exit status: 2)") && error.contains("  Error: the store is damaged"),
        "{error}"
    );
}

#[test]
fn a_missing_program_names_the_places_that_were_searched() {
    let bench = Bench::new().with("polyphony-agent", "exit 0");
    let error = bench.run(&format!("up {ANY_PORTS}")).failed();
    assert!(error.contains("polyphony-controller was not found: looked in"), "{error}");
    assert!(error.contains(&bench.folder.path().display().to_string()) && error.contains("/usr/bin"), "{error}");
}

#[test]
fn a_port_in_use_names_the_flag() {
    let bench = Bench::new().with("polyphony-controller", "exit 0").with("polyphony-agent", "exit 0");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = bench.run(&format!("up --api-port 0 --hub-port 0 --gateway-port {port}")).failed();
    assert!(
        error.contains(&format!("port {port} for the gateway is in use")) && error.contains("--gateway-port"),
        "{error}"
    );
}

/// A server on the port that it gives, which answers what is sent to it with the same.
fn api_that_takes_all() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut all = Vec::new();
            let mut piece = [0; 4096];
            let body = loop {
                let n_bytes = stream.read(&mut piece).unwrap_or(0);
                all.extend_from_slice(&piece[..n_bytes]);
                let text = String::from_utf8_lossy(&all).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break body.to_owned();
                    }
                }
                if n_bytes == 0 {
                    break String::new();
                }
            };
            let body = if body.is_empty() { "{}".to_owned() } else { body };
            let _ = write!(
                stream,
                "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

#[test]
fn a_phone_that_ends_gives_its_last_words_and_down_stops_the_rest() {
    // A controller that says where it listens, and an API that takes what it is sent.
    let api = api_that_takes_all();
    let hash = "0".repeat(64);
    let controller = "while [ $# -gt 0 ]; do if [ \"$1\" = --data-dir ]; then d=$2; fi; shift; done\n\
        printf 'apiVersion: v1\\nkind: Config\\ncurrent-context: c\\ncontexts: [{name: c, context: {cluster: c, user: u}}]\\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:API\"}}]\\nusers: [{name: u, user: {token: t}}]\\n' > $d/kubeconfig\n\
        printf '{\"api\": \"http://127.0.0.1:9\", \"gateway\": \"http://127.0.0.1:9\", \"hub\": \"127.0.0.1:9\", \"weights\": \"\", \"caHash\": \"sha256:HASH\", \"pid\": %d}' $$ > $d/endpoints.new\n\
        mv $d/endpoints.new $d/endpoints.json\nexec sleep 600";
    let controller = controller.replace("API", &api.to_string()).replace("HASH", &hash);
    let bench = Bench::new()
        .with("polyphony-controller", &controller)
        .with("polyphony-agent", "echo 'no memory: give --memory'; exit 4");
    let ran = bench.run(&format!("up --phones 2 {ANY_PORTS}"));
    assert!(
        ran.stderr.contains("ended (exit status: 4)") && ran.stderr.contains("  no memory: give --memory"),
        "{ran:?}"
    );
    let started = ran.stdout.lines().find(|line| line.starts_with("controller")).unwrap().to_owned();
    assert_eq!(ran.code, 1);
    let pid = started
        .split(['(', ')', ' '])
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .find(|word| !word.is_empty())
        .unwrap();
    assert!(is_running(pid), "{started}");
    let logs = bench.run("logs phone-1").ok();
    assert_eq!(logs, "no memory: give --memory\n");
    let down = bench.run("down").ok();
    assert!(down.contains(&format!("controller   stopped (pid {pid})")), "{down}");
    assert!(!is_running(pid));
    assert!(bench.run("down").ok().starts_with("nothing runs in"));
}
