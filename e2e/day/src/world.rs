//! The world as the controller sees it: its own `Observed`, with what simulated phones say in it, and its decisions carried out at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use polyphony_api::{InferenceDeployment, InferenceDeploymentSpec, Model, ModelSpec, PhoneSpec, SegmentPlacement};
use polyphony_controller::hub::assignments::ring_of;
use polyphony_controller::models::{Progress, Resolved};
use polyphony_controller::reconcile::commitment::is_committed;
use polyphony_controller::reconcile::decide::{Action, decide_with};
use polyphony_controller::reconcile::generations::{Generation, of_deployment};
use polyphony_controller::reconcile::observe::{ModelSeen, ObjectKey, Observed, PhoneLink, PhoneSeen, Settings};
use polyphony_protocol::hub::{Heartbeat, SegmentPhase, SegmentReport};

use crate::phone::Phone;
use crate::planner::Planner;
use crate::traffic::{RingKey, Traffic};

const NAMESPACE: &str = "default";
/// Of what the day's deployment is called.
const DEPLOYMENT: &str = "day";
/// The controller's own defaults.
const GRACE: Duration = Duration::from_secs(30);
const STARTUP_GRACE: Duration = Duration::from_secs(40);
/// Rounds of a step: news of one are decided on in the next.
const MOST_ROUNDS: usize = 5;

pub struct World {
    pub observed: Observed,
    planner: Planner,
}

/// What a step's rounds did.
#[derive(Debug, Default)]
pub struct Done {
    pub created: Vec<SegmentPlacement>,
    /// Reasons of what was told.
    pub told: Vec<String>,
}

// === impl World ===

impl World {
    /// With a model of that many bytes, and nobody's phones yet. No spec is a world in which nobody asks for anything.
    pub fn new(spec: Option<InferenceDeploymentSpec>, resolved: Arc<Resolved>) -> Self {
        let midnight = Timestamp::from_second(1_750_000_000 / 86_400 * 86_400).expect("it is a time of this age");
        let mut observed = Observed {
            now: midnight,
            uptime: Duration::from_secs(3600),
            settings: Settings {
                grace_period: GRACE,
                startup_grace: STARTUP_GRACE,
                gateway_url: "http://127.0.0.1:8080".into(),
            },
            phones: BTreeMap::new(),
            models: BTreeMap::new(),
            deployments: BTreeMap::new(),
            placements: BTreeMap::new(),
            sessions: BTreeMap::new(),
            readable_models: BTreeSet::from([resolved.digest.clone()]),
            tokens_per_second: BTreeMap::new(),
            setbacks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        if let Some(spec) = spec {
            let source = ModelSpec { source: "file:///model.gguf".into(), sha256: None, token_secret_ref: None };
            let mut model = Model::new(&spec.model, source);
            model.metadata.namespace = Some(NAMESPACE.into());
            model.metadata.uid = Some("model-uid".into());
            model.metadata.generation = Some(1);
            let key = ObjectKey::of(&model);
            let progress = Some(Progress::Resolved(resolved));
            observed.models.insert(key, ModelSeen { object: Arc::new(model), progress, unsound: None });
            let mut deployment = InferenceDeployment::new(DEPLOYMENT, spec);
            deployment.metadata.namespace = Some(NAMESPACE.into());
            deployment.metadata.uid = Some("deployment-uid".into());
            deployment.metadata.generation = Some(1);
            observed.deployments.insert(ObjectKey::of(&deployment), Arc::new(deployment));
        }
        Self { observed, planner: Planner::default() }
    }

    /// What its agent holds by the host's word: segments of plans that are written to their end.
    pub fn assigned(&self, phone: &str) -> Vec<(&ObjectKey, &SegmentPlacement)> {
        let placements = self.observed.placements.iter().map(|(key, placement)| (key, placement.as_ref()));
        let own = placements.filter(|(_, placement)| placement.spec.phone == phone);
        own.filter(|(_, placement)| is_committed(&self.observed, placement)).collect()
    }

    /// The generations whose plans are written to their end.
    pub fn generations(&self) -> Vec<Generation<'_>> {
        let of = |deployment: &Arc<InferenceDeployment>| {
            let found = of_deployment(&self.observed, deployment).into_iter();
            found.filter(|generation| generation.is_committed(deployment)).collect::<Vec<_>>()
        };
        self.observed.deployments.values().flat_map(of).collect()
    }

    /// Time goes by, and phones say what they know.
    pub fn see(&mut self, phones: &[Phone], now: f64, seconds: f64, suspected_after: Duration) {
        self.observed.now += SignedDuration::from_secs_f64(seconds);
        self.observed.uptime += Duration::from_secs_f64(seconds);
        let reports = self.reports(phones);
        for (phone, segments) in phones.iter().zip(reports) {
            let seen = self.observed.phones.entry(phone.name.clone()).or_insert_with(|| new_phone(&phone.name));
            if phone.is_here() {
                seen.link = PhoneLink::Up { silent_for: Duration::ZERO, suspected_after };
                seen.join.get_or_insert_with(|| phone.join());
                seen.heartbeat = Some(heartbeat(phone, segments));
            } else if !phone.is_on() {
                // A system that goes down ends its connections.
                seen.link = PhoneLink::Down;
                seen.heartbeat = None;
            } else if let (PhoneLink::Up { .. }, Some(since)) = (seen.link, phone.away_since) {
                // Who is out of reach does not say so.
                let silent_for = Duration::from_secs_f64((now - since).max(0.0));
                seen.link = PhoneLink::Up { silent_for, suspected_after };
            }
        }
    }

    /// Of each phone, what it says of its segments.
    fn reports(&self, phones: &[Phone]) -> Vec<Vec<SegmentReport>> {
        let mut by_phone: BTreeMap<&str, Vec<SegmentReport>> = BTreeMap::new();
        for generation in self.generations() {
            let is_connected = is_there(&generation, phones);
            for placement in &generation.segments {
                let key = ObjectKey::of(*placement);
                let Some(phone) = phones.iter().find(|phone| phone.name == placement.spec.phone) else { continue };
                let Some(segment) = phone.holding.segment(&key) else { continue };
                let phase = match (segment.is_loaded(), is_connected) {
                    (false, _) => SegmentPhase::Loading,
                    (true, false) => SegmentPhase::Connecting,
                    (true, true) => SegmentPhase::Ready,
                };
                let holds = &placement.spec.holds;
                let timed = segment.timed_seconds;
                let report = SegmentReport {
                    namespace: key.namespace,
                    name: key.name,
                    phase,
                    bytes_loaded: (placement.spec.planned_bytes as f64 * segment.part()) as u64,
                    bytes_total: placement.spec.planned_bytes,
                    seconds_per_layer: timed,
                    prefill_seconds_per_layer_per_token: None,
                    seconds_besides_layers: None,
                    layers_timed: timed.map_or(0, |_| holds.to - holds.from),
                    queued_rows: 0,
                    sessions: 0,
                    message: None,
                };
                by_phone.entry(placement.spec.phone.as_str()).or_default().push(report);
            }
        }
        phones.iter().map(|phone| by_phone.remove(phone.name.as_str()).unwrap_or_default()).collect()
    }

    /// The controller's rounds: what it decides is done, until it rests.
    ///
    /// # Errors
    /// When a decision breaks down, which is a fault of the controller.
    pub fn reconcile(&mut self, traffic: &Traffic) -> Result<Done> {
        let mut done = Done::default();
        for _ in 0..MOST_ROUNDS {
            let leaving = self.observed.placements.values().filter(|one| one.metadata.deletion_timestamp.is_some());
            let keys: BTreeSet<RingKey> = leaving.map(|placement| ring_of(placement)).collect();
            let sessions = traffic.leaving();
            self.observed.sessions =
                keys.into_iter().map(|key| (key, sessions.get(&key).copied().unwrap_or(0))).collect();
            let decision = decide_with(&self.observed, &|question| self.planner.plan(question));
            if let Some((subject, words)) = decision.failed.iter().next() {
                bail!("the decision on {subject} broke down: {words}");
            }
            let actions: Vec<Action> = decision.actions().cloned().collect();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match &action {
                    Action::CreatePlacement(placement) => done.created.push(placement.as_ref().clone()),
                    Action::Tell(story) => done.told.push(story.reason.clone()),
                    _ => {}
                }
                self.carry_out(action);
            }
        }
        Ok(done)
    }
}

/// Whether all phones of a generation are there, and have it in memory.
pub fn is_there(generation: &Generation<'_>, phones: &[Phone]) -> bool {
    generation.segments.iter().all(|placement| {
        let phone = phones.iter().find(|phone| phone.name == placement.spec.phone);
        let held =
            phone.filter(|phone| phone.is_here()).and_then(|phone| phone.holding.segment(&ObjectKey::of(*placement)));
        held.is_some_and(|segment| segment.is_loaded())
    })
}

fn new_phone(name: &str) -> PhoneSeen {
    let mut object = polyphony_api::Phone::new(name, PhoneSpec::default());
    object.metadata.uid = Some(format!("{name}-uid"));
    object.metadata.generation = Some(1);
    PhoneSeen { object: Some(Arc::new(object)), ..PhoneSeen::default() }
}

fn heartbeat(phone: &Phone, segments: Vec<SegmentReport>) -> Heartbeat {
    let said = phone.said().unwrap_or_default();
    Heartbeat {
        battery_percent: said.battery.percent,
        charging: said.battery.is_charging,
        temperature_celsius: said.temperature_celsius(),
        segments,
        faults: Some(Vec::new()),
        withdrawal: phone.withdrawal().cloned(),
        ..Heartbeat::default()
    }
}
