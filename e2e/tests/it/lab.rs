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
        println!("skipped: {why}");
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
