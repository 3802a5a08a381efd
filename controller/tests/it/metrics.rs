//! What `/metrics` and Prometheus' service discovery say of a controller with two phones, and after one of them is lost.
#![allow(clippy::unwrap_used)]

use kube::Api;
use kube::api::DeleteParams;
use polyphony_api::InferenceDeployment;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::exposition::{assert_documented, assert_promtool_has_nothing_to_say, families, value};
use super::farm::{Farm, until};

/// Every name of the controller, and its type. The gateway's are in the same scrape.
const NAMES: [(&str, &str); 17] = [
    ("polyphony_actions_total", "counter"),
    ("polyphony_build_info", "gauge"),
    ("polyphony_deployment_replicas", "gauge"),
    ("polyphony_failed_decisions_total", "counter"),
    ("polyphony_hub_links", "gauge"),
    ("polyphony_imbalanced", "gauge"),
    ("polyphony_phones", "gauge"),
    ("polyphony_plan_generation", "gauge"),
    ("polyphony_plan_seconds", "histogram"),
    ("polyphony_plans_total", "counter"),
    ("polyphony_predicted_to_measured_time", "gauge"),
    ("polyphony_predicted_tokens_per_second", "gauge"),
    ("polyphony_rebalances_total", "counter"),
    ("polyphony_reconcile_seconds", "histogram"),
    ("polyphony_relay_bytes_total", "counter"),
    ("polyphony_relay_ways", "gauge"),
    ("polyphony_replacements_total", "counter"),
];

/// The body of a GET that succeeds.
async fn get(base: &str, path: &str) -> String {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}

/// A name, labels, and the value there; none where it is not to be.
type Sample<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<f64>);

/// Scrapes until the values are these; the text that it was.
async fn scrape_until(farm: &Farm, wanted: &[Sample<'_>]) -> String {
    until(&format!("{wanted:?}"), async || {
        let text = get(&farm.endpoints.metrics, "/metrics").await;
        let is_so = wanted.iter().all(|(name, labels, expected)| value(&text, name, labels) == *expected);
        if is_so { Ok(text) } else { Err(text) }
    })
    .await
}

const CHAT: [(&str, &str); 2] = [("namespace", "default"), ("deployment", "chat")];

fn replicas(state: &'static str) -> [(&'static str, &'static str); 3] {
    [CHAT[0], CHAT[1], ("state", state)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_plans_and_deployments_are_counted_from_their_beginning_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let _first = farm.agent("phone-1").await;
    let second = farm.agent("phone-2").await;
    farm.deploy(folder.path()).await;
    let placements = farm.available(1).await;

    let wanted: [Sample<'_>; 10] = [
        ("polyphony_phones", &[("state", "ready")], Some(2.0)),
        ("polyphony_phones", &[("state", "not_ready")], Some(0.0)),
        ("polyphony_hub_links", &[], Some(2.0)),
        ("polyphony_deployment_replicas", &replicas("desired"), Some(1.0)),
        ("polyphony_deployment_replicas", &replicas("planned"), Some(1.0)),
        ("polyphony_deployment_replicas", &replicas("ready"), Some(1.0)),
        ("polyphony_plan_generation", &CHAT, Some(1.0)),
        ("polyphony_replacements_total", &CHAT, Some(0.0)),
        ("polyphony_requests_running", &[("model_name", "chat")], Some(0.0)),
        ("polyphony_actions_total", &[("action", "create_placement")], Some(placements.len() as f64)),
    ];
    let text = scrape_until(&farm, &wanted).await;
    let n_rounds = value(&text, "polyphony_reconcile_seconds_count", &[]).unwrap();
    assert!(n_rounds >= 2.0 && value(&text, "polyphony_plans_total", &[("outcome", "planned")]) >= Some(1.0));
    assert!(value(&text, "polyphony_predicted_tokens_per_second", &CHAT) > Some(0.0));

    let docs = include_str!("../../../docs/metrics.md");
    let (_, gateways) = docs.split_once("\n## Gateway").unwrap();
    let (gateways, _) = gateways.split_once("\n## ").unwrap();
    let mut own = families(&text);
    own.retain(|name, _| !gateways.contains(&format!("| `{name}` |")));
    let found: Vec<(&str, &str)> = own.iter().map(|(name, family)| (name.as_str(), family.kind.as_str())).collect();
    assert_eq!(found, NAMES);
    assert_documented(docs, "Controller", &own);
    assert_promtool_has_nothing_to_say(&text);
    let at_the_gateway = families(&get(&farm.endpoints.gateway, "/metrics").await);
    assert!(at_the_gateway.keys().eq(families(&text).keys()), "both doors show the same");

    let targets = async || -> Value {
        let listed = get(&farm.endpoints.metrics, "/v1alpha1/prometheus/targets").await;
        serde_json::from_str(&listed).unwrap()
    };
    let own = farm.endpoints.metrics.strip_prefix("http://").unwrap();
    let agent = |phone: &str| {
        let path = format!("/metrics/phones/{phone}");
        let labels = json!({
            "component": "agent", "phone": phone, "instance": phone, "__metrics_path__": path, "__scheme__": "http",
        });
        json!({ "targets": [own], "labels": labels })
    };
    let controller = json!({ "targets": [own], "labels": { "component": "controller", "__scheme__": "http" } });
    assert_eq!(targets().await, json!([controller, agent("phone-1"), agent("phone-2")]));
    // A phone is asked over its link: nobody has to reach it.
    assert_eq!(get(&farm.endpoints.metrics, "/metrics/phones/phone-2").await, "polyphony_scripted 1\n");
    polyphony_wire::take_ring();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let unknown = client.get(format!("{}/metrics/phones/phone-9", farm.endpoints.metrics)).send().await.unwrap();
    assert_eq!(unknown.status().as_u16(), 404);

    let _third = farm.agent("phone-3").await;
    drop(second);
    farm.available(2).await;
    let wanted: [Sample<'_>; 3] = [
        ("polyphony_replacements_total", &CHAT, Some(1.0)),
        ("polyphony_plan_generation", &CHAT, Some(2.0)),
        ("polyphony_phones", &[("state", "not_ready")], Some(1.0)),
    ];
    scrape_until(&farm, &wanted).await;
    assert_eq!(targets().await, json!([controller, agent("phone-1"), agent("phone-3")]));

    let deployments = Api::<InferenceDeployment>::default_namespaced(farm.client.clone());
    deployments.delete("chat", &DeleteParams::default()).await.unwrap();
    let gone: [Sample<'_>; 4] = [
        ("polyphony_deployment_replicas", &replicas("desired"), None),
        ("polyphony_replacements_total", &CHAT, None),
        ("polyphony_predicted_tokens_per_second", &CHAT, None),
        ("polyphony_requests_running", &[("model_name", "chat")], None),
    ];
    scrape_until(&farm, &gone).await;
    farm.stop().await;
}
