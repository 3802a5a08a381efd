//! An embedded API server with our kinds, for one test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use polyphony_apiserver::{ApiServer, ApiServerConfig, Credential, kubeconfig};
use polyphony_identity::{Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Key, Lifetimes, Name, Role};
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

/// As an installation's API, and the roots to trust: kubectl sends no token over plain HTTP.
fn tls() -> (tokio_rustls::TlsAcceptor, String) {
    let (now, identity) = (Clock::system().now(), Name::of_controller(Role::Api, DEFAULT_DOMAIN));
    let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now).unwrap();
    let key = Key::generate().unwrap();
    let papers = authority.certify_server(&key, &identity, &["127.0.0.1".into()], now).unwrap();
    let credentials = Credentials::new(&key, &papers, Clock::system()).unwrap();
    (Arc::new(credentials.server(Audience::Anybody, b"http/1.1").unwrap()).into(), papers.roots_pem())
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
            bearers: Vec::new(),
            by_certificate: None,
            crds: polyphony_api::crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd).unwrap()).collect(),
            allowed_hosts: Vec::new(),
        };
        let server = ApiServer::open(config).unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (tls, roots) = tls();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let written = kubeconfig(&url, &roots, "polyphony", Credential::Token("a-token-of-this-test"));
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, written).unwrap();
        let token = stop.clone();
        runtime.spawn(async move { server.serve(listener, Some(tls), token).await });
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
