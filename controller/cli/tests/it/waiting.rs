//! Waiting and watching: what happens while polyctl looks.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use polyphony_api::phone::PhoneSpec;
use polyphony_api::{InferenceDeployment, InferenceDeploymentStatus, Phone};
use serde_json::json;

use crate::cluster::Cluster;
use crate::polyctl;

const DEPLOYMENT: &str =
    "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: d}\nspec: {model: m}\n";

fn set_available(cluster: &Cluster, observed_generation: i64) {
    let condition = Condition {
        type_: "Available".into(),
        status: "True".into(),
        reason: "Serving".into(),
        message: "it answers".into(),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        observed_generation: Some(observed_generation),
    };
    let status = InferenceDeploymentStatus {
        observed_generation: Some(observed_generation),
        conditions: vec![condition],
        ..InferenceDeploymentStatus::default()
    };
    let api: Api<InferenceDeployment> = Api::default_namespaced(cluster.client());
    let patch = Patch::Merge(json!({"status": status}));
    cluster.runtime.block_on(api.patch_status("d", &PatchParams::default(), &patch)).unwrap();
}

/// A child whose output is read line by line; killed with the value.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn start(mut command: Command) -> Self {
        let mut child = polyctl::start(&mut command);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn wait_believes_only_what_was_said_of_the_present_spec() {
    let cluster = Cluster::start();
    cluster.run_with("apply -f -", DEPLOYMENT).ok();
    let line = "wait infer/d --for=condition=Available --timeout=";
    let vain = cluster.run(&format!("{line}0s")).failed();
    assert_eq!(
        vain,
        "error: timed out waiting for the condition on inferencedeployments/d\n  it has no condition Available yet\n"
    );
    set_available(&cluster, 1);
    assert_eq!(cluster.run(&format!("{line}30s")).ok(), "inferencedeployment.polyphony.dev/d condition met\n");
    cluster.run_with("apply -f -", &DEPLOYMENT.replace("model: m", "model: m, replicas: 2")).ok();
    let stale = cluster.run(&format!("{line}0s")).failed();
    assert!(stale.contains("Available=True (of an older generation) (Serving): it answers"), "{stale}");
    let waiting =
        polyctl::start(&mut cluster.command(&["wait", "infer/d", "--for=condition=Available", "--timeout=60s"]));
    set_available(&cluster, 2);
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
}

#[test]
fn a_watch_shows_the_list_and_then_each_change() {
    let cluster = Cluster::start();
    let api: Api<Phone> = Api::all(cluster.client());
    let phone = |name: &str| Phone::new(name, PhoneSpec::default());
    cluster.runtime.block_on(api.create(&PostParams::default(), &phone("phone-1"))).unwrap();
    let mut watch = Watching::start(cluster.command(&["get", "phones", "-w", "--output-watch-events"]));
    assert!(watch.line().starts_with("EVENT      NAME "));
    assert!(watch.line().starts_with("ADDED      phone-1 "));
    cluster.runtime.block_on(api.create(&PostParams::default(), &phone("phone-2"))).unwrap();
    assert!(watch.line().starts_with("ADDED      phone-2 "));
    cluster.run("delete phone phone-1").ok();
    assert!(watch.line().starts_with("DELETED    phone-1 "));
}

#[test]
fn delete_waits_for_finalizers_and_says_which_hold_it() {
    let cluster = Cluster::start();
    let api: Api<Phone> = Api::all(cluster.client());
    let mut phone = Phone::new("held", PhoneSpec::default());
    phone.metadata.finalizers = Some(vec!["polyphony.dev/drain".to_owned()]);
    cluster.runtime.block_on(api.create(&PostParams::default(), &phone)).unwrap();
    let ran = cluster.run("delete phone held --timeout=300ms");
    assert_eq!(ran.stdout, "phone.polyphony.dev \"held\" deleted\n");
    assert!(ran.failed().contains("finalizers that hold it: [\"polyphony.dev/drain\"]"));
    let waiting = polyctl::start(&mut cluster.command(&["wait", "phone/held", "--for=delete", "--timeout=60s"]));
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.runtime.block_on(api.patch("held", &PatchParams::default(), &patch)).unwrap();
    let output = waiting.wait_with_output().unwrap();
    // It may have been gone before the wait looked, which is success without a word.
    assert!(output.status.success());
}
