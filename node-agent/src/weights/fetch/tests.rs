//! Fetching from a host, onto a disk of its own that others have filled.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use polyphony_doorway::{Doorway, Limits};
use polyphony_identity::{Audience, Authority, Clock, DEFAULT_DOMAIN, Key, Lifetimes};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;

const DISK_BYTES: usize = 2 << 20;

/// A disk of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where this user may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Puts a file into the cache; its digest.
fn put(cache: &Cache, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    let mut incoming = cache.receive(&digest, bytes.len() as u64, &cache.hold()).unwrap().unwrap();
    incoming.write(bytes).unwrap();
    incoming.keep().unwrap();
    digest
}

/// A host that has one manifest.
async fn host_of(manifest: Vec<u8>) -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answer = move || std::future::ready(manifest.clone());
    let router = Router::new().route("/v1alpha1/manifests/{digest}", get(answer));
    let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), Clock::system().now()).unwrap();
    let credentials = |name: Name| {
        let key = Key::generate().unwrap();
        let papers = authority.certify_server(&key, &name, &[], Clock::system().now()).unwrap();
        Credentials::new(&key, &papers, Clock::system()).unwrap()
    };
    let server = credentials(Name::of_controller(Role::Weights, DEFAULT_DOMAIN)).server(Audience::Certified, HTTP);
    let doorway = Doorway::new(listener, Limits::default()).with_tls(TlsAcceptor::from(Arc::new(server.unwrap())));
    tokio::spawn(doorway.serve(router, CancellationToken::new()));
    Host::new(&url, &credentials(Name::phone("a", DEFAULT_DOMAIN))).unwrap()
}

#[tokio::test]
async fn a_manifest_that_comes_to_a_full_disk_leaves_what_serves_and_takes_the_place_of_what_nobody_needs() {
    let Some(disk) = SmallDisk::mount() else {
        return polyphony_skip::skipped("a small disk can only be mounted by root");
    };
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama.gguf");
    let manifest = serde_json::to_vec(&Manifest::build(&model).unwrap()).unwrap();
    let (name, manifest_bytes) = (digest(&manifest), manifest.len() as u64);
    let cache = Cache::open(disk.0.path().join("weights"), u64::MAX).unwrap();
    let serves = cache.hold();
    let [served, old] = [1, 2].map(|byte| put(&cache, &[byte; DISK_BYTES / 4]));
    serves.keep([served.clone()]);
    let mut filler = File::create(disk.0.path().join("filler")).unwrap();
    while filler.write_all(&[1; 1024]).is_ok() {}
    drop(filler);
    let host = host_of(manifest).await;
    let hold = cache.hold();
    hold.keep([name.clone()]);
    let fetched = host.manifest(&cache, &hold, &name).await.unwrap();
    assert!(!fetched.tensors.is_empty());
    let n_bytes = DISK_BYTES as u64 / 4;
    assert!(cache.has(&served, n_bytes) && !cache.has(&old, n_bytes));
    // With nothing left that could go the disk is told, and what serves stays.
    let mut filler = File::create(disk.0.path().join("more")).unwrap();
    while filler.write_all(&[1; 1024]).is_ok() {}
    drop(filler);
    let other = host_of(vec![7; 64 << 10]).await;
    let end = other.manifest(&cache, &cache.hold(), &digest(&[7; 64 << 10])).await;
    assert!(matches!(&end, Err(FetchError::Cache(error)) if error.is_full_disk()), "{end:?}");
    assert!(cache.has(&served, n_bytes) && cache.has(&name, manifest_bytes));
}
