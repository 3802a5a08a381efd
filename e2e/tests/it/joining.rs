//! Machines of their own: network namespaces with a cable between them, a controller in one and an agent in each.
//!
//! Needs root and `ip`; nothing leaves the namespaces.

use std::cell::RefCell;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use polyphony_e2e::shelf::{Said, program, run, wait_until};

use crate::manifests::{deployment, tiny_model};

/// Labs that this process has built.
static BUILT: AtomicUsize = AtomicUsize::new(0);
const PREFIX: &str = "polyjoin-";
pub(crate) const HOST: &str = "10.203.0.1";
/// Flags of every agent here.
pub(crate) const SMALL: [&str; 4] = ["--backend", "cpu", "--memory", "64Mi"];

/// Two namespaces joined by a veth pair, `host` at 10.203.0.1 and `phone` at 10.203.0.2, and what runs in them.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    /// By the names of their logs.
    children: Vec<(String, Child)>,
    /// Which of this process's.
    number: usize,
    /// Join tokens that were made here.
    tokens: RefCell<Vec<String>>,
    namespaces: Vec<String>,
}

/// What a person is given to join with.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) token: String,
    pub(crate) hub: String,
    pub(crate) ca_hash: String,
}

impl Lab {
    /// None, with a line that says why, where namespaces cannot be made.
    pub(crate) fn build() -> Option<Self> {
        sweep();
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self {
            folder: tempfile::tempdir().unwrap(),
            children: Vec::new(),
            number,
            tokens: RefCell::default(),
            namespaces: Vec::new(),
        };
        if let Err(error) = lab.add_machine("host") {
            polyphony_skip::skipped(format_args!(
                "no network namespace can be made here (as root, with iproute2): {error:#}"
            ));
            return None;
        }
        lab.add_machine("phone").unwrap();
        lab.connect(("host", "10.203.0.1"), ("phone", "10.203.0.2"));
        Some(lab)
    }

    /// A machine that is connected to nothing yet, and that passes nothing on.
    pub(crate) fn add_machine(&mut self, name: &str) -> Result<()> {
        let namespace = self.namespace(name);
        ip(&["netns", "add", &namespace])?;
        self.namespaces.push(name.to_owned());
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        self.on(name, "echo 0 > /proc/sys/net/ipv4/ip_forward")
    }

    /// A cable between two machines, with their addresses at it.
    pub(crate) fn connect(&self, one: (&str, &str), other: (&str, &str)) {
        let device = |(_, address): (&str, &str)| format!("veth{}", address.replace('.', "").get(5..).unwrap());
        let (here, there) = (self.namespace(one.0), self.namespace(other.0));
        let (near, far) = (device(one), device(other));
        ip(&["-n", &here, "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &there]).unwrap();
        for (namespace, address, device) in [(&here, one.1, near), (&there, other.1, far)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", &device]).unwrap();
            ip(&["-n", namespace, "link", "set", &device, "up"]).unwrap();
        }
    }

    /// Runs a line of shell on a machine.
    pub(crate) fn on(&self, machine: &str, line: &str) -> Result<()> {
        ip(&["netns", "exec", &self.namespace(machine), "sh", "-e", "-c", line]).map(drop)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{PREFIX}{}-{}-{name}", std::process::id(), self.number)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A program of ours in a namespace, with a home of its own.
    pub(crate) fn command(&self, namespace_of: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(namespace_of)]).arg(program(name).unwrap()).args(arguments);
        command.env_remove("KUBECONFIG").env_remove("POLYPHONY_JOIN_TOKEN");
        command.env("HOME", self.folder.path().join(namespace_of));
        command
    }

    /// What a person types on a machine, in a shell whose path has our programs.
    pub(crate) fn typed(&self, machine: &str, line: &str) -> Command {
        let folder = program("polyctl").unwrap().parent().unwrap().to_owned();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(machine), "bash", "-e", "-c", line]);
        command.env_remove("KUBECONFIG").env_remove("POLYPHONY_JOIN_TOKEN").env("PATH", path);
        command.env("HOME", self.folder.path().join(machine)).current_dir(self.folder.path());
        command
    }

    /// Starts it; what it says goes to `NAME.log`.
    pub(crate) fn start(&mut self, log: &str, mut command: Command) {
        let file = std::fs::File::create(self.folder.path().join(format!("{log}.log"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.children.push((log.to_owned(), child));
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    pub(crate) fn polyctl(&self, arguments: &[&str]) -> Result<Said> {
        let data_dir = self.path("data");
        run(self.command("host", "polyctl", &[&["--data-dir", data_dir.as_str()][..], arguments].concat()))
    }

    /// What `polyctl join-command` prints.
    pub(crate) fn line(&self) -> Line {
        let printed = self.polyctl(&["join-command", "--print-qr=never"]).unwrap().ok().unwrap().stdout;
        let words: Vec<&str> = printed.split_whitespace().collect();
        let &[token, "polyphony-agent", "join", hub, "--ca-hash", ca_hash] = words.as_slice() else {
            panic!("{printed}")
        };
        let token = token.strip_prefix("POLYPHONY_JOIN_TOKEN=").unwrap_or_else(|| panic!("{printed}"));
        self.tokens.borrow_mut().push(token.to_owned());
        Line { token: token.into(), hub: hub.into(), ca_hash: ca_hash.into() }
    }

    /// The same with another digest.
    pub(crate) fn line_of(&self, ca_hash: &str) -> Line {
        Line { ca_hash: ca_hash.to_owned(), ..self.line() }
    }

    /// Every join token that was made here.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens.borrow().clone()
    }

    /// The process whose log has that name.
    pub(crate) fn pid(&self, log: &str) -> u32 {
        self.children.iter().find(|(name, _)| name == log).map(|(_, child)| child.id()).unwrap()
    }

    /// Kills it.
    pub(crate) fn end(&mut self, log: &str) {
        let at = self.children.iter().position(|(name, _)| name == log).unwrap();
        let (_, mut child) = self.children.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// An agent that joins by a line's token, which is in its environment alone.
    pub(crate) fn join(&self, namespace_of: &str, line: &Line, arguments: &[&str]) -> Command {
        let mut command = self.command(namespace_of, "polyphony-agent", &[&["join"], arguments].concat());
        command.env("POLYPHONY_JOIN_TOKEN", &line.token);
        command
    }

    /// What the agent says in the phone's namespace, where it has to give up.
    pub(crate) fn refused_with(&self, token: &str, arguments: &[&str]) -> String {
        let mut command = self.command("phone", "polyphony-agent", &[arguments, &SMALL].concat());
        if !token.is_empty() {
            command.env("POLYPHONY_JOIN_TOKEN", token);
        }
        let said = run(command).unwrap();
        assert_ne!(said.code, 0, "{said:?}");
        said.stderr
    }

    /// The gateway's whole answer to a prompt of token ids. It listens on the loopback of the host's namespace.
    pub(crate) fn complete(&self, deployment: &str) -> String {
        self.complete_with(deployment, 4)
    }

    /// The same, with so many tokens.
    pub(crate) fn complete_with(&self, deployment: &str, n_tokens: usize) -> String {
        let body = format!(
            r#"{{"model":"{deployment}","prompt":[1,2,3],"max_tokens":{n_tokens},"temperature":0,"ignore_eos":true,"return_token_ids":true}}"#
        );
        let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.ask("gateway", &format!("POST /v1/completions HTTP/1.1\r\n{headers}"), &body)
    }

    /// What an endpoint of the host says to a request of these first lines.
    pub(crate) fn ask(&self, endpoint: &str, head: &str, body: &str) -> String {
        let endpoints = std::fs::read(self.folder.path().join("data/endpoints.json")).unwrap();
        let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
        let address = endpoints[endpoint].as_str().unwrap().trim_start_matches("http://");
        let (host, port) = address.split_once(':').unwrap();
        let request = format!("{head}Host: {address}\r\nConnection: close\r\n\r\n{body}");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace("host"), "bash", "-c"]);
        command.arg(format!("exec 3<>/dev/tcp/{host}/{port}; printf %s \"$1\" >&3; timeout 30 cat <&3"));
        command.args(["bash", &request]);
        run(command).unwrap().stdout
    }

    /// Waits until the log of `name` holds `words`.
    pub(crate) fn wait_for(&self, name: &str, words: &str) {
        wait_until(&format!("{words:?} from {name}"), Duration::from_secs(60), || {
            Ok(self.log(name).contains(words).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}; it said:\n{}", self.log(name)));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // One that has ended already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
        // What was started there in the background ends with it.
        for name in &self.namespaces {
            end_all_in(&self.namespace(name));
        }
        for name in &self.namespaces {
            let _ = ip(&["netns", "delete", &self.namespace(name)]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Kills every process of a namespace of ours.
fn end_all_in(namespace: &str) {
    for pid in ip(&["netns", "pids", namespace]).unwrap_or_default().split_whitespace() {
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
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
        end_all_in(name);
        let _ = ip(&["netns", "delete", name]);
    }
}

#[test]
fn the_lines_of_the_guide_are_typed_on_two_machines() {
    let Some(mut lab) = Lab::build() else { return };
    let said = |lab: &Lab, machine: &str, line: &str| {
        let said = run(lab.typed(machine, line)).unwrap();
        assert_eq!(said.code, 0, "{line}\n{said:?}");
        said.stdout
    };
    // docs/adding-a-phone.md, with the least of everything.
    said(&lab, "host", &format!("polyctl up --listen {HOST} --phones 1 --phone-memory 64Mi --backend cpu"));
    let printed = said(&lab, "host", "polyctl join-command");
    let line =
        printed.lines().find(|line| line.contains("polyphony-agent join")).unwrap_or_else(|| panic!("{printed}"));
    let line = format!("{line} --name attic --memory 64Mi --backend cpu");
    lab.start("attic", lab.typed("phone", &line));
    lab.wait_for("attic", "joined");
    lab.wait_for("attic", "`polyphony-agent run` joins again");
    let phones = wait_until("both phones to be ready", Duration::from_secs(60), || {
        let phones = said(&lab, "host", "polyctl get phones");
        Ok((phones.lines().filter(|line| line.contains("True")).count() == 2).then_some(phones))
    });
    assert!(phones.unwrap().contains("attic"));
    let manifest = format!("{}---\n{}", tiny_model(), deployment("tiny", "tiny", 2, "f32", 64));
    std::fs::write(lab.path("manifest.yaml"), manifest).unwrap();
    said(&lab, "host", "polyctl apply -f manifest.yaml");
    said(&lab, "host", "polyctl wait --for=condition=Available inferencedeployment/tiny --timeout=60s");
    assert!(said(&lab, "host", "polyctl describe phone attic").contains("attic"));
    // docs/openai-clients.md: from the other machine, by a key, over HTTPS.
    let ask = |rest: &str| {
        format!("curl -s -o - -w '%{{http_code}}' --cacert host/.polyphony/ca.crt {rest} https://{HOST}:8080/v1/models")
    };
    assert!(said(&lab, "phone", &ask("")).ends_with("401"));
    let created = said(&lab, "host", "polyctl key create app");
    let key = created.split_whitespace().find(|word| word.starts_with("sk-")).unwrap_or_else(|| panic!("{created}"));
    let models = said(&lab, "phone", &ask(&format!("-H 'Authorization: Bearer {key}'")));
    assert!(models.ends_with("200") && models.contains("\"tiny\""), "{models}");
    // And away again.
    said(&lab, "host", "polyctl delete phone attic");
    lab.wait_for("attic", "no Phone records it any more");
    said(&lab, "host", "polyctl down");
}

#[test]
fn a_machine_across_a_cable_finds_the_host_joins_it_and_takes_part_in_a_ring() {
    let Some(mut lab) = Lab::build() else { return };
    let (data, hub) = (lab.path("data"), format!("{HOST}:0"));
    let ports = ["--api-address", "127.0.0.1:0", "--gateway-address", "127.0.0.1:0", "--hub-address", hub.as_str()];
    let arguments = [&["--data-dir", data.as_str()][..], &ports[..]].concat();
    let controller = lab.command("host", "polyphony-controller", &arguments);
    lab.start("controller", controller);
    lab.wait_for("controller", "the controller is up");

    // The printed line is what a person types; each has a token of its own.
    let (near, far) = (lab.line(), lab.line());
    let hub = near.hub.as_str();
    assert!(hub.starts_with(&format!("{HOST}:")) && near.token != far.token, "{near:?}");
    let hash = ["--ca-hash", near.ca_hash.as_str()];
    let join = |lab: &Lab, address: &[&str], token: &str, more: &[&str]| {
        lab.refused_with(token, &[&["join"], address, more].concat())
    };
    let said = join(&lab, &[hub], "", &hash);
    assert!(said.contains("no join token") && said.contains("polyctl join-command"), "{said}");
    let said = join(&lab, &[hub], &near.token, &[]);
    assert!(said.contains("give --ca-hash"), "{said}");
    let said = join(&lab, &[hub], "guess", &hash);
    assert!(said.contains("this is no join token") && !said.contains("guess"), "{said}");
    let said = join(&lab, &[hub], &format!("{}{}", &near.token[..7], "a".repeat(32)), &hash);
    assert!(said.contains("the join token is wrong") && said.contains("polyctl join-command"), "{said}");
    let other_hash = format!("sha256:{}", "0".repeat(64));
    let said = join(&lab, &[hub], &near.token, &["--ca-hash", &other_hash]);
    assert!(said.contains("not the one of --ca-hash") && said.contains("The token was not sent"), "{said}");
    let said = join(&lab, &[&format!("{HOST}:1")], &near.token, &hash);
    assert!(said.contains("nothing listens at"), "{said}");
    let said = wait_until("the host to be found by mDNS", Duration::from_secs(60), || {
        let said = join(&lab, &[], &near.token, &["--ca-hash", &other_hash]);
        Ok((!said.contains("no host was found")).then_some(said))
    })
    .unwrap();
    assert!(said.contains("none of these hosts says that it is the one") && said.contains(hub), "{said}");
    let said = lab.refused_with("", &["run"]);
    assert!(said.contains("joined no host yet"), "{said}");

    // One joins by the line, on the host's own machine; the other finds the host by mDNS, from across the cable.
    let by_line = lab.join("host", &near, &[&[hub][..], &hash, &["--name", "near"], &SMALL].concat());
    lab.start("near", by_line);
    let by_mdns = lab.join("phone", &far, &[&hash[..], &["--name", "far"], &SMALL].concat());
    lab.start("far", by_mdns);
    lab.wait_for("near", "joined");
    lab.wait_for("far", &format!("joined {hub} as far"));
    let other = lab.path("other-agent");
    let more = [&hash[..], &["--name", "near", "--data-dir", &other]].concat();
    let said = join(&lab, &[hub], &near.token, &more);
    assert!(said.contains("used by another device"), "{said}");
    let said = join(&lab, &[hub], &lab.line().token, &more);
    assert!(said.contains("another device is known as near") && said.contains("--name"), "{said}");

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
    lab.end("far");
    let again = lab.command("phone", "polyphony-agent", &["run"]);
    lab.start("far-again", again);
    lab.wait_for("far-again", "joined");
}
