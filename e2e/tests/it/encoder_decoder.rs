//! A T5 over real phones: its encoder's output skips stages, and whatever the cuts, the answer is the same.

use polyphony_e2e::golden::{Case, Golden};
use polyphony_e2e::shelf::{Shelf, golden_file};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::answers::{Answer, complete};
use crate::manifests::{deployment, model};
use crate::moves::metric;

/// Rounding of the golden file and of f32 arithmetic in another order.
const F32_BOUND: f32 = 1e-3;
/// The model has 4 + 4 layers, so that these cut within the encoder, within the decoder, and between them.
const SPLITS: [usize; 4] = [1, 3, 4, 5];

fn t5() -> String {
    model("t5", &golden_file("tiny/t5.gguf").canonicalize().unwrap())
}

/// As many layers to each phone as to the others where that is possible over so many, or else as the planner likes it.
fn split(name: &str, phones: usize, activation_type: &str, context_length: u32) -> String {
    let planned = deployment(name, "t5", phones, activation_type, context_length);
    if 8_usize.div_ceil(phones) * (phones - 1) >= 8 {
        return planned;
    }
    let most = format!("maxPhones: {phones}\n");
    let even = format!("{most}    strategy: EqualSplit\n");
    planned.replace(&most, &even)
}

fn placements(shelf: &Shelf, deployment: &str) -> Vec<Value> {
    let mut all = shelf.list("segmentplacements").unwrap();
    all.retain(|one| one["spec"]["deployment"] == deployment);
    all.sort_by_key(|one| one["spec"]["stage"].as_u64());
    all
}

/// From and to of the edges that skip stages.
fn skips(shelf: &Shelf, deployment: &str) -> Vec<(u64, u64)> {
    let of_placement = |placement: Value| {
        let from = placement["spec"]["stage"].as_u64().unwrap();
        let edges = placement["spec"]["edges"].as_array().unwrap().clone();
        let skips = edges.into_iter().filter(|edge| edge["kind"] == "Skip");
        skips.map(move |edge| (from, edge["to"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    placements(shelf, deployment).into_iter().flat_map(of_placement).collect()
}

fn is_as_the_reference(answer: &Answer, case: &Case, what: &str) {
    let expected: Vec<u32> = case.steps.iter().map(|step| step.token).collect();
    assert_eq!(answer.tokens, expected, "{what}");
    for (step, top) in case.steps.iter().zip(&answer.top) {
        let logprob = |token: u32| top.iter().find(|(id, _)| *id == token).map(|(_, logprob)| *logprob).unwrap();
        let (first, first_logit) = step.top[0];
        for (other, logit) in &step.top[1..] {
            let off = ((logprob(*other) - logprob(first)) - (logit - first_logit)).abs();
            assert!(off <= F32_BOUND, "{what}, token {other}: off by {off}");
        }
    }
}

#[tokio::test]
async fn a_t5_answers_as_the_reference_does_however_many_phones_hold_it() {
    let golden = Golden::read("tiny/t5.json").unwrap();
    let shelf = Shelf::up(5, "512Mi").unwrap();
    let mut manifests = vec![t5()];
    for phones in SPLITS {
        manifests.push(split(&format!("f32-{phones}"), phones, "f32", 128));
    }
    for phones in [1, 5] {
        manifests.push(split(&format!("f16-{phones}"), phones, "f16", 128));
    }
    shelf.apply(&manifests.join("---\n")).unwrap().ok().unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    for phones in SPLITS {
        shelf.wait_available(&format!("f32-{phones}")).unwrap();
    }
    // Four phones: two layers each, so that the last stage is no neighbour of the one where the encoder ends.
    assert_eq!(skips(&shelf, "f32-1"), []);
    assert_eq!(skips(&shelf, "f32-3"), [(1, 2)]);
    assert_eq!(skips(&shelf, "f32-4"), [(1, 2), (1, 3)]);
    assert!(!skips(&shelf, "f32-5").is_empty());

    for (index, case) in golden.cases.iter().enumerate() {
        let n_steps = case.steps.len();
        let alone = complete(&gateway, "f32-1", &case.prompt_ids, n_steps, json!({})).await;
        is_as_the_reference(&alone, case, &format!("case {index}"));
        for phones in &SPLITS[1..] {
            let split = complete(&gateway, &format!("f32-{phones}"), &case.prompt_ids, n_steps, json!({})).await;
            assert_eq!(split.tokens, alone.tokens, "case {index}, {phones} phones");
            assert_eq!(split.top, alone.top, "case {index}, {phones} phones: log-probabilities differ in some bit");
        }
    }
    two_at_once_say_what_each_says_alone(&gateway, &golden).await;

    for phones in [1, 5] {
        shelf.wait_available(&format!("f16-{phones}")).unwrap();
    }
    for case in &golden.cases {
        let whole = complete(&gateway, "f16-1", &case.prompt_ids, 24, json!({})).await;
        let split = complete(&gateway, "f16-5", &case.prompt_ids, 24, json!({})).await;
        assert_eq!((split.tokens, split.top), (whole.tokens, whole.top));
    }
    let deployed = shelf.get("inferencedeployment/f32-5").unwrap();
    let balanced = deployed["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Balanced");
    assert_eq!(balanced.unwrap()["reason"], "Disabled", "{deployed}");
}

async fn two_at_once_say_what_each_says_alone(gateway: &Gateway, golden: &Golden) {
    let ask = |case: &Case| {
        let prompt = case.prompt_ids.clone();
        async move { complete(gateway, "f32-5", &prompt, 60, json!({})).await }
    };
    let (first, second) = (ask(&golden.cases[1]).await, ask(&golden.cases[2]).await);
    let (first_too, second_too) = tokio::join!(ask(&golden.cases[1]), ask(&golden.cases[2]));
    assert_eq!((first.tokens, first.top), (first_too.tokens, first_too.top));
    assert_eq!((second.tokens, second.top), (second_too.tokens, second_too.top));
}

#[tokio::test]
async fn a_phone_that_is_killed_while_a_t5_answers_loses_no_token() {
    let golden = Golden::read("tiny/t5.json").unwrap();
    let shelf = Shelf::up(5, "512Mi").unwrap();
    let manifest = format!("{}---\n{}", t5(), split("talk", 4, "f16", 1024));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut body = json!({
        "model": "talk", "prompt": golden.cases[2].prompt_ids, "max_tokens": 900, "temperature": 0.8, "seed": 3,
        "ignore_eos": true, "return_token_ids": true,
    });
    let (status, undisturbed) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{undisturbed}");

    // The last stage: what it has of the encoder came over a skip edge.
    let lost = shelf.phones_of("talk").unwrap()[3].clone();
    body["stream"] = json!(true);
    let mut pieces = gateway.stream("/v1/completions", &body).await.unwrap();
    let mut tokens: Vec<Value> = Vec::new();
    let mut is_killed = false;
    while let Some(piece) = pieces.next().await.unwrap() {
        assert!(piece.get("error").is_none(), "{piece}");
        tokens.extend(piece["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default());
        if tokens.len() >= 10 && !is_killed {
            is_killed = true;
            shelf.kill(&lost).unwrap();
        }
    }
    assert_eq!(json!(tokens), undisturbed["choices"][0]["token_ids"]);
    assert!(metric(&gateway, "polyphony_replays_total").await >= 1.0, "the answer was over before the phone was lost");
    assert!(!shelf.phones_of("talk").unwrap().contains(&lost));
}
