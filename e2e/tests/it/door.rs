//! The door over time: certificates of seconds are renewed under answers, an authority is rotated under them, a phone sleeps and comes back, and
//! one that was deleted does not; a host is lost and restored.
//!
//! Needs root and `ip`, as what it is built of does.

use std::process::Command;
use std::time::{Duration, Instant};

use polyphony_e2e::shelf::wait_until;

use crate::joining::{HOST, Lab, SMALL};
use crate::manifests::{deployment, tiny_model};

const LIFETIME: Duration = Duration::from_secs(9);
const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane whose certificates live for seconds, and two phones, `near` on its machine and `far` on another, that serve `tiny` together.
fn two_phones() -> Option<Lab> {
    let mut lab = Lab::build()?;
    control_plane(&mut lab, "controller", &format!("{HOST}:0"));
    for (namespace_of, name) in [("host", "near"), ("phone", "far")] {
        join(&mut lab, namespace_of, name);
    }
    deploy(&lab);
    Some(lab)
}

/// `tiny` over both phones.
fn deploy(lab: &Lab) {
    let manifest = format!("{}---\n{}", tiny_model(), deployment("tiny", "tiny", 2, "f32", 64));
    std::fs::write(lab.path("manifest.yaml"), manifest).unwrap();
    lab.polyctl(&["apply", "-f", &lab.path("manifest.yaml")]).unwrap().ok().unwrap();
    available(lab);
}

fn control_plane(lab: &mut Lab, log: &str, hub: &str) {
    let (data, lifetime) = (lab.path("data"), format!("{}s", LIFETIME.as_secs()));
    let ports = ["--api-address", "127.0.0.1:0", "--gateway-address", "127.0.0.1:0", "--hub-address", hub];
    let terms = ["--data-dir", data.as_str(), "--certificate-lifetime", &lifetime, "--advertise", "never"];
    let controller = lab.command("host", "polyphony-controller", &[&terms[..], &ports[..]].concat());
    lab.start(log, controller);
    lab.wait_for(log, "the controller is up");
}

fn join(lab: &mut Lab, namespace_of: &str, name: &str) {
    join_with(lab, namespace_of, name, &[]);
}

fn join_with(lab: &mut Lab, namespace_of: &str, name: &str, environment: &[(&str, &str)]) {
    let line = lab.line();
    let arguments = [line.hub.as_str(), "--ca-hash", &line.ca_hash, "--name", name];
    let mut command = lab.join(namespace_of, &line, &[&arguments[..], &SMALL].concat());
    command.envs(environment.iter().copied());
    lab.start(name, command);
    lab.wait_for(name, "joined");
}

/// The library that tells a program another time.
fn faketime() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if found.is_none() {
        polyphony_skip::skipped("there is no libfaketime here (on Debian: libfaketime)");
    }
    found.map(|path| path.display().to_string())
}

fn available(lab: &Lab) {
    let wait = ["wait", "--for=condition=Available", "inferencedeployment/tiny", "--timeout=60s"];
    let waited = lab.polyctl(&wait).unwrap();
    let logs = || ["controller", "near", "far"].map(|name| lab.log(name)).join("\n");
    assert_eq!(waited.code, 0, "{waited:?}\n{}", logs());
}

/// Asks again and again; every answer has to be whole.
fn answers_for(lab: &Lab, how_long: Duration) {
    let began = Instant::now();
    while began.elapsed() < how_long {
        let answer = lab.complete("tiny");
        let is_whole = answer.starts_with("HTTP/1.1 200") && answer.contains("\"completion_tokens\":4");
        assert!(is_whole, "{answer}\n{}\n{}", lab.log("controller"), lab.log("far"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn times(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn is_ready(lab: &Lab, phone: &str) -> bool {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    lab.polyctl(&["get", &format!("phone/{phone}"), "-o", path]).is_ok_and(|said| said.stdout.trim() == "True")
}

#[test]
fn certificates_of_seconds_are_renewed_and_an_authority_is_rotated_under_answers() {
    let Some(mut lab) = two_phones() else { return };
    answers_for(&lab, 2 * LIFETIME);
    let before = lab.line().ca_hash;
    lab.polyctl(&["certs", "rotate"]).unwrap().ok().unwrap();
    answers_for(&lab, Duration::from_secs(4));
    let said = lab.polyctl(&["certs", "rotate", "--root"]).unwrap().ok().unwrap().stdout;
    answers_for(&lab, LIFETIME + Duration::from_secs(4));
    let log = lab.log("controller");
    for phone in ["near", "far"] {
        assert_eq!(times(&log, &format!("phone joined phone={phone} ")), 1, "no link was ended by it:\n{log}");
    }
    // Who joins now knows the new root; it takes part beside those that joined by the old one.
    let listed = lab.polyctl(&["certs", "list"]).unwrap().ok().unwrap().stdout;
    assert!(listed.contains("retired root") && listed.contains(&before), "{listed}");
    let after =
        listed.lines().find_map(|line| line.strip_prefix("root ")?.split_whitespace().nth(1)).unwrap().to_owned();
    assert!(after != before && said.contains(&after), "{said}{listed}");
    // Roots of before are forgotten once all have renewed.
    lab.polyctl(&["certs", "rotate", "--forget-retired"]).unwrap().ok().unwrap();
    answers_for(&lab, LIFETIME);
    let old = lab.line_of(&before);
    let said = lab.refused_with(&old.token, &["join", &old.hub, "--ca-hash", &before, "--data-dir", &lab.path("late")]);
    assert!(said.contains("not the one of --ca-hash"), "{said}");
    let new = lab.line_of(&after);
    let arguments = [new.hub.as_str(), "--ca-hash", &after, "--name", "third", "--data-dir", &lab.path("third")];
    let command = lab.join("phone", &new, &[&arguments[..], &SMALL].concat());
    lab.start("third", command);
    lab.wait_for("third", "joined");
}

#[test]
fn phones_whose_clocks_are_a_year_off_join_serve_and_renew() {
    let Some(library) = faketime() else { return };
    let Some(mut lab) = Lab::build() else { return };
    control_plane(&mut lab, "controller", &format!("{HOST}:0"));
    let clock = |off| [("LD_PRELOAD", library.as_str()), ("FAKETIME", off), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    join_with(&mut lab, "host", "near", &clock("-365d"));
    join_with(&mut lab, "phone", "far", &clock("+365d"));
    let year = |log: &str| log.lines().find_map(|line| line.get(..4)?.parse::<i32>().ok());
    let years = ["controller", "near", "far"].map(|name| year(&lab.log(name)).unwrap());
    assert!(years[1] < years[0] && years[0] < years[2], "their logs are of other years: {years:?}");
    deploy(&lab);
    // Longer than a certificate lasts.
    answers_for(&lab, 2 * LIFETIME);
    let log = lab.log("controller");
    for phone in ["near", "far"] {
        assert_eq!(times(&log, &format!("phone joined phone={phone} ")), 1, "no link was ended by it:\n{log}");
    }
}

#[test]
fn a_phone_that_is_deleted_is_cut_off_by_its_ring_at_once() {
    let Some(lab) = two_phones() else { return };
    answers_for(&lab, Duration::from_secs(1));
    let up = times(&lab.log("near"), "ring link up");
    assert!(up >= 1, "{}", lab.log("near"));
    lab.polyctl(&["delete", "phone", "far"]).unwrap().ok().unwrap();
    // It goes on saying what it said, and is heard by nobody.
    lab.wait_for("near", "the host no longer knows far by the key");
    lab.wait_for("far", "no Phone far records this device's key");
    // By which it joined, and which it showed again.
    lab.wait_for("far", "its token does not help: the join token took this device in");
    assert_eq!(times(&lab.log("near"), "ring link up"), up, "nothing is dialled anew:\n{}", lab.log("near"));
}

#[test]
fn a_phone_sleeps_past_its_certificate_and_comes_back_and_one_that_was_deleted_does_not() {
    let Some(mut lab) = two_phones() else { return };
    let far = lab.pid("far");
    signal(far, "-STOP");
    std::thread::sleep(LIFETIME + Duration::from_secs(3));
    signal(far, "-CONT");
    wait_until("the sleeper to be Ready", PATIENCE, || Ok(is_ready(&lab, "far").then_some(()))).unwrap();
    available(&lab);
    answers_for(&lab, Duration::from_secs(1));
    // Killed, it starts again by what it has, and needs no token.
    lab.end("far");
    let again = lab.command("phone", "polyphony-agent", &["run"]);
    lab.start("far-again", again);
    lab.wait_for("far-again", "joined");
    // Deleted, it is shut out, whatever certificate it has, and its peers let it go.
    lab.polyctl(&["delete", "phone", "far"]).unwrap().ok().unwrap();
    lab.wait_for("far-again", "no Phone far records this device's key");
    let gone = lab.polyctl(&["get", "phones", "-o", "name"]).unwrap().ok().unwrap().stdout;
    assert!(gone.contains("/near") && !gone.contains("/far"), "{gone}");
    lab.end("far-again");
    let said = lab.refused_with("", &["join"]);
    assert!(said.contains("join again with a new token"), "{said}");
    // Its papers have run out meanwhile, so that it is asked to renew them first, which nobody may who is not known.
    std::thread::sleep(LIFETIME);
    join(&mut lab, "phone", "far");
    available(&lab);
    answers_for(&lab, Duration::from_secs(1));
    assert!(!lab.log("controller").contains("panicked") && !lab.log("near").contains("panicked"));
}

#[test]
fn a_host_that_is_lost_is_restored_and_its_phones_come_back_by_themselves() {
    let Some(mut lab) = two_phones() else { return };
    let (kept, hub) = (lab.path("kept.json"), lab.line().hub);
    let certs = |lab: &Lab| lab.polyctl(&["certs", "list"]).unwrap().ok().unwrap().stdout;
    let roots = |listed: &str| listed.lines().find(|line| line.starts_with("root ")).unwrap().to_owned();
    let before = roots(&certs(&lab));
    let said = lab.polyctl(&["backup", &kept]).unwrap().ok().unwrap().stdout;
    assert!(said.contains("keep it as you keep keys"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "who has it can be that host");
    let again = lab.polyctl(&["backup", &kept]).unwrap();
    assert!(again.code != 0 && again.stderr.contains("there already"), "{again:?}");
    let refused = lab.polyctl(&["restore", &kept]).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("already"), "nothing is written over: {refused:?}");

    lab.end("controller");
    std::fs::remove_dir_all(lab.path("data")).unwrap();
    lab.polyctl(&["restore", &kept]).unwrap().ok().unwrap();
    control_plane(&mut lab, "restored", &hub);
    for phone in ["near", "far"] {
        wait_until(phone, PATIENCE, || Ok(is_ready(&lab, phone).then_some(()))).unwrap_or_else(|error| {
            panic!("{error:#}\n{}\n{}", lab.log("restored"), lab.log(phone));
        });
    }
    available(&lab);
    answers_for(&lab, LIFETIME);
    assert_eq!(roots(&certs(&lab)).split_whitespace().nth(2), before.split_whitespace().nth(2), "one authority");
    assert!(!lab.log("restored").contains("panicked") && !lab.log("far").contains("panicked"));
}

/// What nobody may read in a log: tokens, keys, private keys. Of everything that ran here.
#[test]
fn no_secret_is_in_any_log() {
    let Some(lab) = two_phones() else { return };
    let key = lab.polyctl(&["key", "create", "app"]).unwrap().ok().unwrap().stdout.trim().to_owned();
    let line = lab.line();
    // Refused and taken, and each told of in a log at its most talkative.
    let arguments = [line.hub.as_str(), "--ca-hash", &line.ca_hash, "--name", "near", "--data-dir", &lab.path("other")];
    let said = lab.refused_with(&line.token, &[&["join"], &arguments[..]].concat());
    let mut secrets = lab.tokens();
    secrets.extend([key, line.token]);
    let api_token = std::fs::read_to_string(lab.path("data/token")).unwrap().trim().to_owned();
    secrets.push(api_token);
    let pems = [lab.path("data/authority.json"), lab.path("host/.polyphony/agent/identity/key.pem")];
    for pem in pems {
        let text = std::fs::read_to_string(&pem).unwrap_or_else(|error| panic!("{pem}: {error}")).replace("\\n", "\n");
        let is_body = |line: &&str| line.len() == 64 && !line.contains('-');
        // Lines of what only a private key has: those of certificates are no secret.
        let private = text.split("PRIVATE KEY-----").skip(1).step_by(2);
        secrets.extend(private.filter_map(|part| part.lines().find(is_body).map(str::to_owned)));
    }
    assert!(secrets.len() > 6 && secrets.iter().all(|secret| secret.len() > 20), "{}", secrets.len());
    for name in ["controller", "near", "far"] {
        let log = lab.log(name);
        let found = secrets.iter().filter(|secret| log.contains(secret.as_str())).count();
        assert_eq!(found, 0, "{name} has a secret in its log");
        assert!(!log.is_empty());
    }
    assert!(secrets.iter().all(|secret| !said.contains(secret.as_str())), "nor is one in what a person reads");
}
