//! The agent in the app: what the app's Java calls, from a real Java machine, which is this one's and not Android's, across a cable from its host.
//!
//! `scripts/test-app.sh` builds the library and runs it; needs root, `ip` and a JDK.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use polyphony_e2e::shelf::wait_until;
use serde_json::{Value, json};

use crate::joining::{HOST, Lab};
use crate::manifests::{deployment, tiny_model};

/// Where the library is.
const LIBRARY: &str = "POLYPHONY_APP_LIBRARY";
const PATIENCE: Duration = Duration::from_secs(60);

/// A Java machine that calls the agent as it is told.
struct App {
    process: Child,
    pipes: RefCell<(ChildStdin, Receiver<String>)>,
}

impl App {
    fn open(lab: &Lab, library: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let classes = lab.path("classes");
        let javac = Command::new("javac")
            .args(["--release", "8", "-Xlint:-options", "-d", &classes])
            .arg(root.join("node-agent/android/app/src/ai/polyphony/Agent.java"))
            .arg(root.join("e2e/java/AgentConsole.java"))
            .output()
            .unwrap();
        assert!(javac.status.success(), "{}", String::from_utf8_lossy(&javac.stderr));
        let folder = library.parent().unwrap().display();
        let java =
            format!("exec java -Xcheck:jni -Djava.library.path={folder} -cp {classes} ai.polyphony.AgentConsole");
        let mut process = lab.typed("phone", &java).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pipes = (process.stdin.take().unwrap(), lines_of(process.stdout.take().unwrap()));
        Self { process, pipes: RefCell::new(pipes) }
    }

    /// What came of a call, which comes within a deadline. What a Java machine has to say of calls that break its rules fails the test.
    fn call(&self, call: &str) -> String {
        let (input, output) = &mut *self.pipes.borrow_mut();
        writeln!(input, "{call}").unwrap();
        loop {
            let line = match output.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => panic!("it ended at {call}"),
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {call} within {PATIENCE:?}"),
            };
            if let Some(answer) = line.strip_prefix("> ") {
                return answer.trim_end().to_owned();
            }
            assert!(!line.contains("WARNING in native method") && !line.contains("FATAL ERROR"), "{call}: {line}");
        }
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.call("status")).unwrap()
    }

    fn wait_for(&self, state: &str) -> Value {
        let mut last = Value::Null;
        let found = wait_until(&format!("the app to be {state}"), PATIENCE, || {
            last = self.status();
            Ok((last["state"] == state).then(|| last.clone()))
        });
        found.unwrap_or_else(|error| panic!("{error:#}; it was {last}"))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a program writes, line by line: read on a thread, since a pipe has no deadline. It ends with the program.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let read = BufReader::new(output).lines().map_while(Result::ok);
        // Who listens no more has seen enough.
        let _ = read.map(|line| sender.send(line)).find(Result::is_err);
    });
    lines
}

/// A picture of what `polyctl join-command` draws where its output is no terminal: light blocks on a dark screen.
fn picture(printed: &str) -> (Vec<u8>, usize, usize) {
    const SCALE: usize = 4;
    let lines = printed.lines().filter(|line| !line.is_empty() && line.chars().all(|block| " ▀▄█".contains(block)));
    let half = |line: &str, blocks: &str| line.chars().map(|block| blocks.contains(block)).collect::<Vec<bool>>();
    let rows: Vec<Vec<bool>> = lines.flat_map(|line| [half(line, "▀█"), half(line, "▄█")]).collect();
    let (width, height) = (rows[0].len() * SCALE, rows.len() * SCALE);
    let pixel = |at: usize| if rows[at / width / SCALE][at % width / SCALE] { 230 } else { 25 };
    ((0..width * height).map(pixel).collect(), width, height)
}

#[test]
#[ignore = "needs the app's library and a JDK: `make test-app`"]
fn an_app_joins_by_a_code_takes_part_pauses_leaves_and_joins_again() {
    let library = std::env::var_os(LIBRARY).expect("`make test-app` says where it is");
    let Some(mut lab) = Lab::build() else { return };
    let (data, hub) = (lab.path("data"), format!("{HOST}:0"));
    let ports = ["--api-address", "127.0.0.1:0", "--gateway-address", "127.0.0.1:0", "--hub-address", hub.as_str()];
    let controller =
        lab.command("host", "polyphony-controller", &[&["--data-dir", data.as_str()][..], &ports[..]].concat());
    lab.start("controller", controller);
    lab.wait_for("controller", "the controller is up");

    // The person points the camera at the host's screen.
    let app = App::open(&lab, Path::new(&library));
    let printed = lab.polyctl(&["join-command", "--link", "--print-qr=always"]).unwrap().ok().unwrap().stdout;
    let link = printed.lines().next().unwrap().to_owned();
    let (luma, width, height) = picture(&printed);
    std::fs::write(lab.path("luma"), &luma).unwrap();
    assert_eq!(app.call(&format!("code {} {width} {height}", lab.path("luma"))), link);
    assert_eq!(app.call(&format!("code {} {height} {}", lab.path("luma"), width + 1)), "null");

    let folder = lab.path("phone-data");
    let start = |link: &str| app.call(&format!("start {folder} pocket {link}"));
    assert_eq!(app.status(), json!({"state": "stopped"}));
    assert!(start("polyphony://desk").contains("no whole join link"));
    assert!(app.call("fault polyphony://desk").contains("no whole join link"));
    assert_eq!(app.call(&format!("fault {link}")), "null");
    app.call(r#"tell {"batteryPercent":83.4,"charging":false,"batteryCelsius":31.5,"thermalStatus":0,"paused":false}"#);
    assert_eq!((start(&link), start(&link)), ("null".into(), "it runs already".into()));
    let idle = app.wait_for("idle");
    assert!(idle["temperatureCelsius"] == 31.5 && idle["hasJoined"] == true, "{idle}");
    assert_eq!(idle["holdsSegments"], Value::Null);
    let phone = |lab: &Lab, path: &str| {
        let query = format!("jsonpath={{{path}}}");
        lab.polyctl(&["get", "phone", "pocket", "-o", &query]).unwrap().ok().unwrap().stdout.trim().to_owned()
    };
    wait_until("what the app tells to be at the host", PATIENCE, || {
        Ok((phone(&lab, ".status.batteryPercent") == "83").then_some(()))
    })
    .unwrap();

    let manifest = format!("{}---\n{}", tiny_model(), deployment("tiny", "tiny", 1, "f32", 64));
    std::fs::write(lab.path("manifest.yaml"), manifest).unwrap();
    lab.polyctl(&["apply", "-f", &lab.path("manifest.yaml")]).unwrap().ok().unwrap();
    assert_eq!(app.wait_for("ready")["holdsSegments"], true);
    let answer = lab.complete("tiny");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"completion_tokens\":4"), "{answer}");
    let serving = app.status();
    assert!(serving["state"] == "serving" && serving["tokensPerSecond"].as_f64() > Some(0.0), "{serving}");

    // A pause is the phone's own word; what it held is not taken up before it is over.
    let withdrawn = |lab: &Lab| phone(lab, ".status.conditions[?(@.type==\"Withdrawn\")].reason");
    app.call(r#"tell {"paused":true}"#);
    assert_eq!(app.wait_for("paused")["message"], "its person has paused it");
    wait_until("the pause to be at the host", PATIENCE, || Ok((withdrawn(&lab) == "Paused").then_some(()))).unwrap();
    app.call(r#"tell {"batteryPercent":2,"charging":false}"#);
    wait_until("the battery to be at the host", PATIENCE, || Ok((withdrawn(&lab) == "BatteryLow").then_some(())))
        .unwrap();
    let low = app.wait_for("withdrawn");
    assert!(low["message"].as_str().unwrap().contains("--min-battery"), "{low}");
    app.call(r#"tell {"batteryPercent":83,"charging":true}"#);
    app.wait_for("ready");
    let answer = lab.complete("tiny");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // It leaves with a word, joins again without a link, and takes no notice of one of a host that it has joined.
    app.call("stop true");
    assert_eq!(app.status(), json!({"state": "stopped"}));
    wait_until("the goodbye to be at the host", PATIENCE, || Ok((withdrawn(&lab) == "Leaving").then_some(()))).unwrap();
    for link in ["-", link.as_str()] {
        assert_eq!(start(link), "null");
        app.wait_for("ready");
        app.call("stop false");
    }
    assert!(lab.complete("tiny").starts_with("HTTP/1.1 5"), "nobody is left");
}
