//! A phone: what it is, how fast it was measured to be, and what it holds.

use polyphony_api::Phone;

use super::layout::Layout;
use super::{Story, events, placement};
use crate::doctor::answers;
use crate::duration;

pub(super) fn write(layout: &mut Layout, phone: &Phone, story: &Story) {
    let status = phone.status.clone().unwrap_or_default();
    layout.metadata(&phone.metadata);
    layout.field("Unschedulable", phone.spec.unschedulable);
    layout.field_if("Drain", phone.spec.drain.then_some(true));
    layout.field_if("Max Memory", phone.spec.max_memory.as_deref());
    layout.field_if("Min Battery", phone.spec.min_battery_percent.map(|percent| format!("{percent} %")));
    layout.field_if("Agent Version", status.agent_version);
    let hardware = status.hardware.unwrap_or_default();
    layout.field_if("Model", hardware.model);
    layout.field_if("SoC", hardware.soc);
    layout.field_if("System", hardware.system);
    layout.field_if("Backend", status.backend);
    layout.field_if("Device", status.device);
    layout.field_if("Ring Address", status.ring_address);
    layout.field_if("Capacity", status.capacity.map(|capacity| format!("{} memory", capacity.memory)));
    layout.field_if("Allocatable", status.allocatable.map(|allocatable| format!("{} memory", allocatable.memory)));
    let charge =
        |percent| if status.charging == Some(true) { format!("{percent} %, charging") } else { format!("{percent} %") };
    layout.field_if("Battery", status.battery_percent.map(charge));
    let watts = |watts| format!("{watts} W more while it computes");
    layout.field_if("Energy", status.active_watts.map(watts));
    layout.field_if("Temperature", status.temperature_celsius.map(|celsius| format!("{celsius:.1} °C")));
    if !status.backends.is_empty() {
        let rows = status.backends.into_iter().map(|speed| {
            let known =
                |gflops: Option<f64>| gflops.map_or_else(|| "<unknown>".to_owned(), |gflops| format!("{gflops:.2}"));
            let [batch, prompt] = [speed.batch_gflops, speed.prefill_gflops].map(known);
            let [gflops, bytes] = [speed.gflops, speed.gigabytes_per_second].map(|figure| format!("{figure:.2}"));
            let answers = answers(&speed).to_owned();
            let class = speed.numerics.unwrap_or(speed.name);
            vec![class, gflops, batch, prompt, bytes, answers, speed.device]
        });
        layout.table(
            "Speeds",
            &["Class", "GFLOP/s", "Of 4 Rows", "Of A Prompt", "GB/s", "Answers", "Device"],
            rows.collect(),
        );
    }
    let kept: Vec<String> = status.kv_caches.iter().map(|kv_cache| format!("{kv_cache:?}")).collect();
    layout.field_if("KV Caches", Some(kept.join(", ")).filter(|kept| !kept.is_empty()));
    if !status.links.is_empty() {
        let rows = status.links.into_iter().map(|link| {
            let bandwidth =
                link.megabits_per_second.map_or_else(|| "<unknown>".to_owned(), |rate| format!("{rate:.1}"));
            let way = if link.relayed { "over the hub" } else { "direct" };
            vec![link.peer, format!("{:.2}", link.round_trip_milliseconds), bandwidth, way.to_owned()]
        });
        layout.table("Links", &["Peer", "Round Trip (ms)", "Mbit/s", "Way"], rows.collect());
    }
    if !status.failures.is_empty() {
        let rows = status.failures.into_iter().map(|failure| {
            let digest = failure.manifest_digest.map(|digest| format!("model {}", digest.get(..12).unwrap_or(&digest)));
            let link = failure.peer.map(|peer| format!("link to {peer}"));
            let what = link.or(digest).unwrap_or_else(|| "the phone itself".to_owned());
            let ago = duration::human(story.now.as_second() - failure.last_failure_time.0.as_second());
            vec![
                what,
                format!("{:?}", failure.reason),
                failure.count.to_string(),
                ago,
                failure.message.unwrap_or_default(),
            ]
        });
        layout.table("Failures", &["What", "Reason", "Times", "Last", "Message"], rows.collect());
    }
    layout.conditions(&status.conditions, story.now);
    placement::write_table(layout, "Segments", story.placements, placement::Column::Deployment);
    events::write(layout, story.events, phone.metadata.name.as_deref().unwrap_or_default(), story.now);
}
