//! The program by its names, its slips of the finger, and its words in a shell.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cluster::Cluster;
use crate::kinds::kubectl;
use crate::phones::add_phone;
use crate::polyctl;

#[test]
fn a_wrong_verb_or_flag_is_answered_with_the_one_meant() {
    let cluster = Cluster::start();
    for (line, expected) in [
        (
            "gte phones",
            "error: unknown command \"gte\" for \"polyctl\"\nDid you mean \"get\"?\nSee 'polyctl --help' for usage.\n",
        ),
        ("zzzzzz", "error: unknown command \"zzzzzz\" for \"polyctl\"\nSee 'polyctl --help' for usage.\n"),
        (
            "get phones --wach",
            "error: unknown flag: --wach\nDid you mean \"--watch\"?\nSee 'polyctl get --help' for usage.\n",
        ),
        (
            "get phones --namspace=x",
            "error: unknown flag: --namspace\nDid you mean \"--namespace\"?\nSee 'polyctl get --help' for usage.\n",
        ),
        (
            "model imprt x",
            "error: unknown command \"imprt\" for \"polyctl model\"\nDid you mean \"import\"?\nSee 'polyctl model --help' for usage.\n",
        ),
        ("get phnoe", "error: the server doesn't have a resource type \"phnoe\"\nDid you mean \"phone\"?\n"),
    ] {
        assert_eq!(cluster.run(line).failed(), expected, "{line}");
    }
}

#[test]
fn what_cannot_be_said_ends_nothing() {
    let cluster = Cluster::start();
    for (line, code) in [("get phones", 0), ("get phnoes", 1), ("gte", 1), ("describe phones", 0)] {
        let mut command = cluster.command(&line.split(' ').collect::<Vec<_>>());
        // Where nothing can be written, as on a full disk.
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let status = command.stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(code), "{line}");
    }
}

#[test]
fn kubectl_runs_it_as_a_plugin() {
    let Some(kubectl) = kubectl() else { return };
    let cluster = Cluster::start();
    add_phone(&cluster, "phone-1", json!({}));
    let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-polyphony"));
    let run = |line: &str| {
        let mut command = Command::new(&kubectl);
        command.env_clear().env("HOME", cluster.path("")).env("KUBECONFIG", cluster.path("kubeconfig"));
        polyctl::run(command.env("PATH", plugin.parent().unwrap()).args(line.split(' ')))
    };
    assert_eq!(run("polyphony get phones -o name").ok(), "phone.polyphony.dev/phone-1\n");
    assert!(run("polyphony --help").ok().contains("Usage: kubectl polyphony "));
    let error = run("polyphony gte phones").failed();
    assert!(
        error.starts_with("error: unknown command \"gte\" for \"kubectl polyphony\"\nDid you mean \"get\"?"),
        "{error}"
    );
}

#[test]
fn bash_completes_verbs_kinds_and_names() {
    if !Path::new("/bin/bash").exists() {
        polyphony_skip::skipped("no /bin/bash");
        return;
    }
    let cluster = Cluster::start();
    add_phone(&cluster, "phone-1", json!({}));
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let script = format!(
            "source <(polyctl completion bash); COMP_WORDS=({}); COMP_CWORD={}; _clap_complete_polyctl polyctl \"${{COMP_WORDS[COMP_CWORD]}}\" x; echo \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        let mut command = Command::new("/bin/bash");
        let path = format!("{}:/usr/bin:/bin", polyctl::program().parent().unwrap().display());
        command
            .env_clear()
            .env("HOME", cluster.path(""))
            .env("PATH", path)
            .env("KUBECONFIG", cluster.path("kubeconfig"));
        polyctl::run(command.args(["-c", &script])).ok().trim().to_owned()
    };
    assert_eq!(complete("polyctl unco"), "uncordon");
    assert_eq!(complete("polyctl get infer"), "inferencedeployments");
    assert_eq!(complete("polyctl get phones ph"), "phone-1");
    assert_eq!(complete("polyctl describe phone/p"), "phone/phone-1");
    assert_eq!(complete("polyctl drain "), "phone-1");
    assert_eq!(complete("polyctl logs "), "controller phone-1");
    assert_eq!(complete("polyctl get ev"), "events");
    assert!(complete("polyctl get --wat").contains("--watch"));
    assert_eq!(complete("polyctl -n nowhere get phones ph"), "phone-1");
    for shell in ["zsh", "fish"] {
        let script = cluster.run(&format!("completion {shell}")).ok();
        assert!(
            script.contains(&format!("POLYCTL_COMPLETE=\"{shell}\"")) || script.contains("POLYCTL_COMPLETE=fish"),
            "{script}"
        );
    }
}
