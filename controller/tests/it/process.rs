//! The controller's program in surroundings that it cannot choose: a log that takes nothing, few descriptors, and proxies of the environment.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use polyphony_controller::door::tokens::{self, Terms};
use polyphony_controller::{Endpoints, kubeconfig};

use super::agent::{self, Agent, Device};
use super::farm::until;

/// A running program, killed when it is dropped.
struct Program {
    child: Child,
    client: Client,
    endpoints: Endpoints,
}

impl Program {
    /// Starts one in `folder`, with what `surround` does to it, and waits until everything listens.
    async fn start(folder: &Path, surround: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polyphony-controller"));
        command.args(["--advertise", "never"]).arg("--data-dir").arg(folder);
        for port in ["--api-address", "--gateway-address", "--hub-address"] {
            command.args([port, "127.0.0.1:0"]);
        }
        command.stdin(Stdio::null()).env("RUST_LOG", "debug");
        surround(&mut command);
        let mut child = command.spawn().unwrap();
        let endpoints = until("everything listens", async || {
            assert_eq!(child.try_wait().unwrap(), None, "the controller ended");
            let bytes = std::fs::read(folder.join("endpoints.json")).map_err(|error| error.to_string())?;
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())
        })
        .await;
        let (client, _) = kubeconfig::client(&folder.join("kubeconfig")).await.unwrap();
        Self { child, client, endpoints }
    }

    async fn agent(&self, name: &str) -> Agent {
        let expires = Timestamp::now() + Duration::from_secs(3600);
        let token = tokens::create(&self.client, &Terms { expires, uses: 1, ..Terms::default() }).await.unwrap();
        let device = Device::enrol(&self.endpoints.hub, self.endpoints.ca_hash, &token.reveal(), name).await.unwrap();
        device.start(agent::join(name, 64)).await.unwrap()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_full_disk_or_into_a_closed_pipe_ends_nothing() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(full()), Stdio::from(closed)] {
        let folder = tempfile::tempdir().unwrap();
        let mut program = Program::start(folder.path(), |command| {
            command.stdout(full()).stderr(stderr);
        })
        .await;
        // Each of these is told in several lines.
        for name in ["phone-1", "phone-2"] {
            program.agent(name).await;
        }
        program.agent("phone-3").await;
        assert!(program.is_running());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_file_is_written_and_one_that_cannot_be_opened_is_no_reason_not_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("controller.log");
    let program = Program::start(folder.path(), |command| {
        command.arg("--log-file").arg(&log);
    })
    .await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("the controller is up") && !text.contains('\u{1b}'), "{text}");
    drop(program);
    let nowhere = folder.path().join("no/such/folder/controller.log");
    Program::start(folder.path(), |command| {
        command.arg("--log-file").arg(&nowhere).stderr(Stdio::null());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_descriptors_are_taken_as_there_are_however_few_a_shell_hands_on() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path(), |command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -Sn 128 && exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        shell.stdin(Stdio::null());
        *command = shell;
    })
    .await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.child.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut limits = line.split_whitespace().map(|limit| limit.parse().unwrap_or(u64::MAX));
    let (soft, hard) = (limits.next().unwrap(), limits.next().unwrap());
    assert!(soft > 128 && soft == hard.min(1 << 16), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_of_the_environment_are_for_other_machines() {
    for no_proxy in ["", "*", "example.com", "http://[,10.0.0.0/33,,"] {
        let folder = tempfile::tempdir().unwrap();
        let mut program = Program::start(folder.path(), |command| {
            // Nobody answers there.
            for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
                command.env(variable, "http://127.0.0.1:1");
            }
            command.env("NO_PROXY", no_proxy);
        })
        .await;
        program.agent("phone-1").await;
        assert!(program.is_running(), "NO_PROXY={no_proxy}");
    }
}
