//! `farm` with a program in adb's place, whose devices take no commands, or are this machine's shell: what is said, and how it ends. What devices do is for
//! tests with devices.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use polyphony_apiserver::{Credential, kubeconfig};
use polyphony_identity::Digest;
use serde_json::json;
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
        Self::with(listed, "exit 1")
    }

    /// A device of this machine's own shell under each of these serials: what is the shell's folder there is `data` in the desk's.
    fn with_device(serials: &[&str]) -> Self {
        let listed: String = serials.iter().map(|serial| format!("{serial}\\tdevice\\n")).collect();
        let device = "data=$(dirname \"$0\")/data
[ \"$1\" = -s ] && shift 2
verb=$1
shift
case $verb in
    shell)
        [ \"$1\" = -n ] && shift
        properties='getprop() { case $1 in *sdk) echo 34 ;; *abilist) echo x86_64 ;; *) echo stand-in ;; esac; }'
        exec sh -c \"$properties
$(printf '%s\\n' \"$*\" | sed \"s,/data/local/tmp,$data,g\")\"
        ;;
    reverse) ;;
    *) exit 1 ;;
esac";
        let desk = Self::with(&listed, device);
        std::fs::create_dir(desk.folder.path().join("data")).unwrap();
        desk
    }

    /// `more` is what adb does beside listing devices.
    fn with(listed: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let devices = format!("printf 'List of devices attached\\n{listed}'");
        let adb = format!("#!/bin/sh\nif [ \"$1\" = devices ]; then {devices}; exit; fi\n{more}\n");
        polyctl::write_program(&folder.path().join("adb"), &adb);
        std::fs::create_dir(folder.path().join(".polyphony")).unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { folder, server }
    }

    /// A file of the control plane's folder.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(".polyphony").join(name), text).unwrap();
    }

    /// Has the device say whose it is.
    fn give_to(&self, owner: &str) -> PathBuf {
        let file = self.folder.path().join("data/polyphony-shelf/.owner");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("{owner}\n")).unwrap();
        file
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
fn a_device_is_cleared_by_the_control_plane_that_it_is_of_alone() {
    let desk = Desk::with_device(&["A1"]);
    // Nothing runs, and no `farm up` was said here: the farm's name alone is anybody's.
    for kept in [None, Some("u-1")] {
        let owner = desk.give_to("shelf u-2");
        kept.into_iter().for_each(|id| desk.write("cluster-uid", id));
        let said = desk.run("farm down", "{}").ok();
        assert!(said.contains("is left alone: its device is of the farm shelf of the control plane u-2"), "{said}");
        assert!(said.contains("`polyctl farm down --force`") && owner.exists(), "{said}");
    }
    for (kept, line) in [("u-2", "farm down"), ("u-1", "farm down --force")] {
        let owner = desk.give_to("shelf u-2");
        desk.write("cluster-uid", kept);
        let said = desk.run(line, "{}").ok();
        assert!(said.contains("nothing of it is left on its device") && !owner.exists(), "{said}");
    }
}

#[test]
fn a_device_that_adb_lists_twice_is_one() {
    let desk = Desk::with_device(&["A1", "10.0.0.7:5555"]);
    let same = "it is the same device as phone-a1 (A1)";
    let status = desk.run("farm status", "{}").ok();
    assert!(
        status.lines().nth(2).is_some_and(|line| line.starts_with("10.0.0.7:5555") && line.contains(same)),
        "{status}"
    );
    let owner = desk.give_to("shelf u-1");
    let said = desk.run("farm down --force", "{}").ok();
    assert!(said.contains(&format!("is left out: {same}")) && !owner.exists(), "{said}");
    assert_eq!(said.matches("nothing of it is left on its device").count(), 1, "{said}");
}

#[test]
fn a_control_plane_that_does_not_say_which_it_is_clears_nothing() {
    let desk = Desk::with_device(&["A1"]);
    let owner = desk.give_to("shelf u-2");
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let api = format!("http://{closed}");
    // This very process stands for the controller.
    let endpoints = json!({"api": api, "gateway": "", "hub": "127.0.0.1:1", "weights": "https://127.0.0.1:2",
        "caHash": Digest::of_spki(b"root"), "pid": std::process::id()});
    desk.write("endpoints.json", &endpoints.to_string());
    desk.write("kubeconfig", &kubeconfig(&api, "", "ada", Credential::Token("a-token")));
    let error = desk.run("farm down", "{}").failed();
    assert!(error.contains(&closed.to_string()) && owner.exists(), "{error}");
}

#[test]
fn a_kubeconfig_of_another_control_plane_is_refused_before_any_device_is_asked() {
    let desk = Desk::with_device(&["A1"]);
    let owner = desk.give_to("shelf");
    let elsewhere = kubeconfig("http://127.0.0.1:9", "", "ada", Credential::Token("a-token"));
    std::fs::write(desk.folder.path().join("elsewhere"), elsewhere).unwrap();
    for verb in ["up", "status", "down"] {
        let error = desk.run(&format!("farm {verb} --kubeconfig elsewhere"), "{}").failed();
        assert!(error.contains("leads to 127.0.0.1:9") && error.contains("say --data-dir"), "{error}");
    }
    assert!(owner.exists());
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
