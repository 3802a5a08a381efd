//! What surrounds a person's control plane: proxies in the environment, and a disk that is full.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::json;

use crate::manifests::{deployment, tiny_model};

/// A ring over two phones comes about and answers.
async fn answers(shelf: &Shelf) {
    shelf.apply(&format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 128))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body = json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0});
    let answered = tokio::time::timeout(Duration::from_secs(10), gateway.post("/v1/completions", &body)).await;
    let (status, answer) = answered.expect("an answer within 10 s").unwrap();
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn proxies_of_the_environment_are_asked_for_nothing_on_this_machine() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let variables = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name, &*url));
    for no_proxy in ["", "*"] {
        let shelf = Shelf::planned("cpu", 2, "64Mi").unwrap();
        let shelf = shelf.with_environment(&variables).with_environment(&[("NO_PROXY", no_proxy)]);
        shelf.start().unwrap();
        answers(&shelf).await;
        let asked = proxy.accept().map(|(_, from)| from).ok();
        assert_eq!(asked, None, "NO_PROXY={no_proxy}: somebody asked the proxy");
    }
}

/// A disk of its own, at a folder that is there.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount one.
    fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The logs are still open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_under_the_logs_stops_nobody_and_they_go_on_when_there_is_room() {
    let shelf = Shelf::planned("cpu", 2, "64Mi").unwrap();
    let logs = shelf.data_dir().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let Some(_disk) = SmallDisk::mount(&logs) else {
        return polyphony_skip::skipped("a small disk can only be mounted by root");
    };
    let filler = logs.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    shelf.start().unwrap();
    answers(&shelf).await;
    for name in ["controller", "phone-1", "phone-2"] {
        assert_eq!(shelf.log(name), "", "there was no room for a word of {name}");
    }

    // An open file keeps its room.
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    shelf.kill("phone-1").unwrap();
    wait_until("the controller to tell of the lost phone", Duration::from_secs(30), || {
        Ok(shelf.log("controller").contains("phone-1").then_some(()))
    })
    .unwrap();
}
