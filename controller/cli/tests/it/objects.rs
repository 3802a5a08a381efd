//! Objects from file to table and back: apply, get, describe, delete.

use std::path::Path;
use std::process::Command;

use kube::Api;
use kube::api::{Patch, PatchParams};
use polyphony_api::InferenceDeployment;
use serde_json::json;

use crate::cluster::Cluster;
use crate::kinds::kubectl;
use crate::phones::add_phone;
use crate::polyctl;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/smollm2.yaml");

#[test]
fn the_example_is_applied_shown_and_deleted() {
    let cluster = Cluster::start();
    assert!(Path::new(EXAMPLE).exists());
    let apply = format!("apply -f {EXAMPLE}");
    let (model, deployment) =
        ("model.polyphony.dev/smollm2-135m-instruct", "inferencedeployment.polyphony.dev/smollm2");
    let dry = cluster.run(&format!("{apply} --dry-run=server")).ok();
    assert_eq!(dry, format!("{model} created (server dry run)\n{deployment} created (server dry run)\n"));
    assert_eq!(cluster.run(&apply).ok(), format!("{model} created\n{deployment} created\n"));
    assert_eq!(cluster.run(&apply).ok(), format!("{model} unchanged\n{deployment} unchanged\n"));
    let changed = std::fs::read_to_string(EXAMPLE).unwrap().replace("maxSessions: 2", "maxSessions: 3");
    assert_eq!(cluster.run_with("apply -f -", &changed).ok(), format!("{model} unchanged\n{deployment} configured\n"));

    assert_eq!(cluster.run("get infer,mdl -o name").ok(), format!("{deployment}\n{model}\n"));
    let table = cluster.run("get infer").ok();
    let mut lines = table.lines();
    let headers: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(headers, ["NAME", "READY", "DESIRED", "MODEL", "PHONES", "TOK/S", "URL", "AGE"]);
    assert!(lines.next().unwrap().starts_with("smollm2 "), "{table}");
    let all = cluster.run("get all").ok();
    assert!(all.contains(deployment) && all.contains(model) && all.contains("\n\nNAME"), "{all}");
    assert_eq!(cluster.run("get infer smollm2 -o jsonpath={.spec.maxSessions}").ok(), "3");
    let yaml = cluster.run("get infer/smollm2 -o yaml").ok();
    assert!(
        yaml.starts_with("apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\n")
            && !yaml.contains("managedFields"),
        "{yaml}"
    );

    let note =
        json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}}});
    let deployments: Api<InferenceDeployment> = Api::default_namespaced(cluster.client());
    cluster.runtime.block_on(deployments.patch("smollm2", &PatchParams::default(), &Patch::Merge(note))).unwrap();
    let told = cluster.run("describe infer smollm2").ok();
    assert!(told.contains("a: b\n") && !told.contains("last-applied"), "{told}");
    assert!(told.starts_with("Name:               smollm2\nNamespace:          default\n"), "{told}");
    assert!(told.contains("\nPlacements:         <none>\n") || told.contains("\nPlacements:  <none>\n"), "{told}");

    let dry = cluster.run("delete infer --all --dry-run=server").ok();
    assert_eq!(dry, "inferencedeployment.polyphony.dev \"smollm2\" deleted from default namespace (server dry run)\n");
    let deleted = cluster.run(&format!("delete -f {EXAMPLE}")).ok();
    assert_eq!(
        deleted,
        "inferencedeployment.polyphony.dev \"smollm2\" deleted from default namespace\nmodel.polyphony.dev \"smollm2-135m-instruct\" deleted from default namespace\n"
    );
    let nothing = cluster.run("get infer");
    assert_eq!((nothing.code, nothing.stderr.as_str()), (0, "No resources found in default namespace.\n"));
    assert_eq!(cluster.run("get phones").stderr, "No resources found\n");
}

#[test]
fn all_is_what_people_apply_and_not_the_phones() {
    let cluster = Cluster::start();
    cluster.run(&format!("apply -f {EXAMPLE}")).ok();
    add_phone(&cluster, "phone-1", json!({}));
    let (model, deployment) =
        ("model.polyphony.dev/smollm2-135m-instruct", "inferencedeployment.polyphony.dev/smollm2");
    let everything = format!("{deployment}\n{model}\nphone.polyphony.dev/phone-1\n");
    assert_eq!(cluster.run("get polyphony -o name").ok(), everything);
    assert_eq!(cluster.run("get all -o name").ok(), format!("{deployment}\n{model}\n"));
    cluster.run("delete all --all").ok();
    assert_eq!(cluster.run("get polyphony -o name").ok(), "phone.polyphony.dev/phone-1\n");
}

#[test]
fn a_selector_that_is_none_or_selects_everything_deletes_nothing() {
    let cluster = Cluster::start();
    cluster.run(&format!("apply -f {EXAMPLE}")).ok();
    let no_name = "error: resource(s) were provided, but no name was specified\n";
    for (arguments, expected) in [
        (["delete", "infer", "-l", "!!!!"], "unable to parse requirement: found '!', expected: identifier"),
        (["delete", "infer", "-l", ","], "found ',', expected: !, identifier, or 'end of string'"),
        (["delete", "infer", "-l", "a=b=c"], "found '=', expected: ',' or 'end of string'"),
        (["delete", "infer", "--field-selector", "!!!!"], "invalid selector: '!!!!'; can't understand '!!!!'"),
        (["delete", "infer", "-l", ""], no_name),
        (["delete", "infer", "-l", " "], no_name),
        (["delete", "infer", "--field-selector", ","], no_name),
        (["get", "infer", "-l", "a b"], "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (["describe", "infer", "-l", "a b"], "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (["cordon", "-l", ",", "--"], "found ',', expected: !, identifier, or 'end of string'"),
        (["drain", "-l", " ", "--"], "no phone was named"),
    ] {
        let error = polyctl::run(&mut cluster.command(&arguments)).failed();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(cluster.run("get infer -o name -l !none").ok(), "inferencedeployment.polyphony.dev/smollm2\n");
}

#[test]
fn what_was_written_out_as_a_list_is_applied_again() {
    let cluster = Cluster::start();
    cluster.run(&format!("apply -f {EXAMPLE}")).ok();
    let backup = cluster.run("get mdl,infer -o yaml").ok();
    assert!(backup.contains("\nkind: List\n"), "{backup}");
    let (model, deployment) =
        ("model.polyphony.dev/smollm2-135m-instruct", "inferencedeployment.polyphony.dev/smollm2");
    let unchanged = format!("{model} unchanged\n{deployment} unchanged\n");
    assert_eq!(cluster.run_with("apply -f -", &backup).ok(), unchanged);
    let wrong = backup.replace("replicas: 1", "replicas: -1");
    let line = wrong.lines().position(|line| line.contains("replicas: -1")).unwrap() + 1;
    let error = cluster.run_with("apply -f -", &wrong).failed();
    assert!(error.contains(&format!("STDIN:{line}, document 1: spec.replicas")), "{error}");

    let Some(kubectl) = kubectl() else { return };
    let file = cluster.path("backup.yaml");
    let backup = cluster.run("get mdl,infer -o yaml").ok();
    std::fs::write(&file, &backup).unwrap();
    let apply = |file: &Path| {
        let mut command = Command::new(&kubectl);
        command.env_clear().env("HOME", cluster.path("")).env("KUBECONFIG", cluster.path("kubeconfig"));
        polyctl::run(command.arg("apply").arg("-f").arg(file))
    };
    assert_eq!(apply(&file).ok(), format!("{model} configured\n{deployment} configured\n"));
    // It leaves the fields of each object to the server, which is strict about them.
    let backup = cluster.run("get mdl,infer -o yaml").ok();
    std::fs::write(&file, backup.replace("maxSessions:", "maxSessoins:")).unwrap();
    let error = apply(&file).failed();
    assert!(error.contains("unknown field \"spec.maxSessoins\""), "{error}");
}

#[test]
fn what_does_not_exist_is_said_as_kubectl_says_it() {
    let cluster = Cluster::start();
    for (line, expected) in [
        ("get phone none", "Error from server (NotFound): phones.polyphony.dev \"none\" not found\n"),
        ("get phnoes", "error: the server doesn't have a resource type \"phnoes\"\nDid you mean \"phones\"?\n"),
        ("delete infer none", "Error from server (NotFound): inferencedeployments.polyphony.dev \"none\" not found\n"),
        ("delete infer", "error: resource(s) were provided, but no name was specified\n"),
        (
            "wait infer/none --for=condition=Available",
            "Error from server (NotFound): inferencedeployments.polyphony.dev \"none\" not found\n",
        ),
        ("wait infer --all --for=condition=Available", "error: no matching resources found\n"),
        ("describe model none", "Error from server (NotFound): models.polyphony.dev \"none\" not found\n"),
        ("chat none hello", "Error from server (NotFound): inferencedeployments.polyphony.dev \"none\" not found\n"),
    ] {
        assert_eq!(cluster.run(line).failed(), expected, "{line}");
    }
    assert!(
        cluster
            .run("get phones --kubeconfig nowhere")
            .failed()
            .contains("nowhere does not exist: start one here with `polyctl up`")
    );
    let mut elsewhere = cluster.command(&["get", "phones"]);
    let error = polyctl::run(elsewhere.env("KUBECONFIG", "elsewhere")).failed();
    assert!(error.contains("elsewhere does not exist: start one here with `polyctl up`"), "{error}");
    assert!(cluster.run("get phones --no-such-flag").failed().contains("--no-such-flag"));
    assert_eq!(cluster.run("wait phone/none --for=delete").ok(), "");
    assert_eq!(cluster.run("delete phone none --ignore-not-found").ok(), "");
}

#[test]
fn a_wrong_manifest_is_answered_with_file_line_field_and_remedy() {
    let cluster = Cluster::start();
    let file = cluster.path("bad.yaml");
    let text = "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {name: good}\nspec:\n  source: cache://x.gguf\n---\n\
                apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata:\n  name: bad\nspec:\n  model: good\n  replicsa: 2\n";
    std::fs::write(&file, text).unwrap();
    let ran = cluster.run("apply -f bad.yaml");
    assert_eq!(ran.stdout, "model.polyphony.dev/good created\n");
    let error = ran.failed();
    for part in
        ["unknown field \"spec.replicsa\"", "bad.yaml:13, document 2: spec.replicsa", "Did you mean \"replicas\"?"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    std::fs::write(&file, text.replace("replicsa: 2", "replicas: -2")).unwrap();
    let error = cluster.run("apply -f bad.yaml").failed();
    assert!(error.contains("The InferenceDeployment \"bad\" is invalid: spec.replicas: Invalid value: -2"), "{error}");
    assert!(error.contains("bad.yaml:13, document 2: spec.replicas"), "{error}");
    std::fs::write(&file, text.replace("kind: InferenceDeployment", "kind: InferenceDeploymnet")).unwrap();
    let error = cluster.run("apply -f bad.yaml").failed();
    assert!(error.contains("bad.yaml:8, document 2") && error.contains("kind: InferenceDeployment\"?"), "{error}");

    let with = |placement: &str| text.replace("replicsa: 2", &format!("placement: {placement}"));
    let selectors = [
        ("{selector: {matchLabels: {a: b}}, phoneSelector: {a: b}}", "selector and phoneSelector exclude each other"),
        ("{selector: {matchExpressions: [{key: a, operator: In}]}}", "In and NotIn take at least one value"),
        ("{selector: {matchExpressions: [{key: a, operator: Near}]}}", "supported values: "),
    ];
    for (placement, expected) in selectors {
        std::fs::write(&file, with(placement)).unwrap();
        let error = cluster.run("apply -f bad.yaml").failed();
        assert!(error.contains(expected), "{placement}: {error}");
    }
    let floors = [
        ("minTokensPerSecond: 5", "minTokensPerSecond is the floor of the objective Efficiency"),
        (
            "minTokensPerSecond: 5\n  objective: Throughput",
            "minTokensPerSecond is the floor of the objective Efficiency",
        ),
        ("minTokensPerSecond: 0\n  objective: Efficiency", "spec.minTokensPerSecond"),
        ("minTokensPerSecond: 5Mi\n  objective: Efficiency", "spec.minTokensPerSecond"),
    ];
    for (fields, expected) in floors {
        std::fs::write(&file, text.replace("replicsa: 2", fields)).unwrap();
        let error = cluster.run("apply -f bad.yaml").failed();
        assert!(error.contains(expected), "{fields}: {error}");
    }
    std::fs::write(&file, text.replace("replicsa: 2", "minTokensPerSecond: 0.5\n  objective: Efficiency")).unwrap();
    cluster.run("apply -f bad.yaml").ok();
    let described = cluster.run("describe infer bad").ok();
    assert!(described.contains("Efficiency, at 0.5 tokens/s at least"), "{described}");
    cluster.run("delete infer bad").ok();
    let twice = |now: &str, before: &str| {
        let fields = format!("numerics: {{activationType: {now}}}\n  transport: {{activationType: {before}}}");
        std::fs::write(&file, text.replace("replicsa: 2", &fields)).unwrap();
        cluster.run("apply -f bad.yaml")
    };
    // Objects of before have the old field without anybody's having written it: the new one counts.
    assert!(twice("q8", "f16").ok().contains("inferencedeployment.polyphony.dev/bad created"));
    let described = cluster.run("describe infer bad").ok();
    assert!(described.contains("Int8, q8 hidden states"), "{described}");
    cluster.run("delete infer bad").ok();
    std::fs::write(&file, with("{selector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}}")).unwrap();
    assert!(cluster.run("apply -f bad.yaml").ok().contains("inferencedeployment.polyphony.dev/bad created"));
}

#[test]
fn the_version_of_the_server_is_shown() {
    let cluster = Cluster::start();
    let text = cluster.run("version").ok();
    assert!(text.starts_with("Client Version: v0.") && text.contains("\nServer Version: v1."), "{text}");
}
