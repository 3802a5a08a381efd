//! What the server has: kinds and their fields, as the real kubectl tells them; and replicas.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::Cluster;
use crate::polyctl;

/// The real kubectl, where set-up has put it.
pub fn kubectl() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("POLYPHONY_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("polyphony")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/polyphony")));
    let kubectl = cache.map(|cache| cache.join("bin/kubectl")).filter(|kubectl| kubectl.exists());
    if kubectl.is_none() {
        polyphony_skip::skipped("no kubectl in the cache; `make setup-tests` fetches it");
    }
    kubectl
}

#[test]
fn explain_and_api_resources_print_what_kubectl_prints() {
    let Some(kubectl) = kubectl() else { return };
    let cluster = Cluster::start();
    for line in [
        "explain phones",
        "explain phone.spec",
        "explain phone.status.backends",
        "explain phone.status.conditions",
        "explain phone.metadata",
        "explain phone.metadata.labels",
        "explain infer.spec.placement",
        "explain infer.spec.placement.minPhones",
        "explain infer.spec.objective",
        "explain infer.spec.placement.phoneSelector",
        "explain seg.spec",
        "explain seg.spec.holds",
        "explain phone --recursive",
        "explain infer.spec --recursive",
        "explain mdl --recursive",
        "explain ns",
        "explain phones.polyphony.dev",
        "api-resources",
        "api-resources -o wide",
        "api-resources -o name",
        "api-resources --namespaced=false",
        "api-resources --api-group=polyphony.dev --no-headers",
        "api-resources --sort-by=kind --verbs=list,get",
    ] {
        let mut command = Command::new(&kubectl);
        command.env_clear().env("HOME", cluster.path("")).env("KUBECONFIG", cluster.path("kubeconfig"));
        let expected = polyctl::run(command.args(line.split(' '))).ok();
        assert_eq!(cluster.run(line).ok(), expected, "{line}");
    }
}

#[test]
fn a_field_that_does_not_exist_is_answered_with_the_one_meant() {
    let cluster = Cluster::start();
    let error = cluster.run("explain infer.spec.placment").failed();
    assert_eq!(error, "error: field \"placment\" does not exist\nDid you mean \"placement\"?\n");
    assert!(cluster.run("explain").failed().contains("polyctl api-resources"));
    assert!(cluster.run("explain phnoes").failed().contains("Did you mean \"phones\"?"));
    let version = cluster.run("explain phone --api-version=polyphony.dev/v9").failed();
    assert_eq!(version, "error: couldn't find resource for \"polyphony.dev/v9, Resource=phones\"\n");
}

#[test]
fn replicas_are_scaled_when_they_are_as_expected() {
    let cluster = Cluster::start();
    let of = |name: &str| {
        format!(
            "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: {name}}}\nspec: {{model: m}}\n---\n"
        )
    };
    cluster.run_with("apply -f -", &format!("{}{}", of("a"), of("b"))).ok();
    let titles = "inferencedeployment.polyphony.dev/a scaled\ninferencedeployment.polyphony.dev/b scaled\n";
    assert_eq!(cluster.run("scale infer/a infer/b --replicas=3").ok(), titles);
    assert_eq!(cluster.run("get infer -o jsonpath={.items[*].spec.replicas}").ok(), "3 3");
    let owned = cluster.run("get infer a -o yaml --show-managed-fields").ok();
    assert!(owned.contains("manager: polyctl-scale\n"), "{owned}");
    let wrong = cluster.run("scale infer a --replicas=1 --current-replicas=2").failed();
    assert_eq!(wrong, "error: Expected replicas to be 2, was 3\n");
    cluster.run("scale infer a --replicas=0 --current-replicas=3").ok();
    cluster.run("scale infer --all --replicas=2 --dry-run=server").ok();
    assert_eq!(cluster.run("get infer -o jsonpath={.items[*].spec.replicas}").ok(), "0 3");
    for (line, expected) in [
        ("scale infer/a", "error: required flag(s) \"replicas\" not set\n"),
        ("scale infer --replicas=1", "error: resource(s) were provided, but no name was specified\n"),
        (
            "scale infer none --replicas=1",
            "Error from server (NotFound): inferencedeployments.polyphony.dev \"none\" not found\n",
        ),
    ] {
        assert_eq!(cluster.run(line).failed(), expected, "{line}");
    }
    for (line, expected) in [
        ("scale infer/a --replicas -1", "'-1' for '--replicas <N>': it has to be a whole number from 0 to 2147483647"),
        ("up --phones -1", "'-1' for '--phones <N>': it has to be a whole number from 0 to 64"),
    ] {
        let error = cluster.run(line).failed();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
