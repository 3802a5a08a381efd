//! A phone goes on with one backend when the other computes wrongly, and says so.

use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, tiny_model};

const SOON: Duration = Duration::from_secs(90);

fn is_faulty(phone: &Value) -> bool {
    let conditions = phone["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "BackendFaulty" && condition["status"] == "True")
}

/// The backend that serves, once it does.
fn serving(shelf: &Shelf) -> Option<String> {
    let placements = shelf.list("segmentplacements").ok()?;
    let ready = placements.iter().find(|one| one["status"]["phase"] == "Ready")?;
    Some(ready["spec"]["numericsClass"].as_str()?.split('-').next()?.to_owned())
}

#[tokio::test]
async fn a_phone_whose_backend_goes_wrong_goes_on_with_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    let file = wrong.display().to_string();
    let shelf = Shelf::planned("auto", 1, "160Mi").unwrap().with_environment(&[("POLYPHONY_SABOTAGE_FILE", &file)]);
    shelf.start().unwrap();
    let backends = shelf.get("phone/phone-1").unwrap()["status"]["backends"].as_array().cloned().unwrap();
    if !backends.iter().any(|backend| backend["name"] == "vulkan") {
        return polyphony_skip::skipped("no Vulkan device is here");
    }
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 1, "f16", 256));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let phone = shelf.get("phone/phone-1").unwrap();
    let all_verified = |phone: &Value| {
        phone["status"]["backends"].as_array().is_some_and(|all| all.iter().all(|one| one["verified"] == true))
    };
    assert!(all_verified(&phone) && !is_faulty(&phone), "{phone}");
    let well = shelf.polyctl(&["doctor"]).unwrap().ok().unwrap().stdout;
    assert!(well.contains("known") && well.contains("nothing is wrong"), "{well}");

    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body =
        json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "return_token_ids": true});
    let (status, before) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{before}");
    let first = serving(&shelf).unwrap();
    std::fs::write(&wrong, format!("{first} flip")).unwrap();
    // Whoever is asked nothing computes nothing, and nobody looks.
    let deadline = tokio::time::Instant::now() + SOON;
    while !is_faulty(&shelf.get("phone/phone-1").unwrap()) {
        assert!(tokio::time::Instant::now() < deadline, "it is not found out");
        let _ = gateway.post("/v1/completions", &body).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let second =
        wait_until("the other backend to serve", SOON, || Ok(serving(&shelf).filter(|now| *now != first))).unwrap();
    let (status, after) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{after}");
    assert_eq!(after["choices"][0]["token_ids"], before["choices"][0]["token_ids"], "from {first} to {second}");

    let phone = shelf.get("phone/phone-1").unwrap();
    for backend in phone["status"]["backends"].as_array().unwrap() {
        let is_wrong = backend["name"] == *first || backend["name"] == "mixed";
        assert_eq!(backend["verified"] == false, is_wrong, "{backend}");
        assert_eq!(
            backend["fault"].as_str().is_some_and(|why| why.contains("computes wrongly")),
            is_wrong,
            "{backend}"
        );
    }
    assert_eq!(phone["status"]["failures"], Value::Null, "the phone has not failed");
    let ill = shelf.polyctl(&["doctor", "phone-1"]).unwrap();
    assert!(ill.stdout.contains("WRONG") && ill.stdout.contains("BackendFaulty (SetAside)"), "{}", ill.stdout);
    assert!(ill.ok().is_err(), "a shelf that is not well is a failure");
    let story = shelf.polyctl(&["describe", "phone", "phone-1"]).unwrap().ok().unwrap().stdout;
    assert!(
        story.contains("BackendFaulty") && story.contains("is set aside until the agent is started anew"),
        "{story}"
    );
}

/// Two phones whose GPUs read prompts and whose processors decode; the second turn of a talk begins where the first has decoded.
#[tokio::test]
async fn prompts_are_read_on_gpus_where_a_deployment_asks_for_it() {
    let shelf = Shelf::planned("auto", 2, "160Mi").unwrap();
    shelf.start().unwrap();
    let backends = shelf.get("phone/phone-1").unwrap()["status"]["backends"].as_array().cloned().unwrap();
    if !backends.iter().any(|backend| backend["name"] == "vulkan") {
        return polyphony_skip::skipped("no Vulkan device is here");
    }
    let wish = "    prefill: Gpu\n";
    // In f32, where the two differ by so little that the likeliest token is the same.
    let of_both = [("talk", wish), ("plain", "")].map(|(name, wish)| deployment(name, "tiny", 2, "f32", 256) + wish);
    shelf.apply(&format!("{}---\n{}", tiny_model(), of_both.join("---\n"))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    shelf.wait_available("plain").unwrap();
    let story = shelf.polyctl(&["describe", "inferencedeployment", "talk"]).unwrap().ok().unwrap().stdout;
    assert!(story.contains("mixed-f32-") && story.contains("later tokens may be others"), "{story}");

    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut prompt: Vec<u64> = (0..70).map(|at| at * 7 % 250 + 3).collect();
    for turn in 0..2 {
        let mut answers = Vec::new();
        for model in ["talk", "plain"] {
            let body = json!({
                "model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, "return_token_ids": true,
                "ignore_eos": true,
            });
            let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
            assert_eq!(status, 200, "{answer}");
            answers.push(answer["choices"][0]["token_ids"].as_array().cloned().unwrap());
        }
        assert!(answers[0].len() == 12 && answers[0] == answers[1], "turn {turn}: {answers:?}");
        prompt.extend(answers[0].iter().map(|token| token.as_u64().unwrap()));
        prompt.extend((0..20).map(|at| at * 11 % 250 + 3));
    }
}
