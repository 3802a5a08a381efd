//! Phones: keeping segments away, draining, and what `top` shows of them.

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use polyphony_api::phone::PhoneSpec;
use polyphony_api::{Phone, SegmentPlacement};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::polyctl;

/// A phone with a status that an agent might have reported.
pub fn add_phone(cluster: &Cluster, name: &str, status: Value) {
    let api: Api<Phone> = Api::all(cluster.client());
    cluster.runtime.block_on(async {
        api.create(&PostParams::default(), &Phone::new(name, PhoneSpec::default())).await.unwrap();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.unwrap();
    });
}

fn placement(cluster: &Cluster, name: &str, phone: &str) -> Api<SegmentPlacement> {
    let api: Api<SegmentPlacement> = Api::default_namespaced(cluster.client());
    let object: SegmentPlacement = serde_json::from_value(json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "SegmentPlacement",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"deployment": "d", "model": "m", "manifestDigest": "d", "replica": 0, "planGeneration": 1, "stage": 0, "stages": 1,
            "phone": phone, "holds": {"embedding": true, "from": 0, "to": 4, "head": true, "summary": "all"}, "edges": [],
            "contextLength": 64, "maxSessions": 2, "activationType": "f16", "numericsClass": "cpu-int8/f16/kv-f16",
            "plannedBytes": 30 << 20, "predictedStepMicroseconds": 1}}))
    .unwrap();
    let status = json!({"status": {"phase": "Ready", "millisecondsPerLayer": "2.50", "sessions": 1}});
    cluster.runtime.block_on(async {
        api.create(&PostParams::default(), &object).await.unwrap();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    });
    api
}

#[test]
fn a_cordon_is_set_once_and_taken_back() {
    let cluster = Cluster::start();
    add_phone(&cluster, "phone-1", json!({}));
    let title = "phone.polyphony.dev/phone-1";
    assert_eq!(cluster.run("cordon phone-1 --dry-run=server").ok(), format!("{title} cordoned (server dry run)\n"));
    assert_eq!(cluster.run("cordon phone-1").ok(), format!("{title} cordoned\n"));
    assert_eq!(cluster.run("cordon phone/phone-1").ok(), format!("{title} already cordoned\n"));
    assert_eq!(cluster.run("get phone phone-1 -o jsonpath={.spec.unschedulable}").ok(), "true");
    assert!(cluster.run("get phones -o wide").ok().contains("CORDONED"));
    assert_eq!(cluster.run("cordon phone-1 phone/phone-1").ok(), format!("{title} already cordoned\n"));
    assert!(cluster.run("get phone phone-1 -o yaml --show-managed-fields").ok().contains("manager: polyctl-cordon\n"));
    assert_eq!(cluster.run("uncordon phone-1").ok(), format!("{title} uncordoned\n"));
    assert_eq!(cluster.run("uncordon phone-1").ok(), format!("{title} already uncordoned\n"));
    for (line, expected) in [
        ("cordon", "error: no phone was named: polyctl cordon PHONE, or -l SELECTOR\n"),
        ("cordon none", "Error from server (NotFound): phones.polyphony.dev \"none\" not found\n"),
        ("cordon infer/x", "error: cordon is for phones, and \"infer\" is another kind\n"),
        ("drain -l room=lab", "error: no phones matched the selector\n"),
    ] {
        assert_eq!(cluster.run(line).failed(), expected, "{line}");
    }
}

#[test]
fn a_drain_waits_until_the_phone_holds_nothing_and_says_what_hinders() {
    let cluster = Cluster::start();
    add_phone(&cluster, "phone-1", json!({}));
    let api = placement(&cluster, "d-0-g1-0", "phone-1");
    cluster
        .run_with(
            "apply -f -",
            "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: d}\nspec: {model: m}\n",
        )
        .ok();
    let condition = json!({"type": "Degraded", "status": "True", "reason": "Memory", "message": "no other plan",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let deployments: Api<polyphony_api::InferenceDeployment> = Api::default_namespaced(cluster.client());
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    cluster.runtime.block_on(deployments.patch_status("d", &PatchParams::default(), &patch)).unwrap();

    let dry = cluster.run("drain phone-1 --dry-run=client").ok();
    assert_eq!(
        dry,
        "phone.polyphony.dev/phone-1 cordoned (dry run)\nevicting segmentplacement default/d-0-g1-0 (dry run)\nphone.polyphony.dev/phone-1 drained (dry run)\n"
    );
    let vain = cluster.run("drain phone-1 --timeout=300ms");
    assert_eq!(vain.stdout, "phone.polyphony.dev/phone-1 cordoned\nevicting segmentplacement default/d-0-g1-0\n");
    let error = vain.failed();
    for part in [
        "waiting for inferencedeployment default/d: no other plan\n",
        "error: unable to drain phone \"phone-1\"",
        "it still holds default/d-0-g1-0",
        "`polyctl uncordon phone-1`",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(cluster.run("get phone phone-1 -o jsonpath={.spec.drain}{.spec.unschedulable}").ok(), "truetrue");

    assert!(cluster.run("get phone phone-1 -o yaml --show-managed-fields").ok().contains("manager: polyctl-drain\n"));
    assert!(cluster.run("describe phone phone-1").ok().contains("\nDrain:              true\n"));
    let told = cluster.run("describe segmentplacement d-0-g1-0").ok();
    for line in ["Stage:              0 (of 1)", "Planned Memory:     30.0 MiB"] {
        assert!(told.contains(&format!("\n{line}\n")), "{line}: {told}");
    }

    // What the controller does: the placement goes.
    let draining = polyctl::start(&mut cluster.command(&["drain", "phone-1", "--timeout=60s"]));
    cluster.runtime.block_on(api.delete("d-0-g1-0", &Default::default())).unwrap();
    let output = draining.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("phone.polyphony.dev/phone-1 already cordoned\n"), "{text}");
    assert!(text.ends_with("phone.polyphony.dev/phone-1 drained\n"), "{text}");
    cluster.run("uncordon phone-1").ok();
    assert_eq!(cluster.run("get phone phone-1 -o jsonpath={.spec.drain}{.spec.unschedulable}").ok(), "falsefalse");
}

#[test]
fn top_shows_what_phones_hold_and_deployments_do() {
    let cluster = Cluster::start();
    assert_eq!(cluster.run("top phones").ok(), "No resources found\n");
    add_phone(&cluster, "phone-1", json!({"allocatable": {"memory": "120Mi"}, "temperatureCelsius": 36.6}));
    placement(&cluster, "d-0-g1-0", "phone-1");
    assert_eq!(
        cluster.run("top phones").ok(),
        "NAME      SEGMENTS   RESERVED        MEMORY(%)   MS/LAYER   SESSIONS   TEMP   BATTERY\n\
         phone-1   1          30Mi of 120Mi   25%         2.50       1          37°C   -\n"
    );
    cluster
        .run_with(
            "apply -f -",
            "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: d}\nspec: {model: m}\n",
        )
        .ok();
    let table = cluster.run("top deployment d --once").ok();
    assert!(
        table.starts_with("NAME   READY   TOKENS/S   PREDICTED   PHONES   SESSIONS   GENERATION\nd      0/1"),
        "{table}"
    );
    assert!(cluster.run("top deployments -A --no-headers").ok().starts_with("default   d "));
    let error = cluster.run("top phone none").failed();
    assert_eq!(error, "Error from server (NotFound): phones.polyphony.dev \"none\" not found\n");
}
