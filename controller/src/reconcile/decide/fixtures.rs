//! Builders of observed worlds for the tables of `decide`.
#![allow(clippy::unwrap_used)]

mod hand;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use polyphony_api::phone::{Failure, FailureReason};
use polyphony_api::{
    InferenceDeployment, InferenceDeploymentSpec, Model, ModelSpec, Phone, PhoneSpec, PhoneStatus, SegmentPlacement,
};
use polyphony_model::{Encoder, Manifest};
use polyphony_protocol::hub::{Heartbeat, Join, LinkDown, LinkReport, SegmentPhase, SegmentReport, Speed};
use polyphony_protocol::version;
use serde_json::json;

use super::{Action, decide};
use crate::hub::assignments::ring_of;
use crate::models::{Progress, Reason, Refusal, Resolved};
use crate::reconcile::observe::{ModelSeen, ObjectKey, Observed, PhoneLink, PhoneSeen, Settings};
use crate::reconcile::setbacks::{Cause, Setback};

/// A world in which actions take effect at once.
pub(super) struct World {
    pub(super) observed: Observed,
    /// Reasons and notes of all events so far.
    pub(super) told: Vec<(String, String)>,
}

pub(super) const MIB: u64 = 1 << 20;
const LAYERS: u32 = 6;
pub(super) const LAYER_MIB: u64 = 10;

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// A model of 6 layers of 10 MiB, an embedding of 4 MiB and a head of 4 MiB.
fn manifest() -> Manifest {
    let entry = |name: &str, role: &str, layer: Option<u32>, offset: u64, mib: u64| {
        let source = json!({ "ranges": [{ "file": 0, "offset": offset, "nBytes": mib * MIB }] });
        json!({ "name": name, "role": role, "layer": layer, "type": "F32", "shape": [1], "nBytes": mib * MIB, "sha256": "0".repeat(64), "source": source })
    };
    let mut tensors = vec![
        entry("token_embd.weight", "tokenEmbedding", None, 0, 4),
        entry("output.weight", "output", None, 4 * MIB, 4),
    ];
    for layer in 0..LAYERS {
        let offset = (8 + u64::from(layer) * LAYER_MIB) * MIB;
        tensors.push(entry(&format!("blk.{layer}.ffn_up.weight"), "ffnUp", Some(layer), offset, LAYER_MIB));
    }
    serde_json::from_value(json!({
        "hyperparameters": {
            "architecture": "llama", "nLayers": LAYERS, "hiddenSize": 64, "nHeads": 4, "nKvHeads": 2, "headSize": 16, "ffnSize": 128,
            "vocabSize": 256, "contextLength": 512, "normEpsilon": 1e-5,
            "rope": { "style": "pairs", "base": 10000.0, "nRotated": 16, "positionScale": 1.0, "hasFrequencyFactors": false },
            "tiedEmbedding": false,
        },
        "endTokens": [], "files": [{"name": "m.gguf", "nBytes": 100 * MIB, "sha256": "0".repeat(64)}], "tensors": tensors,
    }))
    .unwrap()
}

/// What the phone measured of a layer last, on any of its segments.
fn measured(seen: &PhoneSeen) -> Option<f64> {
    seen.heartbeat.as_ref()?.segments.iter().find_map(|report| report.seconds_per_layer)
}

impl World {
    /// A world with a resolved model `m`, an empty set of phones, and a controller that has run for an hour.
    pub(super) fn new() -> Self {
        let mut model =
            Model::new("m", ModelSpec { source: "file:///m.gguf".into(), sha256: None, token_secret_ref: None });
        model.metadata.namespace = Some("default".into());
        model.metadata.uid = Some("model-uid".into());
        model.metadata.generation = Some(1);
        let manifest = manifest();
        let digest = manifest.digest();
        let resolved = Resolved {
            path: "/m.gguf".into(),
            manifest_json: serde_json::to_vec(&manifest).unwrap().into(),
            manifest,
            digest,
        };
        let seen = ModelSeen {
            object: Arc::new(model),
            progress: Some(Progress::Resolved(Arc::new(resolved))),
            unsound: None,
        };
        let settings = Settings {
            grace_period: Duration::from_secs(30),
            startup_grace: Duration::from_secs(40),
            gateway_url: "http://127.0.0.1:8080".into(),
        };
        let observed = Observed {
            now: Timestamp::from_second(1_000_000).unwrap(),
            uptime: Duration::from_secs(3600),
            settings,
            phones: BTreeMap::new(),
            models: BTreeMap::from([(key("m"), seen)]),
            deployments: BTreeMap::new(),
            placements: BTreeMap::new(),
            sessions: BTreeMap::new(),
            readable_models: BTreeSet::new(),
            tokens_per_second: BTreeMap::new(),
            setbacks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        Self { observed, told: Vec::new() }
    }

    /// The first half of the model's layers is an encoder.
    pub(super) fn with_encoder(mut self) -> Self {
        let progress = &mut self.observed.models.get_mut(&key("m")).unwrap().progress;
        let mut manifest = manifest();
        let encoder = Encoder { n_layers: LAYERS / 2, n_buckets: 8, start_token: 0, is_gated: true };
        manifest.hyperparameters.encoder = Some(encoder);
        let manifest_json = serde_json::to_vec(&manifest).unwrap().into();
        let digest = manifest.digest();
        let resolved = Resolved { path: "/m.gguf".into(), manifest_json, manifest, digest };
        *progress = Some(Progress::Resolved(Arc::new(resolved)));
        self
    }

    /// With phones of so many MiB each, named `a`, `b`, `c` …
    pub(super) fn with_phones(mut self, mib: &[u64]) -> Self {
        for (name, mib) in ["a", "b", "c", "d", "e"].into_iter().zip(mib) {
            self.join(name, *mib);
        }
        self
    }

    pub(super) fn with_deployment(mut self, edit: impl FnOnce(&mut InferenceDeploymentSpec)) -> Self {
        let spec = serde_json::from_value(json!({ "model": "m", "contextLength": 64, "maxSessions": 1 })).unwrap();
        let mut deployment = InferenceDeployment::new("d", spec);
        edit(&mut deployment.spec);
        deployment.metadata.namespace = Some("default".into());
        deployment.metadata.uid = Some("d-uid".into());
        deployment.metadata.generation = Some(1);
        self.observed.deployments.insert(key("d"), Arc::new(deployment));
        self
    }

    pub(super) fn join(&mut self, name: &str, mib: u64) {
        let mut phone = Phone::new(name, PhoneSpec::default());
        phone.metadata.uid = Some(format!("{name}-uid"));
        phone.status = Some(PhoneStatus { public_key: Some(format!("key-{name}")), ..PhoneStatus::default() });
        let speed = Speed {
            backend: "cpu".into(),
            device: "test".into(),
            numerics: "cpu-int8".into(),
            gflops: 10.0,
            batch_gflops: 10.0,
            prefill_gflops: 0.0,
            gigabytes_per_second: 5.0,
        };
        let join = Join {
            version: version::CURRENT,
            phone: name.into(),
            agent_version: "1".into(),
            hardware: Default::default(),
            ring_address: "127.0.0.1:1".into(),
            capacity_bytes: mib * MIB,
            allocatable_bytes: mib * MIB,
            backend: "cpu".into(),
            device: "test".into(),
            numerics: "cpu-int8".into(),
            speeds: vec![speed],
            kv_caches: ["f32", "f16", "q8"].map(str::to_owned).into(),
            metrics_address: "127.0.0.1:2".into(),
            instance: "1".into(),
        };
        let seen = self.observed.phones.entry(name.to_owned()).or_default();
        let object = seen.object.take().unwrap_or_else(|| Arc::new(phone));
        *seen = PhoneSeen {
            object: Some(object),
            link: PhoneLink::Up { silent_for: Duration::ZERO, suspected_after: Duration::from_secs(1) },
            join: Some(join),
            heartbeat: Some(Heartbeat::default()),
            had_run_out: seen.had_run_out,
        };
    }

    pub(super) fn phone(&mut self, name: &str) -> &mut PhoneSeen {
        self.observed.phones.get_mut(name).unwrap()
    }

    pub(super) fn edit_phone(&mut self, name: &str, edit: impl FnOnce(&mut Phone)) {
        edit(Arc::make_mut(self.phone(name).object.as_mut().unwrap()));
    }

    pub(super) fn edit_deployment(&mut self, edit: impl FnOnce(&mut InferenceDeployment)) {
        edit(Arc::make_mut(self.observed.deployments.get_mut(&key("d")).unwrap()));
    }

    /// The link of a phone ends.
    pub(super) fn lose(&mut self, name: &str) {
        let phone = self.phone(name);
        phone.link = PhoneLink::Down;
        phone.heartbeat = None;
    }

    pub(super) fn silence(&mut self, name: &str, seconds: u64) {
        self.phone(name).link =
            PhoneLink::Up { silent_for: Duration::from_secs(seconds), suspected_after: Duration::from_secs(1) };
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.observed.now += SignedDuration::from_secs(seconds);
    }

    /// The process is killed and started again: nothing is left but the API.
    pub(super) fn restart(&mut self) {
        self.observed.uptime = Duration::ZERO;
        self.observed.sessions.clear();
        self.observed.readable_models.clear();
        self.observed.setbacks.clear();
        for seen in self.observed.phones.values_mut() {
            *seen = PhoneSeen { object: seen.object.clone(), ..PhoneSeen::default() };
        }
        for seen in self.observed.models.values_mut() {
            seen.progress = None;
        }
    }

    pub(super) fn refuse_model(&mut self, reason: Reason, message: &str) {
        let refusal = Refusal { reason, message: message.into() };
        self.observed.models.get_mut(&key("m")).unwrap().progress = Some(Progress::Refused(refusal));
    }

    /// Every linked phone reports `phase` for every placement of its own.
    pub(super) fn report(&mut self, phase: SegmentPhase) {
        self.report_of(|_| Some(phase));
    }

    /// Every linked phone reports what `phase` says of its name, for every placement of its own.
    pub(super) fn report_of(&mut self, phase: impl Fn(&str) -> Option<SegmentPhase>) {
        for placement in self.observed.placements.values() {
            let Some(phase) = phase(&placement.spec.phone) else { continue };
            let Some(seen) = self.observed.phones.get_mut(&placement.spec.phone) else {
                continue;
            };
            if !matches!(seen.link, PhoneLink::Up { .. }) {
                continue;
            }
            let report = SegmentReport {
                namespace: "default".into(),
                name: placement.name_any(),
                phase,
                bytes_loaded: 1,
                bytes_total: 1,
                seconds_per_layer: measured(seen),
                prefill_seconds_per_layer_per_token: None,
                seconds_besides_layers: None,
                layers_timed: 0,
                queued_rows: 0,
                sessions: 0,
                message: (phase == SegmentPhase::Failed).then(|| "no memory".to_owned()),
            };
            let heartbeat = seen.heartbeat.get_or_insert_default();
            heartbeat.segments.retain(|other| other.name != report.name);
            heartbeat.segments.push(report);
        }
    }

    /// A phone reports this time of a layer, with all that it reports from now on.
    pub(super) fn measure(&mut self, name: &str, seconds_per_layer: f64) {
        for report in &mut self.phone(name).heartbeat.get_or_insert_default().segments {
            report.seconds_per_layer = Some(seconds_per_layer);
        }
    }

    /// Another deployment like `d`, of that name.
    pub(super) fn add_deployment(&mut self, name: &str, edit: impl FnOnce(&mut InferenceDeploymentSpec)) {
        let mut other = self.observed.deployments[&key("d")].as_ref().clone();
        other.metadata.name = Some(name.into());
        other.metadata.uid = Some(format!("{name}-uid"));
        other.status = None;
        edit(&mut other.spec);
        self.observed.deployments.insert(key(name), other.into());
    }

    /// The API refuses the plan of a deployment's first replica, or deciding about it breaks down.
    pub(super) fn set_back(&mut self, name: &str, cause: Cause, words: &str) {
        self.set_back_replica(name, 0, cause, words);
    }

    /// The same of any replica.
    pub(super) fn set_back_replica(&mut self, name: &str, replica: u32, cause: Cause, words: &str) {
        let key = key(name);
        let generation = self.observed.deployments[&key].metadata.generation;
        let whose = cause.whose(key, Some(replica));
        let before = self.observed.setbacks.get(&whose);
        let setback = Setback::after(before, cause, words.to_owned(), generation, self.observed.uptime);
        let setback = Setback { replica: Some(replica), ..setback };
        self.observed.setbacks.insert(whose, setback);
    }

    /// What a phone's status remembers of failures: the digest or peer, and how often.
    pub(super) fn failures(&self, name: &str) -> Vec<(String, u32)> {
        let what = |failure: &Failure| failure.peer.clone().or(failure.manifest_digest.clone());
        let named = |failure: &Failure| Some((what(failure)?, failure.count));
        self.all_failures(name).iter().filter_map(named).collect()
    }

    /// And of its departures.
    pub(super) fn departures(&self, name: &str) -> u32 {
        let has_left = |failure: &&Failure| failure.reason == FailureReason::Left;
        self.all_failures(name).iter().find(has_left).map_or(0, |failure| failure.count)
    }

    fn all_failures(&self, name: &str) -> Vec<Failure> {
        let object = self.observed.phones[name].object.as_deref().unwrap();
        object.status.clone().unwrap_or_default().failures
    }

    /// `from` cannot reach `to`, or can again.
    pub(super) fn set_link(&mut self, from: &str, to: &str, is_up: bool) {
        let heartbeat = self.phone(from).heartbeat.get_or_insert_default();
        heartbeat.links_down.retain(|down| down.peer != to);
        heartbeat.links.retain(|link| link.peer != to);
        if is_up {
            heartbeat.links.push(LinkReport {
                peer: to.into(),
                round_trip_seconds: 0.002,
                bytes_per_second: None,
                is_relayed: false,
            });
        } else {
            heartbeat.links_down.push(LinkDown { peer: to.into(), reason: "connection refused".into() });
        }
    }

    /// `from` cannot dial `to`, and has measured the way over the hub; or that leads there no more.
    pub(super) fn set_relayed(&mut self, from: &str, to: &str, round_trip_seconds: Option<f64>) {
        self.set_link(from, to, false);
        let heartbeat = self.phone(from).heartbeat.get_or_insert_default();
        let link = |round_trip_seconds| LinkReport {
            peer: to.into(),
            round_trip_seconds,
            bytes_per_second: Some(1e7),
            is_relayed: true,
        };
        heartbeat.links.extend(round_trip_seconds.map(link));
    }

    /// Placements of that generation, by stage.
    pub(super) fn generation(&self, number: u64) -> Vec<&SegmentPlacement> {
        let placements = self.observed.placements.values().map(AsRef::as_ref);
        let mut found: Vec<_> = placements.filter(|placement| placement.spec.plan_generation == number).collect();
        found.sort_by_key(|placement| placement.spec.stage);
        found
    }

    /// Rounds until nothing is left to do; gives all actions but statuses and stories.
    pub(super) fn settle(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        for _ in 0..20 {
            let actions = decide(&self.observed);
            if actions.is_empty() {
                return done;
            }
            for action in actions {
                self.carry_out(&action);
                let is_said = matches!(
                    action,
                    Action::Tell(_)
                        | Action::SetPhoneStatus { .. }
                        | Action::SetModelStatus { .. }
                        | Action::SetPlacementStatus { .. }
                        | Action::SetDeploymentStatus { .. }
                );
                if !is_said {
                    done.push(action);
                }
            }
        }
        panic!("decisions do not come to rest: {:?}", decide(&self.observed));
    }

    /// A deployment that is planned, loaded and available, and that somebody has asked.
    pub(super) fn serving(mut self) -> Self {
        self.settle();
        self.report(SegmentPhase::Ready);
        let digests = self.observed.placements.values().map(|placement| placement.spec.manifest_digest.clone());
        self.observed.readable_models = digests.collect();
        self.settle();
        assert_eq!(self.condition("Available"), "True Serving");
        self.told.clear();
        self
    }

    /// Phones of each generation that is not being deleted, as `g1: a b`.
    pub(super) fn generations(&self) -> Vec<String> {
        let mut found: BTreeMap<(u32, u64), Vec<(u32, String)>> = BTreeMap::new();
        for placement in
            self.observed.placements.values().filter(|placement| placement.metadata.deletion_timestamp.is_none())
        {
            let spec = &placement.spec;
            found.entry((spec.replica, spec.plan_generation)).or_default().push((spec.stage, spec.phone.clone()));
        }
        let describe = |(number, mut stages): (u64, Vec<(u32, String)>)| {
            stages.sort();
            let mut phones: Vec<_> = stages.into_iter().map(|(_, phone)| phone).collect();
            phones.sort();
            format!("g{number}: {}", phones.join(" "))
        };
        found.into_iter().map(|((_, number), stages)| describe((number, stages))).collect()
    }

    /// Status and reason of the deployment's condition.
    pub(super) fn condition(&self, type_: &str) -> String {
        self.condition_of("d", type_)
    }

    pub(super) fn condition_of(&self, name: &str, type_: &str) -> String {
        let status = self.observed.deployments[&key(name)].status.clone().unwrap_or_default();
        let found = polyphony_api::condition::find(&status.conditions, type_);
        found.map(|found| format!("{} {}", found.status, found.reason)).unwrap_or_default()
    }

    pub(super) fn message(&self, type_: &str) -> String {
        let status = self.observed.deployments[&key("d")].status.clone().unwrap_or_default();
        polyphony_api::condition::find(&status.conditions, type_).map(|found| found.message.clone()).unwrap_or_default()
    }

    pub(super) fn has_told(&self, reason: &str) -> bool {
        self.told.iter().any(|(told, _)| told == reason)
    }

    /// Sessions run in every generation that exists.
    pub(super) fn busy(&mut self, n_sessions: usize) {
        let rings = self.observed.placements.values().map(|placement| (ring_of(placement), n_sessions));
        self.observed.sessions = rings.collect();
    }
}
