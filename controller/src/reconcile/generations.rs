//! Generations: the placements of one plan of one replica, together.

use std::collections::BTreeMap;

use kube::ResourceExt;
use polyphony_api::inference_deployment::PowerPolicy;
use polyphony_api::segment_placement::Phase;
use polyphony_api::{InferenceDeployment, SegmentPlacement};
use polyphony_protocol::hub::SegmentPhase;
use polyphony_protocol::{PlanGeneration, RingId};

use super::commitment::is_committed_by;
use super::observe::{Health, ObjectKey, Observed};
use super::power;
use crate::hub::assignments::{self, owner, ring_of};

/// One plan of one replica, as objects. Never empty.
#[derive(Clone, Debug)]
pub struct Generation<'a> {
    pub replica: u32,
    pub number: u64,
    /// By stage.
    pub segments: Vec<&'a SegmentPlacement>,
}

/// All generations of `deployment`, by replica and number. Placements of an earlier deployment of this name are left out.
pub fn of_deployment<'a>(observed: &'a Observed, deployment: &InferenceDeployment) -> Vec<Generation<'a>> {
    let uid = deployment.uid().unwrap_or_default();
    let key = ObjectKey::of(deployment);
    let mut found: BTreeMap<(u32, u64), Vec<&SegmentPlacement>> = BTreeMap::new();
    for (placement_key, placement) in &observed.placements {
        let is_own = placement_key.namespace == key.namespace
            && placement.spec.deployment == key.name
            && owner(placement).is_some_and(|owner| owner.uid == uid);
        if is_own {
            found.entry((placement.spec.replica, placement.spec.plan_generation)).or_default().push(placement);
        }
    }
    found
        .into_iter()
        .map(|((replica, number), mut segments)| {
            segments.sort_by_key(|segment| segment.spec.stage);
            Generation { replica, number, segments }
        })
        .collect()
}

/// The phase of a segment by what its phone says now; what was written before counts while the phone is awaited.
pub fn phase_of(observed: &Observed, placement: &SegmentPlacement) -> Phase {
    let written = placement.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let phone = &placement.spec.phone;
    match observed.health(phone) {
        Health::Gone | Health::Lost => Phase::Failed,
        Health::Awaited => written,
        Health::Well | Health::Suspected | Health::Silent => {
            let has_spoken = observed.phones.get(phone).is_some_and(|seen| seen.heartbeat.is_some());
            match observed.report_of(placement) {
                None if has_spoken => Phase::Pending,
                None => written,
                Some(report) => match report.phase {
                    SegmentPhase::Loading | SegmentPhase::Connecting => Phase::Loading,
                    SegmentPhase::Ready => Phase::Ready,
                    SegmentPhase::Failed => Phase::Failed,
                },
            }
        }
    }
}

// === impl Generation ===

impl<'a> Generation<'a> {
    /// Whether every stage is an object, all of one plan, whose layers join.
    pub fn is_whole(&self) -> bool {
        assignments::is_whole(&self.segments)
    }

    /// Pairs of stages of which one dials the other.
    pub fn links(&self) -> Vec<(&'a SegmentPlacement, &'a SegmentPlacement)> {
        let segment = |stage: usize| self.segments.get(stage).copied();
        let pairs = assignments::dialling(&self.segments).into_iter();
        pairs.filter_map(|(from, to)| Some((segment(from)?, segment(to)?))).collect()
    }

    /// Whether its deployment names it as written to its end.
    pub fn is_committed(&self, deployment: &InferenceDeployment) -> bool {
        self.segments.iter().all(|segment| is_committed_by(deployment, segment))
    }

    /// Whether any of its placements is being deleted: then it only drains.
    pub fn is_leaving(&self) -> bool {
        self.segments.iter().any(|segment| segment.metadata.deletion_timestamp.is_some())
    }

    /// Whether every segment is loaded and connected.
    pub fn is_ready(&self, observed: &Observed) -> bool {
        self.is_whole()
            && !self.is_leaving()
            && self.segments.iter().all(|segment| phase_of(observed, segment) == Phase::Ready)
    }

    /// Whether the gateway can use it now: ready by what its phones said on their present links.
    pub fn is_served(&self, observed: &Observed) -> bool {
        let is_reported = |segment: &&SegmentPlacement| observed.report_of(segment).is_some();
        self.is_ready(observed) && self.segments.iter().all(is_reported)
    }

    pub fn phones(&self) -> Vec<&'a str> {
        self.segments.iter().map(|segment| segment.spec.phone.as_str()).collect()
    }

    /// Phones whose layers have to go elsewhere.
    pub fn lost_phones(&self, observed: &Observed) -> Vec<&'a str> {
        self.phones().into_iter().filter(|phone| observed.health(phone).is_lost()).collect()
    }

    /// Phones that have to be left while they still answer, and why: a person wants them empty, or heat, battery or the
    /// deployment's power policy do.
    pub fn drained_phones(&self, observed: &Observed, policy: &PowerPolicy) -> Vec<(&'a str, &'static str)> {
        let why = |phone: &str| {
            let object = observed.phones.get(phone).and_then(|seen| seen.object.as_ref())?;
            if object.spec.drain {
                return Some("is to be drained");
            }
            let refusal = power::refusal(object, observed.power(phone), policy, power::Side::Inside)?;
            Some(refusal.why_left())
        };
        self.phones().into_iter().filter_map(|phone| Some((phone, why(phone)?))).collect()
    }

    /// Segments that their phones, though linked, could not load; with their phones' words.
    pub fn failures(&self, observed: &Observed) -> Vec<(&'a str, String)> {
        let failure = |segment: &&'a SegmentPlacement| {
            let report = observed.report_of(segment).filter(|report| report.phase == SegmentPhase::Failed)?;
            let why = report.message.clone().unwrap_or_else(|| "its agent does not say why: see its log".to_owned());
            Some((segment.spec.phone.as_str(), why))
        };
        self.segments.iter().filter_map(failure).collect()
    }

    pub fn ring(&self) -> (RingId, PlanGeneration) {
        self.segments.first().map_or((RingId(0), PlanGeneration(0)), |segment| ring_of(segment))
    }

    /// The generation whose sessions move to this one.
    pub fn follows(&self) -> Option<u64> {
        self.segments.first()?.spec.follows
    }

    /// Of the model that it runs.
    pub fn manifest_digest(&self) -> &'a str {
        self.segments.first().map_or("", |segment| segment.spec.manifest_digest.as_str())
    }

    pub fn numerics_class(&self) -> &'a str {
        self.segments.first().map_or("", |segment| segment.spec.numerics_class.as_str())
    }

    /// Decode speed of one session that the plan promises; `None` when it promises none.
    pub fn predicted_tokens_per_second(&self) -> Option<f64> {
        let step: u64 = self.segments.iter().map(|segment| segment.spec.predicted_step_microseconds).sum();
        (step > 0).then(|| 1e6 / step as f64)
    }
}
