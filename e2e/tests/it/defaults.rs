//! What a manifest that leaves its numerics out computes in, and what the demo says.

use std::path::Path;

use polyphony_e2e::golden::{Case, Golden};
use polyphony_e2e::shelf::{Shelf, real_gemma, real_model};
use polyphony_e2e::stream::Gateway;
use serde_json::json;

use crate::answers::complete;
use crate::manifests::{deployment_in_defaults, model};

/// A logit by which the reference's token has to be ahead for 8 bits to choose it as well: the distance that docs/numerics.md tells.
const SURE: f32 = 1.0;

/// Asks for the greedy answer; where it leaves the reference's, which it may where that is not sure, it is asked again from there.
async fn compare_where_sure(gateway: &Gateway, deployment: &str, case: &Case) {
    let reference: Vec<u32> = case.steps.iter().map(|step| step.token).collect();
    let mut done = 0;
    while done < reference.len() {
        let prompt: Vec<u32> = case.prompt_ids.iter().chain(&reference[..done]).copied().collect();
        let answer = complete(gateway, deployment, &prompt, reference.len() - done, json!({})).await;
        for token in answer.tokens {
            let step = &case.steps[done];
            done += 1;
            if token != step.token {
                assert!(step.margin <= SURE, "{deployment}, step {}: {token} instead of {}", done - 1, step.token);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_manifest_without_numerics_computes_in_8_bits_and_says_the_same_on_one_phone_and_on_three() {
    let (Some(smollm2), Some(gemma)) = (real_model(), real_gemma()) else { return };
    let models =
        [("smollm2", smollm2, "smollm2-135m-instruct-q4_1.json"), ("gemma3", gemma, "gemma3-270m-q4_k_m.json")];
    let shelf = Shelf::up(3, "2Gi").unwrap();
    let mut manifests = Vec::new();
    for (name, path, _) in &models {
        manifests.push(model(name, path));
        manifests.push(deployment_in_defaults(&format!("{name}-1"), name, 1, 256));
        manifests.push(deployment_in_defaults(&format!("{name}-3"), name, 3, 256));
    }
    shelf.apply(&manifests.join("---\n")).unwrap().ok().unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    for (name, _, golden) in &models {
        for phones in [1, 3] {
            shelf.wait_available(&format!("{name}-{phones}")).unwrap();
            assert_eq!(shelf.phones_of(&format!("{name}-{phones}")).unwrap().len(), phones);
        }
        let cases = Golden::read(golden).unwrap().cases;
        for case in &cases {
            compare_where_sure(&gateway, &format!("{name}-3"), case).await;
        }
        let whole = complete(&gateway, &format!("{name}-1"), &cases[0].prompt_ids, 32, json!({})).await;
        let split = complete(&gateway, &format!("{name}-3"), &cases[0].prompt_ids, 32, json!({})).await;
        assert_eq!(whole.tokens, split.tokens, "{name}");
        assert_eq!(whole.top, split.top, "{name}: log-probabilities differ in some bit");
    }
    for placement in shelf.list("segmentplacements").unwrap() {
        let class = placement["spec"]["numericsClass"].as_str().unwrap_or_default();
        assert!(class.starts_with("cpu-int8-") && class.ends_with("/f16/kv-f16"), "{placement}");
    }
}

/// Its embedding is most of it, and both ends of a ring need that.
#[tokio::test]
async fn gemma_goes_on_with_a_text_over_three_phones_none_of_which_could_hold_it() {
    let Some(path) = real_gemma() else { return };
    let shelf = Shelf::up(3, "230Mi").unwrap();
    let whole = deployment_in_defaults("whole", "gemma3", 1, 256);
    let spec = deployment_in_defaults("gemma3", "gemma3", 3, 256);
    shelf.apply(&format!("{}---\n{spec}---\n{whole}", model("gemma3", &path))).unwrap().ok().unwrap();
    shelf.wait_available("gemma3").unwrap();
    assert_eq!(shelf.phones_of("gemma3").unwrap().len(), 3);
    assert_eq!(shelf.phones_of("whole").unwrap().len(), 0, "one phone has no room for all of it");
    // A base model has no template for chats.
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let chat = json!({"model": "gemma3", "messages": [{"role": "user", "content": "Who are you?"}]});
    let (status, answer) = gateway.post("/v1/chat/completions", &chat).await.unwrap();
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("no_chat_template")), "{answer}");
    let refused = shelf.polyctl(&["chat", "gemma3", "Who are you?"]).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("--complete"), "{}", refused.stderr);
    let goes_on =
        ["chat", "gemma3", "--complete", "The capital of France is", "--temperature", "0", "--max-tokens", "24"];
    let said = shelf.polyctl(&goes_on).unwrap().ok().unwrap().stdout;
    assert!(said.contains("the capital of the country"), "{said}");
}

#[tokio::test]
async fn the_demo_says_what_the_capital_of_france_is() {
    if real_model().is_none() {
        return;
    }
    // As scripts/demo.sh: no phone holds the model alone.
    let shelf = Shelf::planned("auto", 3, "112Mi").unwrap();
    shelf.start().unwrap();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/smollm2.yaml");
    shelf.polyctl(&["apply", "-f", &manifest.to_string_lossy()]).unwrap().ok().unwrap();
    shelf.wait_available("smollm2").unwrap();
    assert!(shelf.phones_of("smollm2").unwrap().len() > 1);
    let question = ["chat", "smollm2", "--temperature", "0", "What is the capital of France?"];
    let said = shelf.polyctl(&question).unwrap().ok().unwrap().stdout;
    assert!(said.contains("The capital of France is Paris."), "{said}");
}
