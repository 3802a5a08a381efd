//! Machines of their own: network namespaces with a cable between them, a controller in one and an agent in each.
//!
//! Needs root and `ip`; nothing leaves the namespaces.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use polyphony_e2e::shelf::{Said, program, run, wait_until};

use crate::manifests::{deployment, tiny_model};

const PREFIX: &str = "polyjoin-";
const HOST: &str = "10.203.0.1";
/// Flags of every agent here.
const SMALL: [&str; 4] = ["--backend", "cpu", "--memory", "64Mi"];

/// Two namespaces joined by a veth pair, `host` at 10.203.0.1 and `phone` at 10.203.0.2, and what runs in them.
struct Lab {
    folder: tempfile::TempDir,
    children: Vec<Child>,
}

impl Lab {
    /// None, with a line that says why, where namespaces cannot be made.
    fn build() -> Option<Self> {
        sweep();
        let lab = Self { folder: tempfile::tempdir().unwrap(), children: Vec::new() };
        let (host, phone) = (namespace("host"), namespace("phone"));
        if let Err(error) = ip(&["netns", "add", &host]) {
            polyphony_skip::skipped(format_args!(
                "no network namespace can be made here (as root, with iproute2): {error:#}"
            ));
            return None;
        }
        ip(&["netns", "add", &phone]).unwrap();
        ip(&["-n", &host, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", &phone]).unwrap();
        for (namespace, address) in [(&host, "10.203.0.1/24"), (&phone, "10.203.0.2/24")] {
            ip(&["-n", namespace, "address", "add", address, "dev", "veth0"]).unwrap();
            ip(&["-n", namespace, "link", "set", "veth0", "up"]).unwrap();
            ip(&["-n", namespace, "link", "set", "lo", "up"]).unwrap();
        }
        Some(lab)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A program of ours in a namespace, with a home of its own.
    fn command(&self, namespace_of: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace(namespace_of)]).arg(program(name).unwrap()).args(arguments);
        command.env_remove("KUBECONFIG").env_remove("POLYPHONY_JOIN_TOKEN");
        command.env("HOME", self.folder.path().join(namespace_of));
        command
    }

    /// Starts it; what it says goes to `NAME.log`.
    fn start(&mut self, log: &str, mut command: Command) {
        let file = std::fs::File::create(self.folder.path().join(format!("{log}.log"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.children.push(child);
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn polyctl(&self, arguments: &[&str]) -> Result<Said> {
        let data_dir = self.path("data");
        run(self.command("host", "polyctl", &[&["--data-dir", data_dir.as_str()][..], arguments].concat()))
    }

    /// What the agent says in the phone's namespace, where it has to give up.
    fn refused(&self, arguments: &[&str]) -> String {
        let said = run(self.command("phone", "polyphony-agent", &[arguments, &SMALL].concat())).unwrap();
        assert_ne!(said.code, 0, "{said:?}");
        said.stderr
    }

    /// The gateway's whole answer to a prompt of token ids. It listens on the loopback of the host's namespace.
    fn complete(&self, deployment: &str) -> String {
        let endpoints = std::fs::read(self.folder.path().join("data/endpoints.json")).unwrap();
        let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
        let gateway = endpoints["gateway"].as_str().unwrap().trim_start_matches("http://");
        let (host, port) = gateway.split_once(':').unwrap();
        let body =
            format!(r#"{{"model":"{deployment}","prompt":[1,2,3],"max_tokens":4,"temperature":0,"ignore_eos":true}}"#);
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: {gateway}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace("host"), "bash", "-c"]);
        command.arg(format!("exec 3<>/dev/tcp/{host}/{port}; printf %s \"$1\" >&3; timeout 30 cat <&3"));
        command.args(["bash", &request]);
        run(command).unwrap().stdout
    }

    /// Waits until the log of `name` holds `words`.
    fn wait_for(&self, name: &str, words: &str) {
        wait_until(&format!("{words:?} from {name}"), Duration::from_secs(60), || {
            Ok(self.log(name).contains(words).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}; it said:\n{}", self.log(name)));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in ["host", "phone"] {
            let _ = ip(&["netns", "delete", &namespace(name)]);
        }
    }
}

fn namespace(name: &str) -> String {
    format!("{PREFIX}{}-{name}", std::process::id())
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes away what a run left that was killed: namespaces whose maker is no more, and the processes in them.
fn sweep() {
    for line in ip(&["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let Some((maker, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else { continue };
        if maker.is_empty()
            || !maker.bytes().all(|byte| byte.is_ascii_digit())
            || Path::new("/proc").join(maker).exists()
        {
            continue;
        }
        for pid in ip(&["netns", "pids", name]).unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        }
        let _ = ip(&["netns", "delete", name]);
    }
}

#[test]
fn a_machine_across_a_cable_finds_the_host_joins_it_and_takes_part_in_a_ring() {
    let Some(mut lab) = Lab::build() else { return };
    let (data, hub) = (lab.path("data"), format!("{HOST}:0"));
    let ports = ["--api-address", "127.0.0.1:0", "--gateway-address", "127.0.0.1:0", "--hub-address", hub.as_str()];
    let arguments = [&["--data-dir", data.as_str(), "--insecure"][..], &ports[..]].concat();
    let controller = lab.command("host", "polyphony-controller", &arguments);
    lab.start("controller", controller);
    lab.wait_for("controller", "the controller is up");

    // The printed line is what a person types.
    let line = lab.polyctl(&["join-command", "--print-qr=never"]).unwrap().ok().unwrap().stdout;
    let words: Vec<&str> = line.split_whitespace().collect();
    let &["polyphony-agent", "join", hub, "--token", token, "--insecure"] = words.as_slice() else { panic!("{line}") };
    assert!(hub.starts_with(&format!("{HOST}:")), "{line}");

    let said = lab.refused(&["join", hub, "--token", token]);
    assert!(said.contains("add --insecure"), "{said}");
    let said = lab.refused(&["join", hub, "--token", "guess", "--insecure"]);
    assert!(said.contains("the join token is wrong") && said.contains("polyctl join-command"), "{said}");
    let said = lab.refused(&["join", &format!("{HOST}:1"), "--token", token, "--insecure"]);
    assert!(said.contains("nothing listens at"), "{said}");
    let said = wait_until("the host to be found by mDNS", Duration::from_secs(60), || {
        let said = lab.refused(&["join", "--token", "guess", "--insecure"]);
        Ok((!said.contains("no host was found")).then_some(said))
    })
    .unwrap();
    assert!(said.contains("none of these hosts takes this token") && said.contains(hub), "{said}");
    let said = lab.refused(&["run"]);
    assert!(said.contains("joined no host yet"), "{said}");

    // One joins by the line, on the host's own machine; the other finds the host by mDNS, from across the cable.
    let by_line = lab.command("host", "polyphony-agent", &[&words[1..], &["--name", "near"], &SMALL].concat());
    lab.start("near", by_line);
    let found = ["join", "--token", token, "--insecure", "--name", "far"];
    let by_mdns = lab.command("phone", "polyphony-agent", &[&found[..], &SMALL].concat());
    lab.start("far", by_mdns);
    lab.wait_for("near", "joined");
    lab.wait_for("far", &format!("joined {hub} as far"));
    let other = lab.path("other-agent");
    let said = lab.refused(&["join", hub, "--token", token, "--insecure", "--name", "near", "--data-dir", &other]);
    assert!(said.contains("linked already") && said.contains("--name"), "{said}");

    std::fs::write(
        lab.path("manifest.yaml"),
        format!("{}---\n{}", tiny_model(), deployment("tiny", "tiny", 2, "f32", 64)),
    )
    .unwrap();
    lab.polyctl(&["apply", "-f", &lab.path("manifest.yaml")]).unwrap().ok().unwrap();
    let waited =
        lab.polyctl(&["wait", "--for=condition=Available", "inferencedeployment/tiny", "--timeout=60s"]).unwrap();
    let logs = || format!("{}\n{}\n{}", lab.log("controller"), lab.log("near"), lab.log("far"));
    assert_eq!(waited.code, 0, "{waited:?}\n{}", logs());
    let held =
        lab.polyctl(&["get", "segmentplacements", "-o", "jsonpath={.items[*].spec.phone}"]).unwrap().ok().unwrap();
    let mut phones: Vec<&str> = held.stdout.split_whitespace().collect();
    phones.sort_unstable();
    assert_eq!(phones, ["far", "near"]);
    let answer = lab.complete("tiny");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"completion_tokens\":4"), "{answer}\n{}", logs());

    // The far machine starts anew and needs no words.
    let mut far = lab.children.pop().unwrap();
    far.kill().unwrap();
    far.wait().unwrap();
    let again = lab.command("phone", "polyphony-agent", &["run"]);
    lab.start("far-again", again);
    lab.wait_for("far-again", "joined");
}
