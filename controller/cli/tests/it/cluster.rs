//! An embedded API server with our kinds, for one test.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use polyphony_apiserver::{ApiServer, ApiServerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::polyctl::{self, Ran};

/// Stops with the value.
pub struct Cluster {
    folder: TempDir,
    kubeconfig: PathBuf,
    pub runtime: Runtime,
    stop: CancellationToken,
}

// === impl Cluster ===

impl Cluster {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let config = ApiServerConfig {
            store_path: folder.path().join("store.redb"),
            token: "a-token-of-this-test".to_owned(),
            users: Vec::new(),
            crds: polyphony_api::crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd).unwrap()).collect(),
            allowed_hosts: Vec::new(),
        };
        let server = ApiServer::open(config).unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig(listener.local_addr().unwrap())).unwrap();
        let token = stop.clone();
        runtime.spawn(async move { server.serve(listener, token).await });
        Self { folder, kubeconfig, runtime, stop }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = polyctl::command(polyctl::program(), self.folder.path());
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// Runs `polyctl` with the words of `line`.
    pub fn run(&self, line: &str) -> Ran {
        polyctl::run(&mut self.command(&line.split_whitespace().collect::<Vec<_>>()))
    }

    /// The same with `input` on standard input.
    pub fn run_with(&self, line: &str, input: &str) -> Ran {
        let path = self.path("input");
        std::fs::write(&path, input).unwrap();
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        polyctl::run(command.stdin(Stdio::from(std::fs::File::open(path).unwrap())))
    }

    pub fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        self.runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            Client::try_from(config).unwrap()
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
