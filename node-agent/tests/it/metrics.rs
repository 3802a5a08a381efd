//! Two real agents run a ring for a scripted host, and `/metrics` says what they did.

use std::path::Path;

use polyphony_model::{Holds, LayerRange};
use polyphony_protocol::activation::encode_rows;
use polyphony_protocol::frame::{HEADER_BYTES, Prompt};
use polyphony_protocol::hub::{self, Assignment, Peer};
use polyphony_protocol::session::SessionOptions;
use polyphony_protocol::{ActivationType, Epoch, Frame, PlanGeneration, RingId, RouteKey, SessionId};

use crate::exposition::{families, value};
use crate::hub::{Hub, Joined};

const N_PROMPT: usize = 5;
const N_ANSWER: u32 = 4;
const DTYPE: ActivationType = ActivationType::F16;

fn assignment(hub: &Hub, agents: [&Joined; 2], stage: u32, cut: u32) -> Assignment {
    let n_layers = hub.model.manifest.hyperparameters.n_layers;
    let peers = (0..2).map(|stage| Peer {
        stage,
        phone: agents[stage as usize].join.phone.clone(),
        ways: vec![polyphony_protocol::hub::Way::direct(agents[stage as usize].join.ring_address.clone())],
        key: hub.key_of(&agents[stage as usize].join.phone),
        layers: None,
    });
    Assignment {
        namespace: "default".into(),
        name: format!("chat-{stage}"),
        ring: RingId(1),
        generation: PlanGeneration(1),
        plan_digest: String::new(),
        stage,
        holds: match stage {
            0 => hub::Holds { embedding: true, from: 0, to: cut, head: false },
            _ => hub::Holds { embedding: false, from: cut, to: n_layers, head: true },
        },
        peers: peers.collect(),
        manifest_digest: hub.model.digest.clone(),
        context_length: 64,
        max_sessions: 2,
        session_groups: 0,
        activation_type: DTYPE,
        numerics_class: format!("{}/f16", agents[0].join.numerics),
        standby: None,
        follows: None,
        successors: Vec::new(),
        encoder: None,
    }
}

/// Bytes of a frame with the hidden states of so many tokens.
fn hidden_bytes(width: usize, n_rows: usize) -> usize {
    HEADER_BYTES + encode_rows(DTYPE, width, &vec![0.0; n_rows * width]).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_frames_bytes_and_weights_are_counted_as_they_happened() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf");
    let hub = Hub::open(&model).await;
    let (mut head, mut tail) = (hub.join("phone-1").await, hub.join("phone-2").await);
    let manifest = &hub.model.manifest;
    let (n_layers, width) = (manifest.hyperparameters.n_layers, manifest.hyperparameters.hidden_size as usize);
    let segments = [0, 1].map(|stage| assignment(&hub, [&head, &tail], stage, 1));
    let [first, second] = segments;
    head.assign(vec![first]).await;
    tail.assign(vec![second]).await;
    head.until_ready(1).await;
    tail.until_ready(1).await;

    let key = RouteKey { ring: RingId(1), generation: PlanGeneration(1), session: SessionId(1), epoch: Epoch(1) };
    let options = SessionOptions {
        sampling: Default::default(),
        end_position: N_PROMPT as u32 + N_ANSWER,
        end_tokens: vec![],
        top_logprobs: 0,
        logprobs: false,
        n_prompt: 0,
        history: Default::default(),
    };
    head.send(Frame::Open { key, options }).await;
    head.send(Frame::Prompt(Prompt { key, position: 0, tokens: vec![7; N_PROMPT], credit: N_ANSWER })).await;
    for _ in 0..N_ANSWER {
        tail.until(|frame| matches!(frame, Frame::Token(_)).then_some(())).await;
    }

    // A token goes to the head after it went to the host.
    let sent = |text: &str, kind: &str| value(text, "polyphony_sent_frames_total", &[("kind", kind)]);
    let tails = tail.scrape_until("all tokens are sent", |text| sent(text, "token") == Some(f64::from(2 * N_ANSWER)));
    let (heads, tails) = (head.scrape().await, tails.await);
    families(&tails);
    assert_eq!(sent(&heads, "hidden"), Some(f64::from(N_ANSWER)));
    let bytes = hidden_bytes(width, N_PROMPT) + (N_ANSWER as usize - 1) * hidden_bytes(width, 1);
    assert_eq!(value(&heads, "polyphony_sent_bytes_total", &[("kind", "hidden")]), Some(bytes as f64));
    assert_eq!((sent(&heads, "token"), sent(&tails, "hidden")), (Some(0.0), Some(0.0)));
    assert!(sent(&heads, "control") > Some(2.0), "join, hello, heartbeats, pings");

    for (text, placement, holds) in [
        (&heads, "chat-0", Holds { embedding: true, layers: LayerRange { from: 0, to: 1 }, head: false }),
        (&tails, "chat-1", Holds { embedding: false, layers: LayerRange { from: 1, to: n_layers }, head: true }),
    ] {
        let of = |name: &str| value(text, name, &[("placement", placement)]);
        let steps = |kind| {
            let labels = [("placement", placement), ("kind", kind)];
            value(text, "polyphony_segment_step_seconds_count", &labels)
        };
        assert_eq!((steps("prefill"), steps("decode")), (Some(1.0), Some(f64::from(N_ANSWER - 1))), "{placement}");
        let n_bytes = manifest.bytes_of(&holds) as f64;
        assert_eq!(of("polyphony_segment_bytes_loaded"), Some(n_bytes), "{placement}");
        assert_eq!(value(text, "polyphony_weights_fetched_bytes_total", &[]), Some(n_bytes), "{placement}");
        assert_eq!(of("polyphony_segment_layers"), Some(f64::from(holds.layers.len())), "{placement}");
        assert!(value(text, "polyphony_memory_reserved_bytes", &[]) > Some(n_bytes), "{placement}");
    }
    let taken = |text: &str| value(text, "polyphony_kv_cache_usage_ratio", &[("placement", "chat-0")]) == Some(0.5);
    head.scrape_until("one of two slots is taken", taken).await;
    let hop = |text: &str| value(text, "polyphony_hop_round_trip_seconds", &[("peer", "phone-2")]) > Some(0.0);
    head.scrape_until("the next phone's pong is measured", hop).await;

    head.send(Frame::Close { key }).await;
    let free = |text: &str| value(text, "polyphony_segment_sessions", &[("placement", "chat-0")]) == Some(0.0);
    head.scrape_until("the session is closed", free).await;
    head.assign(vec![]).await;
    let is_forgotten =
        |text: &str| !text.contains("chat-0") && value(text, "polyphony_memory_reserved_bytes", &[]) == Some(0.0);
    head.scrape_until("the released segment is forgotten, and its memory free", is_forgotten).await;
}

#[tokio::test]
async fn nothing_is_scraped_beyond_loopback() {
    let beyond = "0.0.0.0:0".parse().unwrap();
    let error = polyphony_agent::metrics::bind(beyond).await.unwrap_err().to_string();
    assert!(error.contains("--metrics-address 0.0.0.0:0") && error.contains("/metrics/phones/"), "{error}");
    let taken = polyphony_agent::metrics::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = polyphony_agent::metrics::bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("choose another --metrics-address"), "{error}");
}
