//! What fails on some phones is gone around, and not returned to.

use std::time::{Duration, Instant};

use polyphony_e2e::shelf::{Shelf, wait_until};
use polyphony_e2e::stream::Gateway;
use polyphony_farm::NamespaceFarm;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::manifests::{deployment, tiny_model};
use crate::moves::metric;

fn body() -> Value {
    json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "return_token_ids": true})
}

/// Well beyond the first pause for which a phone that failed is left alone: whoever would go back to it then has done so.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

#[tokio::test]
async fn two_phones_that_cannot_load_do_not_keep_two_that_can_from_answering() {
    let shelf = Shelf::planned("cpu", 4, "64Mi").unwrap();
    shelf.start().unwrap();
    for phone in ["phone-1", "phone-2"] {
        // A file where the folder of weights should be: nothing can be kept there, whoever runs the agent.
        let weights = shelf.data_dir().join("phones").join(phone).join("weights");
        assert!(weights.is_dir(), "{} is where {phone} keeps its weights", weights.display());
        std::fs::remove_dir_all(&weights).unwrap();
        std::fs::write(&weights, "").unwrap();
    }
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 128));
    // Those that cannot are asked first, however fast the others were measured.
    shelf.polyctl(&["cordon", "phone-3", "phone-4"]).unwrap().ok().unwrap();
    shelf.apply(&manifest).unwrap().ok().unwrap();
    let failures = |phone: &str| shelf.get(&format!("phone/{phone}")).unwrap()["status"]["failures"].clone();
    wait_until("a load that fails", Duration::from_secs(20), || {
        Ok(["phone-1", "phone-2"].into_iter().any(|phone| !failures(phone).is_null()).then_some(()))
    })
    .unwrap();
    shelf.polyctl(&["uncordon", "phone-3", "phone-4"]).unwrap().ok().unwrap();
    let target = "inferencedeployment/talk";
    shelf.polyctl(&["wait", "--for=condition=Available", target, "--timeout=20s"]).unwrap().ok().unwrap();
    // Which of the two comes first is up to their measured times.
    let serving = || {
        let mut phones = shelf.phones_of("talk").unwrap();
        phones.sort_unstable();
        phones
    };
    assert_eq!(serving(), ["phone-3", "phone-4"]);
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let (status, answer) = gateway.post("/v1/completions", &body()).await.unwrap();
    assert_eq!(status, 200, "{answer}");

    let failed: Vec<Value> = ["phone-1", "phone-2"].into_iter().map(failures).filter(|one| !one.is_null()).collect();
    assert!(!failed.is_empty() && failed.iter().all(|one| one[0]["reason"] == "LoadFailed"), "{failed:?}");
    let began = Instant::now();
    while began.elapsed() < LONG_ENOUGH {
        let (status, later) = gateway.post("/v1/completions", &body()).await.unwrap();
        assert_eq!(status, 200, "{later}");
        assert_eq!(later["choices"][0]["token_ids"], answer["choices"][0]["token_ids"]);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let story = shelf.polyctl(&["describe", "inferencedeployment", "talk"]).unwrap().ok().unwrap().stdout;
    assert!(!story.contains("Unavailable"), "it never flips:\n{story}");
    // A person may know better.
    let forgiven = shelf.polyctl(&["phone", "forgive", "phone-1", "phone-2"]).unwrap().ok().unwrap().stdout;
    assert!(forgiven.contains("forgiven"), "{forgiven}");
    wait_until("nothing to be remembered", Duration::from_secs(20), || {
        Ok(["phone-1", "phone-2"].into_iter().all(|phone| failures(phone).is_null()).then_some(()))
    })
    .unwrap();
    assert_eq!(serving(), ["phone-3", "phone-4"], "what serves is left alone");
}

#[tokio::test]
async fn a_cut_between_two_phones_of_a_ring_is_gone_around_over_the_third() {
    if let Some(why) = NamespaceFarm::obstacle() {
        polyphony_skip::skipped(why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.yaml");
    std::fs::write(&file, "phones:\n- {name: a, profile: low-end, link: good-wifi}\n- {name: b, profile: low-end, link: good-wifi}\n- {name: c, profile: low-end, link: good-wifi}\n").unwrap();
    let shelf = Shelf::lab(&file, &["--tolerance=100000"]).unwrap();
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 256));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut question = json!({
        "model": "talk", "prompt": [5, 6, 7], "max_tokens": 240, "temperature": 0, "ignore_eos": true, "return_token_ids": true,
    });
    let (status, before) = gateway.post("/v1/completions", &question).await.unwrap();
    assert_eq!(status, 200, "{before}");

    let ring = shelf.phones_of("talk").unwrap();
    question["stream"] = json!(true);
    let mut pieces = gateway.stream("/v1/completions", &question).await.unwrap();
    let (mut tokens, mut is_cut): (Vec<Value>, bool) = (Vec::new(), false);
    // It begins on the ring that is cut, and goes on over the third phone.
    while let Some(piece) =
        timeout(Duration::from_secs(15), pieces.next()).await.expect("the next token within 15 s of the cut").unwrap()
    {
        assert!(piece.get("error").is_none(), "{piece}");
        tokens.extend(piece["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default());
        if tokens.len() >= 5 && !is_cut {
            shelf.set(&ring[0], &["--to", &ring[1], "--cut"]).unwrap();
            is_cut = true;
        }
    }
    assert_eq!(json!(tokens), before["choices"][0]["token_ids"]);
    assert!(metric(&gateway, "polyphony_replays_total").await >= 1.0, "it was cut while it was answered");
    let now = shelf.phones_of("talk").unwrap();
    assert!(now.len() == 2 && now.iter().any(|phone| !ring.contains(phone)), "{ring:?}, then {now:?}");
    let is_remembered = ring.iter().any(|phone| {
        let failures = shelf.get(&format!("phone/{phone}")).unwrap()["status"]["failures"].clone();
        failures.as_array().is_some_and(|all| all.iter().any(|one| one["reason"] == "LinkDown"))
    });
    assert!(is_remembered);

    // A probe gets through again, and the link is no longer held against the two.
    shelf.set(&ring[0], &["--to", &ring[1], "--heal"]).unwrap();
    wait_until("the link to be forgiven", Duration::from_secs(60), || {
        let mut failures =
            ring.iter().map(|phone| Ok(shelf.get(&format!("phone/{phone}"))?["status"]["failures"].clone()));
        let all = failures.try_fold(true, |all, one: anyhow::Result<Value>| one.map(|one| all && one.is_null()))?;
        Ok(all.then_some(()))
    })
    .unwrap();
}
