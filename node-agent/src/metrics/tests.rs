//! The scrape as Prometheus, promtool and a reader of docs/metrics.md meet it.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/it/exposition.rs"]
mod exposition;

use std::time::Duration;

use bytes::Bytes;
use exposition::{assert_documented, assert_promtool_has_nothing_to_say, families, value};
use polyphony_protocol::frame::{Hidden, HiddenKind};
use polyphony_protocol::{ActivationType, Epoch, Frame, PlanGeneration, RingId, RouteKey, SessionId};
use polyphony_wire::Tally;

use super::*;
use crate::duty::Duty;
use crate::platform::Battery;
use crate::steps::StepKind;
use crate::told::Network;

/// Every name of the agent, and its type.
const NAMES: [(&str, &str); 28] = [
    ("polyphony_active_joules_total", "counter"),
    ("polyphony_active_tokens_total", "counter"),
    ("polyphony_active_watts", "gauge"),
    ("polyphony_agent_info", "gauge"),
    ("polyphony_backend_gflops", "gauge"),
    ("polyphony_battery_discharge_watts", "gauge"),
    ("polyphony_battery_ratio", "gauge"),
    ("polyphony_duty_ratio", "gauge"),
    ("polyphony_hop_round_trip_seconds", "gauge"),
    ("polyphony_kv_cache_usage_ratio", "gauge"),
    ("polyphony_link_bytes_per_second", "gauge"),
    ("polyphony_memory_allocatable_bytes", "gauge"),
    ("polyphony_memory_available_bytes", "gauge"),
    ("polyphony_memory_reserved_bytes", "gauge"),
    ("polyphony_network_info", "gauge"),
    ("polyphony_segment_besides_layers_seconds", "gauge"),
    ("polyphony_segment_bytes_loaded", "gauge"),
    ("polyphony_segment_layer_seconds", "gauge"),
    ("polyphony_segment_layers", "gauge"),
    ("polyphony_segment_prefill_layer_seconds", "gauge"),
    ("polyphony_segment_queued_rows", "gauge"),
    ("polyphony_segment_sessions", "gauge"),
    ("polyphony_segment_step_seconds", "histogram"),
    ("polyphony_sent_bytes_total", "counter"),
    ("polyphony_sent_frames_total", "counter"),
    ("polyphony_temperature_celsius", "gauge"),
    ("polyphony_weights_fetched_bytes_total", "counter"),
    ("polyphony_withdrawn", "gauge"),
];

fn metrics(board: &Arc<Board>) -> Metrics {
    let speed = |backend: &str, gflops| Speed {
        backend: backend.into(),
        device: "a \"device\"".into(),
        numerics: format!("{backend}-f32-r1"),
        gflops,
        batch_gflops: 0.0,
        prefill_gflops: 0.0,
        gigabytes_per_second: 1.0,
    };
    let labels = Labels {
        version: "0.1.0".into(),
        backend: "cpu".into(),
        device: "a \"device\"".into(),
        speeds: vec![speed("cpu", 2.5), speed("vulkan", 1.5)],
    };
    let reading = Reading {
        battery: Battery { percent: Some(73), discharge_watts: Some(2.5), ..Battery::default() },
        shell_celsius: Some(41.5),
        available_bytes: Some(3_221_225_472),
        network: Some(Network::Wifi),
        metered: Some(false),
        ..Reading::default()
    };
    Metrics::new(labels, board.clone(), Budget::new(80 << 20), watch::channel(reading).1, Duty::default())
}

/// A board with one of everything.
fn full_board() -> Arc<Board> {
    let board = Arc::new(Board::default());
    let entry = board.add("default", "chat-0-1-0");
    entry.set_progress(5, 10);
    entry.set_room(3, 4);
    entry.set_sessions(1);
    entry.set_figures(crate::pace::Figures {
        seconds_per_layer: Some(0.5),
        layers_timed: 3,
        prefill_seconds_per_layer_per_token: Some(0.25),
        seconds_besides_layers: Some(0.125),
    });
    entry.steps().note(StepKind::Decode, Duration::from_millis(3));
    entry.steps().note(StepKind::Prefill, Duration::from_secs(2));
    let way = polyphony_protocol::hub::Way::direct("10.0.0.2:1");
    board.note_link("phone-2", &way, 0.001);
    board.note_bandwidth("phone-2", 1e6);
    board.set_energy(crate::energy::Figures { active_watts: Some(2.5), active_joules: 10.0, tokens: 40 });
    board
}

#[test]
fn every_name_is_there_with_help_and_type_and_stands_in_the_docs() {
    let text = metrics(&full_board()).text().unwrap();
    let families = families(&text);
    let found: Vec<(&str, &str)> =
        families.iter().map(|(name, family)| (name.as_str(), family.kind.as_str())).collect();
    assert_eq!(found, NAMES);
    assert_documented(include_str!("../../../docs/metrics.md"), "Agent", &families);
    assert_promtool_has_nothing_to_say(&text);
}

#[test]
fn what_the_board_knows_is_what_a_scrape_shows_until_the_segment_is_released() {
    let board = full_board();
    board.add("other", "chat-0-1-0");
    let metrics = metrics(&board);
    let text = metrics.text().unwrap();
    let of = |name: &str, placement: &str| value(&text, name, &[("placement", placement)]);
    assert_eq!(of("polyphony_segment_bytes_loaded", "chat-0-1-0"), Some(5.0));
    assert_eq!(of("polyphony_segment_bytes_loaded", "other/chat-0-1-0"), Some(0.0));
    assert_eq!(of("polyphony_kv_cache_usage_ratio", "chat-0-1-0"), Some(0.25));
    assert_eq!(of("polyphony_kv_cache_usage_ratio", "other/chat-0-1-0"), None);
    assert_eq!(of("polyphony_segment_layers", "chat-0-1-0"), Some(3.0));
    assert_eq!(value(&text, "polyphony_hop_round_trip_seconds", &[("peer", "phone-2")]), Some(0.001));
    let available = value(&text, "polyphony_memory_available_bytes", &[]);
    assert_eq!(available, Some(3_221_225_472.0), "what the phone withdraws by");
    let energy = |what: &str| value(&text, &format!("polyphony_active_{what}"), &[]);
    assert_eq!(["watts", "joules_total", "tokens_total"].map(energy), [Some(2.5), Some(10.0), Some(40.0)]);
    let decode = [("placement", "chat-0-1-0"), ("kind", "decode")];
    assert_eq!(value(&text, "polyphony_segment_step_seconds_sum", &decode), Some(0.003));
    board.remove("default", "chat-0-1-0");
    let text = metrics.text().unwrap();
    assert!(!text.contains("\"chat-0-1-0\"") && text.contains("\"other/chat-0-1-0\""), "{text}");
}

#[test]
fn frames_and_bytes_are_counted_by_kind_in_every_clone() {
    let metrics = metrics(&Arc::default());
    let key = RouteKey { ring: RingId(1), generation: PlanGeneration(1), session: SessionId(1), epoch: Epoch(1) };
    let hidden = Frame::Hidden(Hidden {
        kind: HiddenKind::Decoding,
        key,
        position: 0,
        n_tokens: 1,
        dtype: ActivationType::F32,
        sample: false,
        payload: Bytes::new(),
    });
    metrics.traffic.sent(&hidden, 100);
    metrics.traffic.clone().sent(&hidden, 11);
    metrics.traffic.sent(&Frame::Close { key }, 40);
    let text = metrics.text().unwrap();
    for (kind, frames, bytes) in [("hidden", 2.0, 111.0), ("control", 1.0, 40.0), ("token", 0.0, 0.0)] {
        assert_eq!(value(&text, "polyphony_sent_frames_total", &[("kind", kind)]), Some(frames), "{kind}");
        assert_eq!(value(&text, "polyphony_sent_bytes_total", &[("kind", kind)]), Some(bytes), "{kind}");
    }
}
