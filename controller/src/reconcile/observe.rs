//! Observed: everything that a decision may look at, as plain data, the time included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use polyphony_api::phone::BackendSpeed;
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement, condition};
use polyphony_gateway::Gateway;
use polyphony_protocol::hub::{Heartbeat, Join, SegmentReport};
use polyphony_protocol::{PlanGeneration, RingId};

pub use super::object_key::ObjectKey;
use super::setbacks::Setbacks;
use super::stores::Stores;
use crate::hub::assignments::ring_of;
use crate::hub::registry::{LinkState, Registry};
use crate::models::{ModelStore, Progress};

/// The world as one reconcile round sees it.
#[derive(Clone, Debug)]
pub struct Observed {
    pub now: Timestamp,
    /// Since this process began to take phones in.
    pub uptime: Duration,
    pub settings: Settings,
    /// Every phone that is an object, or linked, or was.
    pub phones: BTreeMap<String, PhoneSeen>,
    pub models: BTreeMap<ObjectKey, ModelSeen>,
    pub deployments: BTreeMap<ObjectKey, Arc<InferenceDeployment>>,
    /// By namespace and name.
    pub placements: BTreeMap<ObjectKey, Arc<SegmentPlacement>>,
    /// Sessions that the gateway has in each generation that is being deleted.
    pub sessions: BTreeMap<(RingId, PlanGeneration), usize>,
    /// Manifest digests of the models whose tokenizer the gateway has in memory.
    pub readable_models: BTreeSet<String>,
    /// Measured decode speed of deployments, by [`model_id`].
    pub tokens_per_second: BTreeMap<String, f64>,
    /// Deployments that went wrong of late, and how long each is left alone.
    pub setbacks: Setbacks,
    /// Since when deployments have waited for a plan, since the start.
    pub waiting: BTreeMap<ObjectKey, Duration>,
    /// When the status of a placement was written last, since the start.
    pub written: BTreeMap<ObjectKey, Duration>,
}

/// What a person set by flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A silent phone's layers are placed anew after this.
    pub grace_period: Duration,
    /// After a start, phones have this long to come back before they count as gone.
    pub startup_grace: Duration,
    /// Base URL of the gateway, without `/v1`.
    pub gateway_url: String,
}

/// A phone as the API and the hub know it.
#[derive(Clone, Debug, Default)]
pub struct PhoneSeen {
    pub object: Option<Arc<Phone>>,
    pub link: PhoneLink,
    /// What it said when it joined last, in this process's life.
    pub join: Option<Join>,
    /// What it said last on its present link.
    pub heartbeat: Option<Heartbeat>,
    /// Whether its lease had run out when this process started: nothing was heard of it for long before.
    pub had_run_out: bool,
}

/// How the hub sees a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PhoneLink {
    /// It has not joined since this process started.
    #[default]
    NotYet,
    Up {
        silent_for: Duration,
        suspected_after: Duration,
    },
    /// Its connection was reset or ended.
    Down,
    /// It was silent for so long that its connection was cut.
    Silenced,
    /// Nobody here has a link to phones, as in a preview: its Phone's condition tells.
    Told,
}

/// A model object and how far the host is with its file.
#[derive(Clone, Debug)]
pub struct ModelSeen {
    pub object: Arc<Model>,
    pub progress: Option<Progress>,
    /// Why answers by the file as it is are nonsense, where one was.
    pub unsound: Option<String>,
}

/// Slow, silent and gone are different things (invariant 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// Silent for longer than its round trips explain; nothing is done to it, but others are preferred.
    Suspected,
    /// Silent for so long that it is not called ready any more.
    Silent,
    /// Silent beyond the grace period: its layers are placed anew.
    Lost,
    /// Its connection ended: its layers are placed anew at once.
    Gone,
    /// The controller has just started, and the phone is given time to come back.
    Awaited,
}

/// After this silence a phone is not called ready any more.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);

/// The name by which clients call a deployment.
pub fn model_id(namespace: &str, name: &str) -> String {
    if namespace == "default" { name.to_owned() } else { format!("{namespace}/{name}") }
}

// === impl PhoneSeen ===

impl PhoneSeen {
    /// What its segments may take together now, by its own word.
    pub fn offered_bytes(&self, join: &Join) -> u64 {
        let now = self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.allocatable_bytes);
        now.map_or(join.allocatable_bytes, |now| now.min(join.allocatable_bytes))
    }

    /// Why nothing is to be computed in this class on the phone, where one of its backends failed: by its last heartbeat, or before the first
    /// one by what was written of the same life of its agent.
    pub fn fault_of(&self, numerics: &str) -> Option<&str> {
        self.faulty().find(|(of, _)| *of == numerics).map(|(_, why)| why)
    }

    /// All classes of which that is so, with why.
    pub fn faulty(&self) -> impl Iterator<Item = (&str, &str)> {
        let said = self.heartbeat.iter().flat_map(|heartbeat| heartbeat.faults.iter().flatten());
        let said = said.map(|fault| (fault.numerics.as_str(), fault.reason.as_str()));
        let status = self.object.as_ref().and_then(|object| object.status.as_ref());
        let of_this_life = status.filter(|status| {
            let instance = self.join.as_ref().map(|join| &join.instance);
            self.heartbeat.is_none() && instance.is_none_or(|instance| status.agent_instance.as_ref() == Some(instance))
        });
        let failed = |of: &&BackendSpeed| of.verified == Some(false);
        let written = of_this_life.into_iter().flat_map(|status| &status.backends).filter(failed);
        let written = written.filter_map(|of| Some((of.numerics.as_deref()?, of.fault.as_deref().unwrap_or_default())));
        said.chain(written)
    }
}

// === impl Observed ===

impl Observed {
    pub fn health(&self, phone: &str) -> Health {
        let Some(seen) = self.phones.get(phone) else {
            return self.health_of_unseen();
        };
        match seen.link {
            PhoneLink::NotYet => self.health_of_unseen(),
            PhoneLink::Down => Health::Gone,
            PhoneLink::Silenced => Health::Lost,
            PhoneLink::Told => {
                let status = seen.object.as_ref().and_then(|object| object.status.as_ref());
                let is_ready = status.is_some_and(|status| condition::is_true(&status.conditions, "Ready"));
                if is_ready { Health::Well } else { Health::Gone }
            }
            PhoneLink::Up { silent_for, suspected_after } => {
                if silent_for >= self.settings.grace_period.max(UNREACHABLE_AFTER) {
                    Health::Lost
                } else if silent_for >= UNREACHABLE_AFTER {
                    Health::Silent
                } else if silent_for > suspected_after {
                    Health::Suspected
                } else {
                    Health::Well
                }
            }
        }
    }

    /// Whether nothing has been heard of a phone that is waited for, since the start or since long before, and so it cannot be called ready.
    pub fn is_unheard(&self, phone: &str) -> bool {
        let had_run_out = self.phones.get(phone).is_some_and(|seen| seen.had_run_out);
        self.health(phone) == Health::Awaited && (had_run_out || self.uptime >= UNREACHABLE_AFTER)
    }

    fn health_of_unseen(&self) -> Health {
        if self.uptime < self.settings.startup_grace { Health::Awaited } else { Health::Gone }
    }

    /// What the phone of a placement said of it last.
    pub fn report_of(&self, placement: &SegmentPlacement) -> Option<&SegmentReport> {
        let heartbeat = self.phones.get(&placement.spec.phone)?.heartbeat.as_ref()?;
        let of = &placement.metadata;
        let (name, namespace) = (of.name.as_deref().unwrap_or_default(), of.namespace.as_deref().unwrap_or_default());
        heartbeat.segments.iter().find(|report| report.name == name && report.namespace == namespace)
    }

    /// Whether the gateway can turn text into tokens of the model with this manifest digest.
    pub fn is_readable(&self, digest: &str) -> bool {
        let is_it = |seen: &ModelSeen| matches!(&seen.progress, Some(Progress::Resolved(resolved)) if resolved.digest == digest);
        self.readable_models.contains(digest) || self.models.values().any(is_it)
    }

    /// What each phone is known by: the digest of its key, as its Phone records it. Who is being deleted is known no more.
    pub fn keys(&self) -> BTreeMap<String, String> {
        let key = |seen: &PhoneSeen| {
            let phone = seen.object.as_ref().filter(|phone| phone.metadata.deletion_timestamp.is_none())?;
            phone.status.as_ref()?.public_key.clone()
        };
        self.phones.iter().filter_map(|(name, seen)| Some((name.clone(), key(seen)?))).collect()
    }

    /// Ring addresses of the phones that are linked now.
    pub fn linked_addresses(&self) -> BTreeMap<String, String> {
        let linked = self.phones.iter().filter(|(_, seen)| matches!(seen.link, PhoneLink::Up { .. }));
        linked.filter_map(|(name, seen)| Some((name.clone(), seen.join.as_ref()?.ring_address.clone()))).collect()
    }

    /// Ring addresses by phone: of those linked, and of those not back yet after a start, as they were.
    pub fn ring_addresses(&self) -> BTreeMap<String, String> {
        let address = |seen: &PhoneSeen| match seen.link {
            PhoneLink::Up { .. } => seen.join.as_ref().map(|join| join.ring_address.clone()),
            PhoneLink::NotYet | PhoneLink::Told => seen.object.as_ref()?.status.as_ref()?.ring_address.clone(),
            PhoneLink::Down | PhoneLink::Silenced => None,
        };
        self.phones.iter().filter_map(|(name, seen)| Some((name.clone(), address(seen)?))).collect()
    }
}

// === impl Health ===

impl Health {
    /// Whether its layers have to go elsewhere.
    pub fn is_lost(self) -> bool {
        matches!(self, Health::Lost | Health::Gone)
    }

    /// Whether it may take new segments.
    pub fn takes_segments(self) -> bool {
        matches!(self, Health::Well | Health::Suspected)
    }

    /// What happened to it, for people.
    pub fn story(self) -> &'static str {
        match self {
            Health::Well => "it answers",
            Health::Suspected => "it is slow to answer",
            Health::Silent | Health::Lost => "it is silent: check its network, and whether its agent hangs",
            Health::Gone => "its link to the controller ended: start its agent again",
            Health::Awaited => "the controller has started and waits for it",
        }
    }
}

/// Where observations come from.
pub struct Sources {
    pub stores: Arc<Stores>,
    pub registry: Arc<Registry>,
    pub models: Arc<ModelStore>,
    pub gateway: Arc<Gateway>,
    /// Phones whose leases had run out when this process started.
    pub run_out: BTreeSet<String>,
    /// As the last round left them.
    pub setbacks: Mutex<Setbacks>,
}

// === impl Sources ===

impl Sources {
    /// Deployments that went wrong of late, for whoever observes.
    pub fn setbacks(&self) -> MutexGuard<'_, Setbacks> {
        // They are replaced whole.
        self.setbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at everything once.
    pub fn observe(&self, settings: Settings, uptime: Duration, instant: Instant) -> Observed {
        let unsound = self.gateway.unsound_models().borrow().clone();
        let models: BTreeMap<_, _> = self
            .stores
            .models
            .state()
            .into_iter()
            .map(|object| {
                let progress = object.uid().and_then(|uid| self.models.progress(&uid));
                let unsound = match &progress {
                    Some(Progress::Resolved(resolved)) => unsound.get(&resolved.digest).cloned(),
                    _ => None,
                };
                (ObjectKey::of(object.as_ref()), ModelSeen { object, progress, unsound })
            })
            .collect();
        self.models.tend(&models.values().filter_map(|seen| seen.object.uid()).collect(), instant);
        let deployments: BTreeMap<_, _> = self
            .stores
            .deployments
            .state()
            .into_iter()
            .map(|object| (ObjectKey::of(object.as_ref()), object))
            .collect();
        let placements: BTreeMap<_, _> =
            self.stores.placements.state().into_iter().map(|object| (ObjectKey::of(object.as_ref()), object)).collect();
        let leaving = placements.values().filter(|placement| placement.metadata.deletion_timestamp.is_some());
        let sessions = leaving
            .map(|placement| ring_of(placement))
            .map(|(ring, generation)| ((ring, generation), self.gateway.sessions_in(ring, generation)))
            .collect();
        let tokens_per_second = deployments
            .keys()
            .map(|key| model_id(&key.namespace, &key.name))
            .filter_map(|id| Some((id.clone(), self.gateway.measured_tokens_per_second(&id)?)))
            .collect();
        Observed {
            now: Timestamp::now(),
            uptime,
            settings,
            phones: self.phones(instant),
            models,
            deployments,
            placements,
            sessions,
            readable_models: self.gateway.readable_models(),
            tokens_per_second,
            setbacks: self.setbacks().clone(),
            waiting: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    fn phones(&self, instant: Instant) -> BTreeMap<String, PhoneSeen> {
        let mut phones: BTreeMap<String, PhoneSeen> = BTreeMap::new();
        for object in self.stores.phones.state() {
            let name = object.name_any();
            let had_run_out = self.run_out.contains(&name);
            phones.insert(name, PhoneSeen { object: Some(object), had_run_out, ..PhoneSeen::default() });
        }
        for (name, linked) in self.registry.snapshot(instant) {
            // A phone that is neither an object nor linked is nobody's any more: a person has deleted it.
            if !phones.contains_key(&name) && !matches!(linked.state, LinkState::Up { .. }) {
                continue;
            }
            let seen = phones.entry(name).or_default();
            seen.link = match linked.state {
                LinkState::Up { silent_for, suspected_after } => PhoneLink::Up { silent_for, suspected_after },
                LinkState::Down => PhoneLink::Down,
                LinkState::Silenced => PhoneLink::Silenced,
            };
            seen.join = Some(linked.join);
            seen.heartbeat = linked.heartbeat;
        }
        phones
    }
}
