//! Model files: imported, listed, planned with and removed.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::cluster::Cluster;
use crate::model_file;
use crate::phones::add_phone;
use crate::polyctl::{self, Ran};

fn with_cache(cluster: &Cluster, line: &str) -> Ran {
    let mut command: Command = cluster.command(&line.split_whitespace().collect::<Vec<_>>());
    polyctl::run(command.env("POLYPHONY_CACHE", cluster.path("cache")))
}

#[test]
fn texts_are_shown_as_tokens_of_a_file_or_of_a_model() {
    let cluster = Cluster::start();
    let golden = |file: &str| format!("{}/../../e2e/golden/tokenizers/{file}", env!("CARGO_MANIFEST_DIR"));
    let texts = "\"hello  world\"\n\n{\"text\": \"<s>1\", \"ids\": []}\n";
    let plain = cluster.run_with(&format!("model tokenize {}", golden("spm_llama.gguf")), texts).ok();
    assert!(plain.starts_with("308 311 444 438 273 268 448 453\t\" hello  world\"\n"), "{plain}");
    let line = format!("model tokenize {} --special --add-special -o json", golden("spm_llama.gguf"));
    let json = cluster.run_with(&line, texts).ok();
    let last = json.lines().last().unwrap();
    assert_eq!(last, r#"{"text":"<s>1","ids":[1,438,452],"decoded":"<s> 1"}"#);

    let model = format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: t5}}\nspec: {{source: \"file://{}\"}}\n",
        golden("ugm_t5.gguf")
    );
    cluster.run_with("apply -f -", &model).ok();
    assert_eq!(
        cluster.run_with("model tokenize t5", "\"Hello world\"").ok(),
        "214 228 282 247 72 20 9\t\" Hello world\"\n"
    );
    let folder = format!("{}/../../e2e/golden/tiny/llama_hf", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(cluster.run_with(&format!("model tokenize {folder}"), "\"!\"").ok(), "33\t\"!\"\n");

    let wrong = cluster.run_with("model tokenize t5", "hello").failed();
    assert!(wrong.contains("line 1 of standard input") && wrong.contains("one a line"), "{wrong}");
    assert!(cluster.run_with("model tokenize none.gguf", "").failed().contains("none.gguf"));
}

#[test]
fn a_model_file_is_imported_listed_and_removed() {
    let cluster = Cluster::start();
    std::fs::write(cluster.path("Tiny_1.gguf"), model_file::tiny()).unwrap();
    let imported = with_cache(&cluster, "model import Tiny_1.gguf");
    assert!(
        imported.stderr.contains("llama with 4 layers") && imported.stderr.contains("cache/models/Tiny_1.gguf"),
        "{imported:?}"
    );
    assert_eq!(imported.ok(), "model.polyphony.dev/tiny-1 created\n");
    // It is as if `apply` had made it: one manager, who goes on where the other left off.
    let owned = with_cache(&cluster, "get model tiny-1 -o yaml --show-managed-fields").ok();
    assert!(owned.contains("manager: polyctl\n") && owned.contains("operation: Apply\n"), "{owned}");
    let sha256 = cluster.run("get model tiny-1 -o jsonpath={.spec.sha256}").ok();
    let same = format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: tiny-1}}\nspec: {{source: \"cache://Tiny_1.gguf\", sha256: {sha256}}}\n"
    );
    assert_eq!(cluster.run_with("apply -f -", &same).ok(), "model.polyphony.dev/tiny-1 unchanged\n");
    let owned = with_cache(&cluster, "get model tiny-1 -o yaml --show-managed-fields").ok();
    assert_eq!(owned.matches("manager: polyctl\n").count(), 1, "{owned}");
    assert_eq!(with_cache(&cluster, "model import Tiny_1.gguf").ok(), "model.polyphony.dev/tiny-1 unchanged\n");
    assert_eq!(
        with_cache(&cluster, "model import Tiny_1.gguf --name other").ok(),
        "model.polyphony.dev/other created\n"
    );
    let spec = cluster.run("get model tiny-1 -o jsonpath={.spec.source}:{.spec.sha256}").ok();
    assert!(spec.starts_with("cache://Tiny_1.gguf:") && spec.len() == "cache://Tiny_1.gguf:".len() + 64, "{spec}");

    std::fs::write(cluster.path("cache/models/alone.gguf"), "x").unwrap();
    let list = with_cache(&cluster, "model list").ok();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("NAME     RESOLVED") && lines.len() == 4, "{list}");
    assert!(lines[3].starts_with("<none>") && lines[3].ends_with("cache://alone.gguf"), "{list}");

    cluster.run_with("apply -f -", "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: d}\nspec: {model: tiny-1}\n").ok();
    let used = with_cache(&cluster, "model rm tiny-1").failed();
    assert_eq!(used, "error: model \"tiny-1\" is run by inferencedeployment d: delete that first, or use --force\n");
    let removed = with_cache(&cluster, "model rm tiny-1 --file --force").ok();
    assert_eq!(
        removed,
        "model.polyphony.dev \"tiny-1\" deleted from default namespace\nfile Tiny_1.gguf stays: model \"other\" names it too\n"
    );
    with_cache(&cluster, "model rm other --file").ok();
    assert!(!cluster.path("cache/models/Tiny_1.gguf").exists() && cluster.path("Tiny_1.gguf").exists());
}

#[test]
fn a_model_of_several_files_is_a_folder_of_the_cache() {
    let cluster = Cluster::start();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/golden/tiny");
    for name in ["split2-00001-of-00002.gguf", "split2-00002-of-00002.gguf"] {
        std::fs::copy(golden.join(name), cluster.path(name)).unwrap();
    }
    let error = with_cache(&cluster, "model import split3-00001-of-00003.gguf").failed();
    assert!(error.contains("split3-00001-of-00003.gguf: part 1 of 3 is missing"), "{error}");
    assert_eq!(
        with_cache(&cluster, "model import split2-00002-of-00002.gguf").ok(),
        "model.polyphony.dev/split2 created\n"
    );
    assert_eq!(with_cache(&cluster, "model import split2-*-of-*.gguf").ok(), "model.polyphony.dev/split2 unchanged\n");
    let parts = "model import split2-00001-of-00002.gguf split2-00002-of-00002.gguf";
    assert_eq!(with_cache(&cluster, parts).ok(), "model.polyphony.dev/split2 unchanged\n");
    std::fs::write(cluster.path("tiny.gguf"), model_file::tiny()).unwrap();
    let error = with_cache(&cluster, &format!("{parts} tiny.gguf")).failed();
    assert!(error.contains("tiny.gguf are not of one model"), "{error}");
    assert!(cluster.path("cache/models/split2/split2-00001-of-00002.gguf").exists());
    assert_eq!(cluster.run("get model split2 -o jsonpath={.spec.source}").ok(), "cache://split2");
    let list = with_cache(&cluster, "model list").ok();
    assert!(list.lines().count() == 2 && list.contains("cache://split2"), "{list}");
    with_cache(&cluster, "model rm split2 --file").ok();
    assert!(!cluster.path("cache/models/split2").exists() && cluster.path("split2-00001-of-00002.gguf").exists());
}

#[test]
fn what_is_no_model_is_refused_before_anything_is_made() {
    let cluster = Cluster::start();
    std::fs::write(cluster.path("bad.gguf"), "no model").unwrap();
    let error = with_cache(&cluster, "model import bad.gguf").failed();
    assert!(error.starts_with("error: bad.gguf: "), "{error}");
    assert!(!cluster.path("cache/models/bad.gguf").exists());
    assert!(with_cache(&cluster, "model import none.gguf").failed().contains("cannot read none.gguf"));
    assert_eq!(cluster.run("get models").stderr, "No resources found in default namespace.\n");
    // Another file of that name is in the cache.
    std::fs::create_dir_all(cluster.path("cache/models")).unwrap();
    let mut other = model_file::tiny();
    *other.last_mut().unwrap() = 1;
    std::fs::write(cluster.path("cache/models/tiny.gguf"), other).unwrap();
    std::fs::write(cluster.path("tiny.gguf"), model_file::tiny()).unwrap();
    let error = with_cache(&cluster, "model import tiny.gguf").failed();
    assert!(error.contains("is there already with other contents: rename tiny.gguf"), "{error}");
}

const DEPLOYMENT: &str = "apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata:\n  name: d\nspec:\n  model: tiny\n  contextLength: 64\n  maxSessions: 1\n";

#[test]
fn a_plan_is_shown_and_nothing_is_changed() {
    let cluster = Cluster::start();
    std::fs::write(cluster.path("d.yaml"), DEPLOYMENT).unwrap();
    let error = with_cache(&cluster, "plan -f d.yaml").failed();
    assert_eq!(error, "Error from server (NotFound): models.polyphony.dev \"tiny\" not found\n");
    std::fs::write(cluster.path("tiny.gguf"), model_file::tiny()).unwrap();
    with_cache(&cluster, "model import tiny.gguf").ok();
    let short = with_cache(&cluster, "plan -f d.yaml");
    assert!(short.stdout.contains("Plan:  none: no phone is available"), "{short:?}");
    assert!(short.failed().starts_with("error: d, replica 0: no plan: no phone is available"));

    let phone = |memory: &str, ready: &str| {
        json!({"backend": "cpu", "numerics": "cpu-int8", "kvCaches": ["F16"], "allocatable": {"memory": memory}, "capacity": {"memory": memory},
            "backends": [{"name": "cpu", "device": "test", "gflops": 10.0, "gigabytesPerSecond": 5.0}],
            "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    };
    add_phone(&cluster, "a", phone("64Mi", "True"));
    add_phone(&cluster, "b", phone("64Mi", "True"));
    add_phone(&cluster, "gone", phone("64Mi", "False"));
    cluster.run("cordon b").ok();
    let plan = with_cache(&cluster, "plan -f d.yaml").ok();
    for part in [
        "Name:       d\n",
        "Objective:  Latency\n",
        "tokens/s of one session\n",
        "Class:        cpu-int8/f16/kv-f16\n",
        "    1 of 1  a      embedding+layers 0-3+head  ",
        "    b      it is cordoned\n",
        "    gone   it is not Ready\n",
        "First Token:",
        "Nothing was changed.\n",
    ] {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
    assert_eq!(cluster.run("get infer,seg").stderr, "No resources found in default namespace.\n");
    std::fs::write(cluster.path("d.yaml"), DEPLOYMENT.replace("maxSessions", "maxSesions")).unwrap();
    let error = with_cache(&cluster, "plan -f d.yaml").failed();
    assert!(
        error.contains("d.yaml:8, document 1: spec.maxSesions") && error.contains("Did you mean \"maxSessions\"?"),
        "{error}"
    );
}

#[test]
fn a_source_that_is_none_is_refused_at_the_door() {
    let cluster = Cluster::start();
    let apply = |spec: &str| {
        let model = format!("apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: m}}\nspec: {spec}\n");
        cluster.run_with("apply --dry-run=server -f -", &model)
    };
    for (source, words) in [
        ("ftp://h/m.gguf", "no scheme that is known"),
        ("http://h/m.gguf", "no scheme that is known"),
        ("file://m.gguf", "names no absolute path"),
        ("cache://../m.gguf", "names nothing within the cache"),
        ("cache:///m.gguf", "names nothing within the cache"),
        ("https://h", "names no file of a host"),
        ("https://user@h/m.gguf", "names no file of a host"),
        ("https://h/folder/", "names no file of a host"),
        ("hf://name", "names no repository"),
        ("hf://a/b/c", "names no repository"),
        ("hf://a/b:/m.gguf", "names no repository"),
    ] {
        let refused = apply(&format!("{{source: \"{source}\"}}")).failed();
        assert!(refused.contains(words), "{source}: {refused}");
        let refused = with_cache(&cluster, &format!("model import {source}")).failed();
        assert!(refused.contains(source), "{source}: {refused}");
    }
    let refused = apply("{source: \"file:///m.gguf\", tokenSecretRef: {name: s}}").failed();
    assert!(refused.contains("tokenSecretRef is for sources that are fetched"), "{refused}");
    for source in [
        "file:///m.gguf",
        "cache://m",
        "cache://o--n@0123456789ab/m.gguf",
        "https://h:1/a/m.gguf?x=1",
        "hf://a/b",
        "hf://a/b@refs/pr/1:Q4_K_M",
        "hf://a/b:c/m.gguf",
    ] {
        apply(&format!("{{source: \"{source}\"}}")).ok();
    }
}

#[test]
fn a_source_that_is_elsewhere_becomes_a_model_which_the_controller_fetches() {
    let cluster = Cluster::start();
    let import = "model import hf://o/Tiny-GGUF:Q4_0 --token-secret hub --no-wait";
    assert_eq!(with_cache(&cluster, import).ok(), "model.polyphony.dev/tiny.q4-0 created\n");
    assert_eq!(with_cache(&cluster, import).ok(), "model.polyphony.dev/tiny.q4-0 unchanged\n");
    let token =
        cluster.run("get model tiny.q4-0 -o jsonpath={.spec.tokenSecretRef.name}/{.spec.tokenSecretRef.key}").ok();
    assert_eq!(token, "hub/token");
    let refused = with_cache(&cluster, "model import hf://o/Other:Q4_0 --name tiny.q4-0 --no-wait").failed();
    assert!(refused.contains("exists and is of hf://o/Tiny-GGUF:Q4_0"), "{refused}");
    let refused = with_cache(&cluster, "model import cache://m").failed();
    assert!(refused.contains("is on the host already"), "{refused}");
    let refused = with_cache(&cluster, "model show tiny.q4-0").failed();
    assert!(refused.contains("has to be fetched first"), "{refused}");
}

#[test]
fn a_model_is_shown_from_the_headers_of_its_files() {
    let cluster = Cluster::start();
    let golden = |file: &str| format!("{}/../../e2e/golden/tiny/{file}", env!("CARGO_MANIFEST_DIR"));
    let shown = cluster.run(&format!("model show {}", golden("llama_q4_1.gguf"))).ok();
    for part in [
        "Architecture:",
        "llama\n",
        "Layers:",
        "4\n",
        "Context Length:",
        "Tokens:",
        "Ends An Answer:",
        "Chat Template:",
        "embedding",
        "attention",
        "feed-forward",
        "norms",
        "Q4_1",
        "F32",
        "layers 0-3",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    // In the order of a pass through the model.
    assert!(shown.find("embedding") < shown.find("attention") && shown.find("attention") < shown.find("feed-forward"));
    let json = cluster.run(&format!("model show {} -o json", golden("qwen2_hf"))).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["hyperparameters"]["architecture"], "qwen2");
    assert_eq!(
        json["layerBytes"].as_array().unwrap().len(),
        json["hyperparameters"]["nLayers"].as_u64().unwrap() as usize
    );
    assert!(cluster.run("model show none.gguf").failed().contains("none.gguf"));
}
