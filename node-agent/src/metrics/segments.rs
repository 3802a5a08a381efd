//! Segments and links as the board knows them at the moment of a scrape. A released segment is on no board, and so in no scrape.

use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::gauges;
use crate::board::{Board, Entry, Snapshot};

/// A link that was measured longer ago is down: links are probed each second.
const FRESH: Duration = Duration::from_secs(10);

pub(super) fn families(board: &Board) -> Vec<MetricFamily> {
    let entries = board.entries();
    let seen: Vec<Snapshot> = entries.iter().map(|entry| entry.snapshot()).collect();
    let each = |value: &dyn Fn(&Snapshot) -> Option<f64>| -> Vec<(String, f64)> {
        seen.iter().filter_map(|segment| Some((segment.placement(), value(segment)?))).collect()
    };
    let placement =
        |name: &str, help: &str, value: &dyn Fn(&Snapshot) -> Option<f64>| gauges(name, help, "placement", each(value));
    let mut families: Vec<MetricFamily> = entries.iter().map(AsRef::as_ref).flat_map(steps).collect();
    families.extend(placement(
        "polyphony_segment_layer_seconds",
        "Median seconds a layer of one row in recent decode steps; from a trial until there is one.",
        &|segment| segment.report.seconds_per_layer,
    ));
    families.extend(placement(
        "polyphony_segment_prefill_layer_seconds",
        "Median seconds a layer of recent prefill chunks, divided by their rows.",
        &|segment| segment.report.prefill_seconds_per_layer_per_token,
    ));
    families.extend(placement(
        "polyphony_segment_besides_layers_seconds",
        "Median seconds of recent decode steps of one row that were no layers: embedding, output matrix, sampling, frames.",
        &|segment| segment.report.seconds_besides_layers,
    ));
    families.extend(placement("polyphony_segment_queued_rows", "Token rows that wait to be computed.", &|segment| {
        Some(f64::from(segment.report.queued_rows))
    }));
    families.extend(placement(
        "polyphony_segment_sessions",
        "Sessions whose KV cache the segment holds.",
        &|segment| Some(f64::from(segment.report.sessions)),
    ));
    families.extend(placement(
        "polyphony_kv_cache_usage_ratio",
        "Share of the segment's KV cache that is taken, from 0 to 1. A session takes a whole slot, however short it is.",
        &|segment| (segment.n_slots > 0).then(|| f64::from(segment.report.sessions) / f64::from(segment.n_slots)),
    ));
    families.extend(placement(
        "polyphony_segment_bytes_loaded",
        "Bytes of the segment's tensors that are here so far.",
        &|segment| Some(segment.report.bytes_loaded as f64),
    ));
    families.extend(placement("polyphony_segment_layers", "Layers that the segment runs.", &|segment| {
        (segment.n_layers > 0).then(|| f64::from(segment.n_layers))
    }));
    families.extend(gauges(
        "polyphony_hop_round_trip_seconds",
        "Median of the last round trips to another phone, while it is pinged: each second to a next stage.",
        "peer",
        board.fresh_links(FRESH),
    ));
    families.extend(gauges(
        "polyphony_link_bytes_per_second",
        "Median of what the last probes of the link to another phone carried.",
        "peer",
        board.links().into_iter().filter_map(|link| Some((link.peer, link.bytes_per_second?))),
    ));
    families
}

fn steps(entry: &Entry) -> Vec<MetricFamily> {
    entry.steps().families()
}
