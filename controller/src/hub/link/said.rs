//! What an agent says of itself: a join is refused, and a heartbeat cut, where they go beyond what any agent has to say. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use polyphony_identity::is_dns_label;
use polyphony_protocol::hub::{Hardware, Heartbeat, Join};
use polyphony_protocol::version;

/// What one heartbeat may list, and the length of its texts.
const MAX_LISTED: usize = 256;
const MAX_SPEEDS: usize = 8;
/// Types of KV caches; there are three.
const MAX_KV_CACHES: usize = 8;
const MAX_TEXT: usize = 512;
/// More layers than any model has.
const MAX_LAYERS: u32 = 1 << 12;
/// The longest name of a phone, which is a DNS label.
const MAX_NAME: usize = 63;

/// A join as it is taken, or what is wrong with it.
pub(super) fn recognise(mut join: Join) -> Result<Join, String> {
    if !version::CURRENT.speaks_with(join.version) {
        // Its name is not checked yet, and goes into a log.
        let name: String = join.phone.chars().filter(|character| !character.is_control()).take(MAX_NAME).collect();
        return Err(version::refusal(&format!("the agent of {name}"), join.version, "this hub"));
    }
    check_join(&join)?;
    join.speeds.truncate(MAX_SPEEDS);
    join.kv_caches.truncate(MAX_KV_CACHES);
    // For people, in words of makers that no agent chooses.
    let Hardware { model, soc, system } = &mut join.hardware;
    for name in [model, soc, system].into_iter().flatten() {
        name.retain(|character| !character.is_control());
        shorten(name);
    }
    Ok(join)
}

fn check_join(join: &Join) -> Result<(), String> {
    if !is_dns_label(&join.phone) {
        let start: String = join.phone.chars().take(80).collect();
        return Err(format!(
            "{start:?} is no name for a phone: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
        ));
    }
    if join.ring_address.parse::<SocketAddr>().is_err() {
        return Err(
            "the ring address is not of the form IP:PORT, such as 127.0.0.1:7701: correct --ring-address".into()
        );
    }
    let texts =
        [&join.agent_version, &join.backend, &join.device, &join.numerics, &join.metrics_address, &join.instance];
    let speeds = join.speeds.iter().flat_map(|speed| [&speed.backend, &speed.device, &speed.numerics]);
    if texts.into_iter().chain(speeds).chain(&join.kv_caches).any(|text| text.len() > MAX_TEXT) {
        return Err(format!("a text of the join is over {MAX_TEXT} bytes: update the agent"));
    }
    if ![&join.metrics_address, &join.instance].into_iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err("the metrics address or the instance of the join is not printable: update the agent".into());
    }
    if join.numerics.is_empty() || join.numerics.contains('/') {
        return Err("the join names no numerics, such as cpu-f32-r1: update the agent".into());
    }
    if join.speeds.iter().any(|speed| speed.numerics.contains('/')) {
        return Err("a speed of the join names no numerics, such as cpu-f32-r1: update the agent".into());
    }
    let mut named = join.speeds.iter().map(|speed| speed.numerics.as_str()).filter(|numerics| !numerics.is_empty());
    let mut seen = BTreeSet::new();
    if let Some(twice) = named.find(|numerics| !seen.insert(*numerics)) {
        return Err(format!("the join tells two speeds of {twice}: update the agent"));
    }
    Ok(())
}

/// Keeps a heartbeat within bounds, whatever the agent listed.
pub(super) fn bounded(mut heartbeat: Heartbeat) -> Heartbeat {
    heartbeat.segments.truncate(MAX_LISTED);
    heartbeat.links.truncate(MAX_LISTED);
    heartbeat.links_down.truncate(MAX_LISTED);
    heartbeat.links_down.retain(|down| down.peer.len() <= MAX_TEXT && down.reason.len() <= MAX_TEXT);
    if let Some(faults) = &mut heartbeat.faults {
        let mut seen = BTreeSet::new();
        faults.retain(|fault| {
            let texts = [&fault.backend, &fault.device, &fault.numerics];
            let is_sound = texts.iter().all(|text| text.len() <= MAX_TEXT && !text.contains('/'));
            // One of each class.
            is_sound && seen.insert((fault.backend.clone(), fault.numerics.clone()))
        });
        faults.truncate(MAX_SPEEDS);
        faults.iter_mut().for_each(|fault| shorten(&mut fault.reason));
    }
    heartbeat.withdrawal.iter_mut().for_each(|withdrawal| shorten(&mut withdrawal.message));
    heartbeat.temperature_celsius = heartbeat.temperature_celsius.filter(|celsius| celsius.is_finite());
    let believed = |value: Option<f64>| value.filter(|value| value.is_finite() && *value > 0.0);
    heartbeat.active_watts = believed(heartbeat.active_watts);
    heartbeat.links.retain(|link| link.peer.len() <= MAX_TEXT);
    for link in &mut heartbeat.links {
        link.bytes_per_second = believed(link.bytes_per_second);
    }
    for segment in &mut heartbeat.segments {
        segment.seconds_per_layer = believed(segment.seconds_per_layer);
        segment.prefill_seconds_per_layer_per_token = believed(segment.prefill_seconds_per_layer_per_token);
        segment.seconds_besides_layers = believed(segment.seconds_besides_layers);
        segment.layers_timed = segment.layers_timed.min(MAX_LAYERS);
        segment.message.iter_mut().for_each(shorten);
    }
    heartbeat
}

fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT {
        *text = text.chars().take(MAX_TEXT / 4).collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::hub::{BackendFault, LinkReport, SegmentPhase, SegmentReport, Speed};

    use super::super::super::fixtures::join;
    use super::*;

    #[test]
    fn a_makers_words_are_cut_and_keep_nobody_out() {
        let hardware =
            Hardware { model: Some("A \u{1b}[31mphone\n".into()), soc: Some("ä".repeat(MAX_TEXT)), system: None };
        let kept = recognise(Join { hardware, ..join("phone-1") }).unwrap().hardware;
        assert_eq!((kept.model.as_deref(), kept.system), (Some("A [31mphone"), None));
        assert_eq!(kept.soc.map(|soc| soc.chars().count()), Some(MAX_TEXT / 4));
    }

    #[test]
    fn a_heartbeat_is_kept_within_bounds() {
        let link = |peer: String| LinkReport {
            peer,
            round_trip_seconds: 0.001,
            bytes_per_second: Some(f64::NAN),
            is_relayed: false,
        };
        let segment = SegmentReport {
            namespace: "default".into(),
            name: "s".into(),
            phase: SegmentPhase::Ready,
            bytes_loaded: 0,
            bytes_total: 0,
            seconds_per_layer: Some(-1.0),
            prefill_seconds_per_layer_per_token: None,
            seconds_besides_layers: None,
            layers_timed: u32::MAX,
            queued_rows: 0,
            sessions: 0,
            message: None,
        };
        let links = vec![link("phone-1".into()), link("x".repeat(MAX_TEXT + 1))];
        let fault = |numerics: &str| BackendFault {
            backend: "vulkan".into(),
            device: "a GPU".into(),
            numerics: numerics.into(),
            reason: "ä".repeat(MAX_TEXT),
        };
        let many = (0..99).map(|at| fault(&format!("vulkan-f32-r{at}")));
        let faults = [fault("a/class"), fault("vulkan-f32-r0")].into_iter().chain(many).collect();
        let kept = bounded(Heartbeat {
            segments: vec![segment],
            links,
            faults: Some(faults),
            active_watts: Some(f64::INFINITY),
            ..Heartbeat::default()
        });
        assert_eq!(kept.active_watts, None);
        let faults = kept.faults.as_deref().unwrap_or_default();
        assert_eq!(faults.len(), MAX_SPEEDS);
        assert!(faults.iter().enumerate().all(|(at, fault)| fault.numerics == format!("vulkan-f32-r{at}")));
        assert!(faults.iter().all(|fault| fault.reason.len() <= MAX_TEXT));
        assert_eq!((kept.segments[0].layers_timed, kept.segments[0].seconds_per_layer), (MAX_LAYERS, None));
        assert_eq!(kept.links.len(), 1);
        assert_eq!(kept.links[0].bytes_per_second, None);
    }

    #[test]
    fn an_agent_of_before_says_nothing_of_watts() {
        let heartbeat = serde_json::json!({ "batteryPercent": 80, "segments": [], "links": [] });
        let heartbeat: Heartbeat = serde_json::from_value(heartbeat).unwrap();
        assert_eq!((heartbeat.battery_percent, heartbeat.active_watts), (Some(80), None));
    }

    fn speed(numerics: &str) -> Speed {
        let (backend, device, numerics) = ("cpu".into(), "cpu".into(), numerics.into());
        Speed {
            backend,
            device,
            numerics,
            gflops: 1.0,
            batch_gflops: 1.0,
            prefill_gflops: 1.0,
            gigabytes_per_second: 1.0,
        }
    }

    #[test]
    fn what_an_agent_says_of_itself_is_short_and_printable() {
        type Edit = fn(&mut Join);
        let taken: [Edit; 3] = [
            |_| {},
            |join| join.instance = "x".repeat(MAX_TEXT),
            |join| (join.instance, join.metrics_address) = ("0f3a!".into(), "[::1]:9".into()),
        ];
        for edit in taken {
            let mut join = join("a");
            edit(&mut join);
            assert_eq!(check_join(&join), Ok(()), "{join:?}");
        }
        let refused: [(Edit, &str); 9] = [
            (|join| join.instance = "x".repeat(MAX_TEXT + 1), "over 512 bytes"),
            (|join| join.instance = "a b".into(), "not printable"),
            (|join| join.instance = "a\n".into(), "not printable"),
            (|join| join.instance = "ä".into(), "not printable"),
            (|join| join.metrics_address = "\u{1b}[2J".into(), "not printable"),
            (|join| join.device = "x".repeat(MAX_TEXT + 1), "over 512 bytes"),
            (|join| join.numerics = "cpu/f32".into(), "names no numerics"),
            (|join| join.ring_address = "here".into(), "--ring-address"),
            (|join| join.speeds = vec![speed("cpu-int8-r2"), speed("cpu-int8-r2")], "two speeds of cpu-int8-r2"),
        ];
        for (edit, why) in refused {
            let mut join = join("a");
            edit(&mut join);
            let said = check_join(&join).err().unwrap_or_default();
            assert!(said.contains(why), "{why} is not in {said:?}");
        }
    }
}
