//! Editing objects with editors that are little scripts.

use crate::cluster::Cluster;
use crate::polyctl::{self, Ran};

const DEPLOYMENT: &str = "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: d}\nspec: {model: m, maxSessions: 2}\n";

/// Runs `edit infer d` with a script as the editor; `$1` is the file.
fn edit(cluster: &Cluster, script: &str) -> Ran {
    let editor = cluster.path("editor");
    polyctl::write_program(&editor, &format!("#!/bin/sh\n{script}\n"));
    let mut command = cluster.command(&["edit", "infer", "d"]);
    polyctl::run(command.env("PATH", "/usr/bin:/bin").env("KUBE_EDITOR", editor).env("TMPDIR", cluster.path("")))
}

#[test]
fn what_is_edited_is_sent_and_what_is_not_is_left() {
    let cluster = Cluster::start();
    cluster.run_with("apply -f -", DEPLOYMENT).ok();
    assert_eq!(edit(&cluster, "true").ok(), "Edit cancelled, no changes made.\n");
    assert_eq!(edit(&cluster, ": > \"$1\"").ok(), "Edit cancelled, no changes made.\n");
    let done = edit(&cluster, "sed -i 's/maxSessions: 2/maxSessions: 5/' \"$1\"");
    assert_eq!(done.ok(), "inferencedeployment.polyphony.dev/d edited\n");
    assert_eq!(cluster.run("get infer d -o jsonpath={.spec.maxSessions}").ok(), "5");
    let failed = edit(&cluster, "exit 3").failed();
    assert!(failed.contains("it ended with exit status: 3; nothing was changed"), "{failed}");
    let missing = cluster.run("edit infer none").failed();
    assert_eq!(missing, "Error from server (NotFound): inferencedeployments.polyphony.dev \"none\" not found\n");
}

#[test]
fn a_refused_edit_comes_back_with_the_reason_above_it() {
    let cluster = Cluster::start();
    cluster.run_with("apply -f -", DEPLOYMENT).ok();
    // The first time it is made wrong, the second time the reason is kept and the fault mended.
    let script = "if grep -q 'Did you mean' \"$1\"; then cp \"$1\" seen; sed -i 's/maxSesions: 3/maxSessions: 3/' \"$1\"; \
        else sed -i 's/maxSessions: 2/maxSesions: 3/' \"$1\"; fi";
    assert_eq!(edit(&cluster, script).ok(), "inferencedeployment.polyphony.dev/d edited\n");
    let seen = std::fs::read_to_string(cluster.path("seen")).unwrap();
    assert!(
        seen.contains("# Error from server (BadRequest)") && seen.contains("unknown field \"spec.maxSesions\""),
        "{seen}"
    );
    assert!(seen.contains("# Did you mean \"maxSessions\"?") && seen.contains("  maxSesions: 3\n"), "{seen}");

    // Saved again as it was refused: given up, and the text is kept.
    let stubborn = edit(&cluster, "sed -i 's/maxSessions: 3/maxSessions: -1/' \"$1\"").failed();
    assert!(stubborn.contains("Edit cancelled, no valid changes were saved."), "{stubborn}");
    for part in ["\n  The InferenceDeployment \"d\" is invalid: ", "spec.maxSessions: Invalid value: -1"] {
        assert!(stubborn.contains(part), "{part}: {stubborn}");
    }
    let kept = stubborn.split("stored to \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(std::fs::read_to_string(kept).unwrap().contains("maxSessions: -1"));
    let broken = edit(&cluster, "grep -q 'is not YAML' \"$1\" && : > \"$1\" || echo '  : [' >> \"$1\"").ok();
    assert_eq!(broken, "Edit cancelled, no changes made.\n");
    assert_eq!(cluster.run("get infer d -o jsonpath={.spec.maxSessions}").ok(), "3");
}
