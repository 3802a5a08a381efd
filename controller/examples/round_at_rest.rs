//! How long a reconcile round takes when nothing has changed: 200 phones, 40 deployments that serve, and a few noisy heartbeats.
//!
//! `cargo run -p polyphony-controller --example round_at_rest -- [--json]` prints the median and the worst of all rounds, from what is
//! observed to what is to be done; with `--json` one object a round. Reading the API and writing to it are not in it, and at rest nothing
//! is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use polyphony_api::{InferenceDeployment, Model, ModelSpec, Phone, PhoneSpec};
use polyphony_controller::metrics::Metrics;
use polyphony_controller::models::{Progress, Resolved};
use polyphony_controller::reconcile::decide::{Action, decide_with};
use polyphony_controller::reconcile::observe::{ModelSeen, ObjectKey, Observed, PhoneLink, PhoneSeen, Settings};
use polyphony_controller::reconcile::planner::RememberingPlanner;
use polyphony_protocol::hub::{Heartbeat, Join, LinkReport, SegmentPhase, SegmentReport, Speed};
use polyphony_protocol::version;
use serde_json::json;

const PHONES: usize = 200;
const DEPLOYMENTS: usize = 40;
const LAYERS: u32 = 32;
const MIB: u64 = 1 << 20;
const ROUNDS: usize = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_for_programs = std::env::args().any(|argument| argument == "--json");
    let mut observed = world()?;
    let planner = RememberingPlanner::new(Arc::new(Metrics::new(&prometheus::Registry::new(), [])));
    let round = |observed: &Observed| {
        planner.begin_round();
        let began = Instant::now();
        let decision = decide_with(observed, &|question| planner.plan(question));
        (began.elapsed(), decision.actions().cloned().collect::<Vec<_>>())
    };
    // Until all is planned, loaded, measured, and nothing moves any more.
    let began = Instant::now();
    for seconds in 0..400 {
        let (_, actions) = round(&observed);
        let is_quiet = actions.is_empty() && seconds > 120;
        actions.into_iter().for_each(|action| carry_out(&mut observed, action));
        heartbeats(&mut observed, seconds);
        observed.now += SignedDuration::from_secs(1);
        if is_quiet {
            break;
        }
    }
    let (n_placements, planning) = (observed.placements.len(), began.elapsed().as_secs_f64());
    let (mut times, mut n_actions) = (Vec::new(), 0);
    for at in 0..ROUNDS {
        heartbeats(&mut observed, 1000 + at as i64);
        observed.now += SignedDuration::from_secs(1);
        let (took, actions) = round(&observed);
        n_actions += actions.len();
        actions.into_iter().for_each(|action| carry_out(&mut observed, action));
        times.push(took);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    if is_for_programs {
        times.iter().for_each(|time| println!("{}", json!({ "round_ms": ms(*time), "placements": n_placements })));
        return Ok(());
    }
    times.sort();
    println!("{n_placements} placements after {planning:.1} s of planning");
    println!(
        "{PHONES} phones, {DEPLOYMENTS} deployments at rest: a round takes {:.1} ms in the median, {:.1} ms at worst, and {n_actions} things were done in {ROUNDS} rounds",
        ms(times[times.len() / 2]),
        ms(times[times.len() - 1]),
    );
    Ok(())
}

/// The same for everyone: a splitmix64 of `seed`, in [0, 1).
fn random(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn world() -> Result<Observed, Box<dyn std::error::Error>> {
    let tensor = |name: String, role: &str, layer: Option<u32>, offset: u64| {
        let source = json!({ "ranges": [{ "file": 0, "offset": offset, "nBytes": 20 * MIB }] });
        json!({ "name": name, "role": role, "layer": layer, "type": "F32", "shape": [1], "nBytes": 20 * MIB, "sha256": "0".repeat(64), "source": source })
    };
    let mut tensors = vec![
        tensor("token_embd.weight".into(), "tokenEmbedding", None, 0),
        tensor("output.weight".into(), "output", None, 20 * MIB),
    ];
    tensors.extend((0..LAYERS).map(|layer| {
        tensor(format!("blk.{layer}.ffn_up.weight"), "ffnUp", Some(layer), (2 + u64::from(layer)) * 20 * MIB)
    }));
    let manifest: polyphony_model::Manifest = serde_json::from_value(json!({
        "hyperparameters": {
            "architecture": "llama", "nLayers": LAYERS, "hiddenSize": 64, "nHeads": 4, "nKvHeads": 2, "headSize": 16, "ffnSize": 128,
            "vocabSize": 256, "contextLength": 512, "normEpsilon": 1e-5, "tiedEmbedding": false,
            "rope": { "style": "pairs", "base": 10000.0, "nRotated": 16, "positionScale": 1.0, "hasFrequencyFactors": false },
        },
        "endTokens": [], "files": [{"name": "m.gguf", "nBytes": 700 * MIB, "sha256": "0".repeat(64)}], "tensors": tensors,
    }))?;
    let mut model =
        Model::new("m", ModelSpec { source: "file:///m.gguf".into(), sha256: None, token_secret_ref: None });
    model.metadata.namespace = Some("default".into());
    model.metadata.uid = Some("m".into());
    let digest = manifest.digest();
    let manifest_json = serde_json::to_vec(&manifest)?.into();
    let resolved = Resolved { path: "/m.gguf".into(), manifest_json, manifest, digest };
    let seen =
        ModelSeen { object: Arc::new(model), progress: Some(Progress::Resolved(Arc::new(resolved))), unsound: None };
    let mut deployments = BTreeMap::new();
    for n in 0..DEPLOYMENTS {
        let mut deployment: InferenceDeployment = serde_json::from_value(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment",
            "metadata": { "name": format!("d{n:02}"), "namespace": "default", "uid": format!("d{n:02}"), "generation": 1 },
            "spec": { "model": "m", "contextLength": 64, "maxSessions": 4, "objective": if n % 2 == 0 { "Latency" } else { "Throughput" } },
        }))?;
        deployment.metadata.creation_timestamp = None;
        deployments.insert(ObjectKey::of(&deployment), Arc::new(deployment));
    }
    Ok(Observed {
        now: Timestamp::from_second(1_000_000)?,
        uptime: Duration::from_secs(3600),
        settings: Settings {
            grace_period: Duration::from_secs(30),
            startup_grace: Duration::from_secs(40),
            gateway_url: "http://127.0.0.1:8080".into(),
        },
        phones: (0..PHONES).map(|n| (name(n), phone(n))).collect(),
        models: BTreeMap::from([(ObjectKey::new("default", "m"), seen)]),
        deployments,
        placements: BTreeMap::new(),
        sessions: BTreeMap::new(),
        readable_models: BTreeSet::new(),
        tokens_per_second: BTreeMap::new(),
        setbacks: BTreeMap::new(),
        waiting: BTreeMap::new(),
        written: BTreeMap::new(),
    })
}

fn name(n: usize) -> String {
    format!("phone-{n:03}")
}

fn phone(n: usize) -> PhoneSeen {
    let mut object = Phone::new(&name(n), PhoneSpec::default());
    object.metadata.uid = Some(name(n));
    let gflops = 10.0 + 90.0 * random(n as u64);
    let speed = Speed {
        backend: "cpu".into(),
        device: "cpu".into(),
        numerics: "cpu-int8".into(),
        gflops,
        batch_gflops: 2.0 * gflops,
        prefill_gflops: 0.0,
        gigabytes_per_second: gflops / 5.0,
    };
    let join = Join {
        version: version::CURRENT,
        phone: name(n),
        agent_version: "1".into(),
        hardware: Default::default(),
        ring_address: "127.0.0.1:1".into(),
        capacity_bytes: 600 * MIB,
        allocatable_bytes: (250 + (250.0 * random(n as u64 + 1000)) as u64) * MIB,
        backend: "cpu".into(),
        device: "cpu".into(),
        numerics: "cpu-int8".into(),
        speeds: vec![speed],
        kv_caches: ["f32", "f16", "q8"].map(str::to_owned).into(),
        metrics_address: String::new(),
        instance: String::new(),
    };
    PhoneSeen {
        object: Some(Arc::new(object)),
        link: PhoneLink::Up { silent_for: Duration::ZERO, suspected_after: Duration::from_secs(1) },
        join: Some(join),
        heartbeat: Some(Heartbeat::default()),
        had_run_out: false,
    }
}

/// What phones say at that second: the same, but for noise.
fn heartbeats(observed: &mut Observed, seconds: i64) {
    let noise = |n: usize, of: u64| 1.0 + 0.06 * (random(n as u64 * 7919 + of * 104_729 + seconds as u64) - 0.5);
    for (n, seen) in observed.phones.values_mut().enumerate() {
        let links = (1..=16).map(|step| {
            let peer = (n + step * step) % PHONES;
            let own = |phone: usize| 0.001 + 0.004 * random(phone as u64 + 5000);
            LinkReport {
                peer: name(peer),
                round_trip_seconds: 2.0 * (own(n) + own(peer)) * noise(n, step as u64),
                bytes_per_second: Some(5e6 * (1.0 + random(n.min(peer) as u64 + 9000)) * noise(n, 100 + step as u64)),
                is_relayed: false,
            }
        });
        let heartbeat = seen.heartbeat.get_or_insert_default();
        heartbeat.links = links.collect();
        heartbeat.battery_percent = Some(80);
        heartbeat.charging = Some(true);
        heartbeat.temperature_celsius = Some(31.0 * noise(n, 200));
        heartbeat.segments.clear();
    }
    for (key, placement) in &observed.placements {
        let n: usize = placement.spec.phone.trim_start_matches("phone-").parse().unwrap_or(0);
        let Some(seen) = observed.phones.get_mut(&placement.spec.phone) else { continue };
        let report = SegmentReport {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            phase: SegmentPhase::Ready,
            bytes_loaded: 1,
            bytes_total: 1,
            seconds_per_layer: Some(placement.spec.planned_layer_microseconds as f64 / 1e6 * noise(n, 300)),
            prefill_seconds_per_layer_per_token: Some(1e-4),
            seconds_besides_layers: Some(1e-4),
            layers_timed: 0,
            queued_rows: 0,
            sessions: 0,
            message: None,
        };
        seen.heartbeat.get_or_insert_default().segments.push(report);
    }
}

/// Actions take effect at once.
fn carry_out(observed: &mut Observed, action: Action) {
    match action {
        Action::SetPhoneStatus { name, status } => {
            if let Some(object) = observed.phones.get_mut(&name).and_then(|seen| seen.object.as_mut()) {
                Arc::make_mut(object).status = Some(*status);
            }
        }
        Action::SetModelStatus { key, status } => {
            if let Some(seen) = observed.models.get_mut(&key) {
                Arc::make_mut(&mut seen.object).status = Some(status);
            }
        }
        Action::SetPlacementStatus { key, status } => {
            if let Some(placement) = observed.placements.get_mut(&key) {
                Arc::make_mut(placement).status = Some(status);
            }
        }
        Action::SetDeploymentStatus { key, status } => {
            if let Some(deployment) = observed.deployments.get_mut(&key) {
                Arc::make_mut(deployment).status = Some(*status);
            }
        }
        Action::CreatePlacement(mut placement) => {
            placement.metadata.creation_timestamp = Some(Time(observed.now));
            observed.placements.insert(ObjectKey::of(placement.as_ref()), Arc::new(*placement));
        }
        // Nobody's sessions have to end first.
        Action::DeletePlacement { key } => {
            observed.placements.remove(&key);
        }
        _ => {}
    }
}
