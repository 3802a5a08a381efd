//! `farm` with a program in adb's place, whose devices take no commands: what is said, and how it ends. What devices do is for tests with devices.

use std::net::{Ipv4Addr, TcpListener};

use tempfile::TempDir;

use crate::polyctl::{self, Ran};

/// A person's folder, with adb and its server.
struct Desk {
    folder: TempDir,
    /// Where adb's server listens; it says nothing.
    server: TcpListener,
}

// === impl Desk ===

impl Desk {
    /// `listed` is what `adb devices` prints.
    fn new(listed: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let adb = format!("#!/bin/sh\n[ \"$1\" = devices ] || exit 1\nprintf 'List of devices attached\\n{listed}'\n");
        polyctl::write_program(&folder.path().join("adb"), &adb);
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { folder, server }
    }

    fn run(&self, line: &str, spec: &str) -> Ran {
        let farm = format!("apiVersion: polyphony.dev/v1alpha1\nkind: Farm\nmetadata: {{name: shelf}}\nspec: {spec}\n");
        std::fs::write(self.folder.path().join("farm.yaml"), farm).unwrap();
        let mut command = polyctl::command(polyctl::program(), self.folder.path());
        let port = self.server.local_addr().unwrap().port();
        command.env("PATH", "/usr/bin:/bin").env("ADB", self.folder.path().join("adb"));
        command.env("ANDROID_ADB_SERVER_PORT", port.to_string());
        polyctl::run(command.args(line.split_whitespace()).args(["-f", "farm.yaml"]))
    }
}

#[test]
fn a_farm_needs_a_host_that_runs_and_says_what_starts_one() {
    let error = Desk::new("").run("farm up", "{}").failed();
    assert!(error.contains("no controller runs in") && error.contains("`polyctl up --phones 0"), "{error}");
}

#[test]
fn devices_that_take_no_commands_are_told_with_what_to_do() {
    let desk = Desk::new("A1\\tunauthorized\\nB2\\toffline\\n");
    let status = desk.run("farm status", "{}");
    let table = &status.stdout;
    for words in ["A1       phone-a1", "unauthorized   -       the device has not allowed", "phone-b2", "offline"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(status.stderr.starts_with("note: no controller runs in"), "{status:?}");
    status.ok();
    let rows: serde_json::Value = serde_json::from_str(&desk.run("farm status --json", "{}").ok()).unwrap();
    assert_eq!((&rows[0]["adb"], &rows[1]["agent"]), (&"unauthorized".into(), &"None".into()), "{rows}");

    let error = desk.run("farm down", "{devices: [{serial: B2}, {serial: C3, name: attic}]}").failed();
    for words in ["phone-b2 (B2): the device is offline", "attic (C3): adb lists no device C3", "on 2 of 2 devices"] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_field_that_there_is_none_of_is_refused_before_any_device_is_asked() {
    let desk = Desk::new("A1\\tdevice\\n");
    for verb in ["up", "status", "down"] {
        let error = desk.run(&format!("farm {verb}"), "{device: []}").failed();
        assert!(error.contains("farm.yaml: spec: unknown field `device`"), "{error}");
    }
}

#[test]
fn a_farm_of_no_devices_is_down() {
    assert_eq!(Desk::new("").run("farm down", "{}").ok(), "adb lists no device of this farm\n");
}
