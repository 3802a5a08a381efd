//! A disk that is full: told, and forgotten when there is room again.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::harness::{Server, WIDGETS, open, widget};

const DISK_BYTES: usize = 8 << 20;

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

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_store_whose_disk_was_full_goes_on_by_itself() {
    let Some(disk) = SmallDisk::mount() else {
        return polyphony_skip::skipped("a small disk can only be mounted by root");
    };
    let serve = || {
        let api = open(disk.path(), "store.redb");
        Server { router: api.router(), api: Some(api), directory: tempfile::tempdir().unwrap() }
    };
    let server = serve();
    server.widget("before", "red").await;
    let mut filler = File::create(disk.path().join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    let mut large = widget("large", "red");
    large["metadata"]["annotations"] = serde_json::json!({"text": "x".repeat(200 << 10)});
    let mut n_kept = 0;
    let refused = loop {
        large["metadata"]["name"] = format!("large-{n_kept}").into();
        let answer = server.post(WIDGETS, &large).await;
        if answer.code != 201 {
            break answer;
        }
        n_kept += 1;
        assert!(n_kept < DISK_BYTES / (200 << 10), "the disk takes more than it has");
    };
    assert!(refused.code.is_server_error(), "{refused:?}");
    let said = refused.body["message"].as_str().unwrap();
    assert!(said.contains("No space left") && said.contains("goes on by itself"), "{said}");
    server.get(&format!("{WIDGETS}/before")).await.is(200);

    // An open file keeps its room.
    drop(filler);
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    server.widget("after", "red").await;
    drop(server);
    let again = serve();
    for name in
        ["before".to_owned(), "after".to_owned()].into_iter().chain((0..n_kept).map(|idx| format!("large-{idx}")))
    {
        again.get(&format!("{WIDGETS}/{name}")).await.is(200);
    }
    again.get(&format!("{WIDGETS}/large-{n_kept}")).await.is(404);
}
