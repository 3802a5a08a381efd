//! A ring over network namespaces answers as one over processes does.

use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use polyphony_farm::NamespaceFarm;
use serde_json::{Value, json};

use crate::manifests::{deployment, tiny_model};

async fn ask(shelf: &Shelf) -> Value {
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 3, "f16", 128));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body =
        json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "return_token_ids": true});
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["token_ids"].clone()
}

#[tokio::test]
async fn a_ring_over_namespaces_says_what_one_over_processes_says() {
    if let Some(why) = NamespaceFarm::obstacle() {
        polyphony_skip::skipped(why);
        return;
    }
    let farm = |folder| NamespaceFarm::new(folder).map(|farm| Box::new(farm) as _).unwrap();
    let apart = Shelf::up_from("cpu", 3, "64Mi", farm).unwrap();
    let over_namespaces = ask(&apart).await;
    assert_eq!(over_namespaces.as_array().map(Vec::len), Some(8));
    let metrics = apart.metrics("phone-2").unwrap();
    assert!(metrics.contains("# HELP polyphony_"), "{metrics}");
    let together = Shelf::up(3, "64Mi").unwrap();
    assert_eq!(ask(&together).await, over_namespaces);
}

/// How exact a lab of a test is: not at all, since other tests take the processors meanwhile.
const ANY: &str = "--tolerance=100000";

#[tokio::test]
async fn a_lab_from_a_file_answers_while_it_changes_and_after_a_phone_was_lost() {
    if let Some(why) = NamespaceFarm::obstacle() {
        polyphony_skip::skipped(why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.yaml");
    let phones = "phones:\n- {name: old-phone, profile: old, link: hotspot}\n- {name: b, profile: low-end, link: good-wifi}\n- \
                  {name: c, profile: low-end}\nlinks:\n- {between: [b, c], delayMilliseconds: 3}\n";
    std::fs::write(&file, phones.replace("hotspot", "string")).unwrap();
    let wrong = Shelf::lab(&file, &[ANY]).err().unwrap().to_string();
    assert!(wrong.contains("line 2: phones[0].link: no link profile string"), "{wrong}");

    std::fs::write(&file, phones).unwrap();
    let shelf = Shelf::lab(&file, &[ANY]).unwrap();
    let before = ask(&shelf).await;
    shelf.set("old-phone", &["--cpu", "0.2", "--link", "good-wifi", "--loss", "0"]).unwrap();
    let status = shelf.polyctl(&["lab", "status"]).unwrap().ok().unwrap().stdout;
    for words in ["old-phone   running   10.77.0.2   0.2", "200 Mbit/s, 1 ± 0.2 ms", "b - c: 3 ms"] {
        assert!(status.contains(words), "{words} is not in\n{status}");
    }
    assert_eq!(ask(&shelf).await, before);
    let stranger = shelf.set("d", &["--cut"]).unwrap_err().to_string();
    assert!(stranger.contains("no phone d: it has b, c, old-phone"), "{stranger}");
    assert!(shelf.metrics("b").unwrap().contains("# HELP polyphony_"));

    shelf.polyctl(&["lab", "kill", "b"]).unwrap().ok().unwrap();
    let twice = shelf.polyctl(&["lab", "kill", "b"]).unwrap();
    assert!(twice.code != 0 && twice.stderr.contains("does not run on b any more"), "{}", twice.stderr);
    shelf.polyctl(&["lab", "start", "b"]).unwrap().ok().unwrap();
    assert_eq!(ask(&shelf).await, before);
    let down = shelf.polyctl(&["lab", "down"]).unwrap().ok().unwrap().stdout;
    assert!(down.contains("lab          stopped"), "{down}");
}
