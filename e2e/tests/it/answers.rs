//! What three phones say together is what one says alone, and what the reference says.

use polyphony_e2e::golden::{Case, Golden};
use polyphony_e2e::shelf::{Shelf, golden_file, real_model, vulkan_is_here};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, model};

/// Rounding of the golden file (4 decimals) and of f32 arithmetic in another order.
const F32_BOUND: f32 = 1e-3;
/// What f16 hidden states may move a logit by.
const F16_BOUND: f32 = 0.1;

/// Tokens and, for each, the log-probabilities of the likeliest by token.
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) top: Vec<Vec<(u32, f32)>>,
}

pub(crate) async fn complete(gateway: &Gateway, deployment: &str, prompt: &[u32], n: usize, extra: Value) -> Answer {
    let mut body = json!({
        "model": deployment, "prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": true,
        "logprobs": 20, "return_token_ids": true, "return_tokens_as_token_ids": true,
    });
    body.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    let tokens: Vec<u32> = serde_json::from_value(choice["token_ids"].clone()).unwrap();
    assert_eq!(tokens.len(), n, "{answer}");
    let id = |name: &str| name.strip_prefix("token_id:").unwrap().parse::<u32>().unwrap();
    let top = choice["logprobs"]["top_logprobs"].as_array().unwrap();
    let of_token =
        |one: &Value| one.as_object().unwrap().iter().map(|(name, p)| (id(name), p.as_f64().unwrap() as f32)).collect();
    Answer { top: top.iter().map(of_token).collect(), tokens }
}

/// Asks for the greedy answer and compares it with the reference step by step. Where two tokens are nearly as likely the
/// answer may take the other; from there it is asked again with the reference's token.
async fn compare(gateway: &Gateway, deployment: &str, case: &Case, bound: f32) {
    let mut done = 0;
    while done < case.steps.len() {
        let reference: Vec<u32> = case.steps.iter().map(|step| step.token).collect();
        let prompt: Vec<u32> = case.prompt_ids.iter().chain(&reference[..done]).copied().collect();
        let answer = complete(gateway, deployment, &prompt, case.steps.len() - done, json!({})).await;
        for (token, top) in answer.tokens.iter().zip(&answer.top) {
            let step = &case.steps[done];
            let logprob = |token: u32| top.iter().find(|(id, _)| *id == token).map(|(_, logprob)| *logprob);
            let (first, first_logit) = step.top[0];
            let base = logprob(first).expect("the reference's best token is among the 20 likeliest");
            for (other, logit) in &step.top[1..] {
                let found = logprob(*other).expect("the reference's 8 likeliest are among the 20 likeliest");
                let off = ((found - base) - (logit - first_logit)).abs();
                assert!(off <= bound, "{deployment}, step {done}, token {other}: off by {off}, {bound} allowed");
            }
            done += 1;
            if *token != step.token {
                assert!(step.margin <= 2.0 * bound, "{deployment}, step {done}: {token} instead of {}", step.token);
                break;
            }
        }
    }
}

#[tokio::test]
async fn one_two_and_three_phones_answer_as_the_reference_does() {
    let Some(path) = real_model() else { return };
    let golden = Golden::read("smollm2-135m-instruct-q4_1.json").unwrap();
    let shelf = Shelf::up(3, "2Gi").unwrap();
    let mut manifest = model("smollm2", &path);
    for phones in 1..=3 {
        manifest += &format!("---\n{}", deployment(&format!("f32-{phones}"), "smollm2", phones, "f32", 256));
        manifest += &format!("---\n{}", deployment(&format!("f16-{phones}"), "smollm2", phones, "f16", 256));
    }
    shelf.apply(&manifest).unwrap().ok().unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    for phones in 1..=3 {
        for name in [format!("f32-{phones}"), format!("f16-{phones}")] {
            shelf.wait_available(&name).unwrap();
            assert_eq!(shelf.phones_of(&name).unwrap().len(), phones);
        }
    }

    for case in &golden.cases {
        for phones in 1..=3 {
            compare(&gateway, &format!("f32-{phones}"), case, F32_BOUND).await;
        }
        compare(&gateway, "f16-3", case, F16_BOUND).await;
    }

    the_template_gives_the_reference_prompt(&gateway, &golden).await;
    every_split_gives_the_same_64_tokens(&gateway, &golden).await;
    two_chats_at_once_say_what_each_says_alone(&gateway, &golden).await;
    a_seed_draws_the_same_tokens_on_any_split(&gateway, &golden).await;
}

#[tokio::test]
async fn models_of_other_families_and_files_answer_as_the_reference_does_over_three_phones() {
    let models = [
        ("qwen2", "qwen2.gguf"),
        ("qwen3", "qwen3.gguf"),
        ("gpt2", "gpt2.gguf"),
        ("bloom", "bloom.gguf"),
        ("gptoss", "gptoss.gguf"),
        ("split3", "split3-00002-of-00003.gguf"),
        ("qwen2-hf", "qwen2_hf"),
        ("llama-hf", "llama_hf"),
    ];
    let shelf = Shelf::up(3, "1Gi").unwrap();
    let mut manifests = Vec::new();
    for (name, file) in models {
        manifests.push(model(name, &golden_file("tiny").join(file).canonicalize().unwrap()));
        manifests.push(deployment(&format!("{name}-3"), name, 3, "f32", 128));
    }
    manifests.push(deployment("bloom-q8-1", "bloom", 1, "q8", 128));
    manifests.push(deployment("bloom-q8-3", "bloom", 3, "q8", 128));
    shelf.apply(&manifests.join("---\n")).unwrap().ok().unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    for (name, _) in models {
        shelf.wait_available(&format!("{name}-3")).unwrap();
        for case in &Golden::read(&format!("tiny/{}.json", name.replace('-', "_"))).unwrap().cases {
            compare(&gateway, &format!("{name}-3"), case, F32_BOUND).await;
        }
    }
    // Lossy, but the same loss however the model is cut.
    for phones in [1, 3] {
        shelf.wait_available(&format!("bloom-q8-{phones}")).unwrap();
    }
    for case in &Golden::read("tiny/bloom.json").unwrap().cases {
        let whole = complete(&gateway, "bloom-q8-1", &case.prompt_ids, 24, json!({})).await;
        let split = complete(&gateway, "bloom-q8-3", &case.prompt_ids, 24, json!({})).await;
        assert_eq!(whole.tokens, split.tokens);
        assert_eq!(whole.top, split.top);
    }
}

#[tokio::test]
async fn vulkan_phones_answer_as_the_reference_does() {
    let Some(path) = real_model() else { return };
    if !vulkan_is_here() {
        polyphony_skip::skipped("no Vulkan driver; `make setup` installs one as root");
        return;
    }
    let golden = Golden::read("smollm2-135m-instruct-q4_1.json").unwrap();
    let shelf = Shelf::up_on("vulkan", 3, "2Gi").unwrap();
    let mut manifest = model("smollm2", &path);
    for phones in 1..=3 {
        manifest += &format!("---\n{}", deployment(&format!("f32-{phones}"), "smollm2", phones, "f32", 256));
    }
    shelf.apply(&manifest).unwrap().ok().unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    for phones in 1..=3 {
        let name = format!("f32-{phones}");
        shelf.wait_available(&name).unwrap();
        assert_eq!(shelf.phones_of(&name).unwrap().len(), phones);
        for case in &golden.cases {
            compare(&gateway, &name, case, F32_BOUND).await;
        }
    }
}

async fn the_template_gives_the_reference_prompt(gateway: &Gateway, golden: &Golden) {
    for case in golden.cases.iter().filter(|case| !case.messages.is_empty()) {
        let body = json!({
            "model": "f16-3", "messages": case.messages, "max_tokens": 1, "temperature": 0, "return_token_ids": true,
        });
        let (status, answer) = gateway.post("/v1/chat/completions", &body).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        let prompt = answer.pointer("/prompt_token_ids").or(answer.pointer("/choices/0/prompt_token_ids"));
        let ids: Vec<u32> = serde_json::from_value(prompt.unwrap().clone()).unwrap();
        assert_eq!(ids, case.prompt_ids);
    }
}

async fn every_split_gives_the_same_64_tokens(gateway: &Gateway, golden: &Golden) {
    let prompt = &golden.cases[0].prompt_ids;
    for kind in ["f32", "f16"] {
        let alone = complete(gateway, &format!("{kind}-1"), prompt, 64, json!({})).await;
        for phones in 2..=3 {
            let split = complete(gateway, &format!("{kind}-{phones}"), prompt, 64, json!({})).await;
            assert_eq!(split.tokens, alone.tokens, "{kind}, {phones} phones");
            assert_eq!(split.top, alone.top, "{kind}, {phones} phones: log-probabilities differ in some bit");
        }
    }
}

async fn two_chats_at_once_say_what_each_says_alone(gateway: &Gateway, golden: &Golden) {
    let prompts: Vec<&[u32]> = golden.cases.iter().take(2).map(|case| case.prompt_ids.as_slice()).collect();
    let first = complete(gateway, "f16-3", prompts[0], 32, json!({})).await;
    let second = complete(gateway, "f16-3", prompts[1], 32, json!({})).await;
    let (first_too, second_too) = tokio::join!(
        complete(gateway, "f16-3", prompts[0], 32, json!({})),
        complete(gateway, "f16-3", prompts[1], 32, json!({})),
    );
    assert_eq!((first.tokens, first.top), (first_too.tokens, first_too.top));
    assert_eq!((second.tokens, second.top), (second_too.tokens, second_too.top));
}

async fn a_seed_draws_the_same_tokens_on_any_split(gateway: &Gateway, golden: &Golden) {
    let prompt = &golden.cases[0].prompt_ids;
    let random = |seed: u64| json!({"temperature": 1.2, "top_p": 0.95, "top_k": 50, "seed": seed});
    let one = complete(gateway, "f16-1", prompt, 24, random(7)).await;
    let three = complete(gateway, "f16-3", prompt, 24, random(7)).await;
    let other = complete(gateway, "f16-3", prompt, 24, random(8)).await;
    assert_eq!(one.tokens, three.tokens);
    assert_ne!(one.tokens, other.tokens);
}
