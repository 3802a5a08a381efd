//! Assignments: what each phone is to hold, derived from the placements that name it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use polyphony_api::inference_deployment::ActivationType as ApiActivationType;
use polyphony_api::{SegmentPlacement, SegmentPlacementSpec};
use polyphony_protocol::hub::{Assignment, EncoderStages, Followed, Holds, LayerSpan, Owner, Peer, Successor, Way};
use polyphony_protocol::links::outgoing;
use polyphony_protocol::{ActivationType, PlanGeneration, RingId};
use sha2::{Digest, Sha256};

/// Assignments by phone.
pub type Assigned = BTreeMap<String, Vec<Assignment>>;

/// The ring of one replica: the first 8 bytes of SHA-256 over `namespace/name/uid/replica` of its deployment, little-endian.
pub fn ring_id(namespace: &str, deployment: &str, uid: &str, replica: u32) -> RingId {
    let digest = Sha256::digest(format!("{namespace}/{deployment}/{uid}/{replica}"));
    RingId(u64::from_le_bytes(*digest.first_chunk().expect("a SHA-256 has 32 bytes")))
}

/// The ring and generation that a placement belongs to.
pub fn ring_of(placement: &SegmentPlacement) -> (RingId, PlanGeneration) {
    let spec = &placement.spec;
    let uid = owner(placement).map_or("", |owner| owner.uid.as_str());
    let ring = ring_id(&placement.namespace().unwrap_or_default(), &spec.deployment, uid, spec.replica);
    // More plans than 32 bits can count are not made in a deployment's life.
    (ring, PlanGeneration(u32::try_from(spec.plan_generation).unwrap_or(u32::MAX)))
}

/// The deployment that owns a placement.
pub fn owner(placement: &SegmentPlacement) -> Option<&OwnerReference> {
    placement.owner_references().iter().find(|owner| owner.kind == "InferenceDeployment")
}

/// Whether `stages`, in order, are all the stages of one plan, and their layers join from the first to the last.
pub fn is_whole(stages: &[&SegmentPlacement]) -> bool {
    let mut from = 0;
    stages.iter().enumerate().all(|(stage, placement)| {
        let spec = &placement.spec;
        let joins = spec.holds.from == std::mem::replace(&mut from, spec.holds.to) && spec.holds.to >= spec.holds.from;
        let is_end = |stage: usize| stage + 1 == stages.len();
        joins
            && spec.stage as usize == stage
            && spec.stages as usize == stages.len()
            && spec.plan_digest == stages[0].spec.plan_digest
            && spec.holds.embedding == (stage == 0)
            && spec.holds.head == is_end(stage)
    })
}

/// What every phone is to hold, of plans that are written to their end. `ring_addresses` are those of the phones that can be dialled, `keys` what
/// they are known by: who has none is taken for nobody.
///
/// A placement that is being deleted stays assigned until its finalizer is gone: its sessions still run.
pub fn derive<'a>(
    placements: impl IntoIterator<Item = &'a SegmentPlacement> + Clone,
    ring_addresses: &BTreeMap<String, String>,
    keys: &BTreeMap<String, String>,
) -> Assigned {
    let mut rings: BTreeMap<(RingId, PlanGeneration), Vec<Peer>> = BTreeMap::new();
    for placement in placements.clone() {
        let spec = &placement.spec;
        rings.entry(ring_of(placement)).or_default().push(Peer {
            stage: spec.stage,
            phone: spec.phone.clone(),
            ways: ring_addresses.get(&spec.phone).map(Way::direct).into_iter().collect(),
            key: keys.get(&spec.phone).cloned().unwrap_or_default(),
            layers: Some(LayerSpan { from: spec.holds.from, to: spec.holds.to }),
        });
    }
    for peers in rings.values_mut() {
        peers.sort_by_key(|peer| peer.stage);
    }
    let stages = stages(placements.clone());
    let owners = owners(&stages, &rings);
    let successors = successors(&stages, &rings);
    let mut assigned = Assigned::new();
    for placement in placements {
        let spec = &placement.spec;
        let (ring, generation) = ring_of(placement);
        let mut peers = rings.get(&(ring, generation)).cloned().unwrap_or_default();
        let is_relayed = |peer: &Peer| spec.relayed.iter().any(|hop| hop.to == peer.stage) && !peer.ways.is_empty();
        peers.iter_mut().filter(|peer| is_relayed(peer)).for_each(|peer| peer.ways = vec![Way::Relayed]);
        // Until every stage of the ring is written, its neighbours are not known; and stages of two plans are no ring.
        if stages.get(&(ring, generation)).is_none_or(|stages| !is_whole(stages)) {
            continue;
        }
        assigned.entry(spec.phone.clone()).or_default().push(Assignment {
            namespace: placement.namespace().unwrap_or_default(),
            name: placement.name_any(),
            ring,
            generation,
            plan_digest: spec.plan_digest.clone().unwrap_or_default(),
            stage: spec.stage,
            holds: Holds {
                embedding: spec.holds.embedding,
                from: spec.holds.from,
                to: spec.holds.to,
                head: spec.holds.head,
            },
            peers,
            manifest_digest: spec.manifest_digest.clone(),
            context_length: spec.context_length,
            max_sessions: spec.max_sessions,
            session_groups: spec.session_groups,
            activation_type: wire_type(spec.activation_type),
            numerics_class: spec.numerics_class.clone(),
            standby: spec.standby.as_ref().map(|kept| LayerSpan { from: kept.from, to: kept.to }),
            follows: followed(placement, &owners),
            successors: successors.get(&(ring, generation)).cloned().unwrap_or_default(),
            encoder: stages.get(&(ring, generation)).and_then(|stages| encoder_of(stages)),
        });
    }
    for segments in assigned.values_mut() {
        segments.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }
    assigned
}

/// The stages at which the encoder of one plan ends and decoding begins, where its model has one and its placements tell both.
fn encoder_of(stages: &[&SegmentPlacement]) -> Option<EncoderStages> {
    let of = |is: fn(&SegmentPlacementSpec, u32) -> bool| {
        let is = move |spec: &&SegmentPlacementSpec| spec.encoder_layers.is_some_and(|n_layers| is(spec, n_layers));
        stages.iter().map(|placement| &placement.spec).filter(is).map(|spec| spec.stage)
    };
    let last = of(|spec, n_layers| spec.holds.from < n_layers).max()?;
    let first_decoder = of(|spec, n_layers| spec.holds.to > n_layers).min()?;
    Some(EncoderStages { last, first_decoder })
}

/// Which stages of one plan dial which, in order.
pub fn dialling(stages: &[&SegmentPlacement]) -> Vec<(usize, usize)> {
    let (n_stages, encoder) = (stages.len(), encoder_of(stages));
    let number = |stage: usize| u32::try_from(stage).unwrap_or(u32::MAX);
    let mut pairs: Vec<_> = (0..n_stages)
        .flat_map(|from| {
            let (next, skips) = outgoing(number(from), number(n_stages), encoder);
            next.into_iter().chain(skips).map(move |to| (from, to as usize))
        })
        .collect();
    pairs.sort_unstable();
    pairs
}

/// The placements of each generation, by stage.
fn stages<'a>(
    placements: impl IntoIterator<Item = &'a SegmentPlacement>,
) -> BTreeMap<(RingId, PlanGeneration), Vec<&'a SegmentPlacement>> {
    let mut stages: BTreeMap<_, Vec<&SegmentPlacement>> = BTreeMap::new();
    for placement in placements {
        stages.entry(ring_of(placement)).or_default().push(placement);
    }
    for of_ring in stages.values_mut() {
        of_ring.sort_by_key(|placement| placement.spec.stage);
    }
    stages
}

/// Who holds which layers of each whole generation, by stage.
fn owners(
    stages: &BTreeMap<(RingId, PlanGeneration), Vec<&SegmentPlacement>>,
    rings: &BTreeMap<(RingId, PlanGeneration), Vec<Peer>>,
) -> BTreeMap<(RingId, PlanGeneration), Vec<Owner>> {
    let owner = |(peer, placement): (&Peer, &&SegmentPlacement)| Owner {
        phone: peer.phone.clone(),
        // A plan does not say how caches travel: it is tried.
        ways: peer.ways.iter().cloned().chain((!peer.ways.is_empty()).then_some(Way::Relayed)).collect(),
        key: peer.key.clone(),
        layers: LayerSpan { from: placement.spec.holds.from, to: placement.spec.holds.to },
    };
    let whole = stages.iter().filter(|(_, stages)| is_whole(stages));
    whole
        .map(|(ring, stages)| {
            let peers = rings.get(ring).map(Vec::as_slice).unwrap_or_default();
            (*ring, peers.iter().zip(stages).map(owner).collect())
        })
        .collect()
}

/// The generation whose sessions move to that of `placement`, while it is there.
fn followed(placement: &SegmentPlacement, owners: &BTreeMap<(RingId, PlanGeneration), Vec<Owner>>) -> Option<Followed> {
    let (ring, _) = ring_of(placement);
    let generation = PlanGeneration(u32::try_from(placement.spec.follows?).ok()?);
    let owners = owners.get(&(ring, generation))?.clone();
    Some(Followed { generation, owners })
}

/// The phones of whole generations that follow a generation, by what they follow.
fn successors(
    stages: &BTreeMap<(RingId, PlanGeneration), Vec<&SegmentPlacement>>,
    rings: &BTreeMap<(RingId, PlanGeneration), Vec<Peer>>,
) -> BTreeMap<(RingId, PlanGeneration), Vec<Successor>> {
    let mut successors: BTreeMap<_, Vec<Successor>> = BTreeMap::new();
    for (ring, stages) in stages.iter().filter(|(_, stages)| is_whole(stages)) {
        let followed = stages.first().and_then(|first| u32::try_from(first.spec.follows?).ok());
        let Some(followed) = followed else { continue };
        let peers = rings.get(ring).map(Vec::as_slice).unwrap_or_default();
        let of_ring = successors.entry((ring.0, PlanGeneration(followed))).or_default();
        let successor =
            |peer: &Peer| Some(Successor { phone: peer.phone.clone(), key: peer.key.clone(), layers: peer.layers? });
        of_ring.extend(peers.iter().filter_map(successor));
    }
    for of_ring in successors.values_mut() {
        of_ring.sort();
        of_ring.dedup();
    }
    successors
}

fn wire_type(dtype: ApiActivationType) -> ActivationType {
    match dtype {
        ApiActivationType::F32 => ActivationType::F32,
        ApiActivationType::F16 => ActivationType::F16,
        ApiActivationType::Q8 => ActivationType::Q8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// Two stages of a model of six layers, the first with four.
    fn plan() -> Vec<SegmentPlacement> {
        let stage = |stage: u32, phone: &str, from: u32, to: u32| {
            let spec = json!({
                "deployment": "d", "model": "m", "manifestDigest": "0", "replica": 0, "planGeneration": 1, "planDigest": "x",
                "stage": stage, "stages": 2, "phone": phone,
                "holds": { "embedding": stage == 0, "from": from, "to": to, "head": stage == 1, "summary": "" },
                "edges": [], "contextLength": 16, "maxSessions": 1, "activationType": "f16", "numericsClass": "cpu-f32",
                "plannedBytes": 0, "predictedStepMicroseconds": 0,
            });
            let mut placement =
                SegmentPlacement::new(&format!("d-0-g1-{stage}"), serde_json::from_value(spec).unwrap());
            placement.metadata.namespace = Some("default".into());
            placement
        };
        vec![stage(0, "a", 0, 4), stage(1, "b", 4, 6)]
    }

    #[test]
    fn phones_are_told_of_whole_plans_alone_whose_layers_join() {
        type Edit = fn(&mut Vec<SegmentPlacement>);
        let table: [(&str, Edit, usize); 9] = [
            ("whole", |_| {}, 2),
            ("in another order", |plan| plan.reverse(), 2),
            ("a stage is not written yet", |plan| drop(plan.pop()), 0),
            ("a layer is missing between", |plan| plan[1].spec.holds.from = 5, 0),
            ("a layer is there twice", |plan| plan[1].spec.holds.from = 3, 0),
            ("the first layer is missing", |plan| plan[0].spec.holds.from = 1, 0),
            ("of two plans", |plan| plan[1].spec.plan_digest = Some("y".into()), 0),
            ("nobody draws tokens", |plan| plan[1].spec.holds.head = false, 0),
            ("a stage is there twice", |plan| plan[1].spec.stage = 0, 0),
        ];
        for (what, edit, expected) in table {
            let mut plan = plan();
            edit(&mut plan);
            let assigned = derive(&plan, &BTreeMap::new(), &BTreeMap::new());
            assert_eq!(assigned.values().map(Vec::len).sum::<usize>(), expected, "{what}: {assigned:?}");
        }
    }
}
