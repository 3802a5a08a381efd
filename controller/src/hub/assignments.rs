//! Assignments: what each phone is to hold, derived from the placements that name it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use polyphony_api::SegmentPlacement;
use polyphony_api::inference_deployment::ActivationType as ApiActivationType;
use polyphony_protocol::hub::{Assignment, EncoderStages, Followed, Holds, LayerSpan, Owner, Peer};
use polyphony_protocol::{ActivationType, PlanGeneration, RingId};
use sha2::{Digest, Sha256};

use crate::secret::Secret;

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

/// What every phone is to hold, of plans that are written to their end. `ring_addresses` are those of the phones that can be dialled.
///
/// `host_key` is the host's own: the secrets of rings are made of it.
///
/// A placement that is being deleted stays assigned until its finalizer is gone: its sessions still run.
pub fn derive<'a>(
    placements: impl IntoIterator<Item = &'a SegmentPlacement> + Clone,
    ring_addresses: &BTreeMap<String, String>,
    host_key: &Secret,
) -> Assigned {
    let mut rings: BTreeMap<(RingId, PlanGeneration), Vec<Peer>> = BTreeMap::new();
    for placement in placements.clone() {
        let spec = &placement.spec;
        rings.entry(ring_of(placement)).or_default().push(Peer {
            stage: spec.stage,
            phone: spec.phone.clone(),
            ring_address: ring_addresses.get(&spec.phone).cloned().unwrap_or_default(),
            layers: Some(LayerSpan { from: spec.holds.from, to: spec.holds.to }),
        });
    }
    for peers in rings.values_mut() {
        peers.sort_by_key(|peer| peer.stage);
    }
    let stages = stages(placements.clone());
    let owners = owners(&stages, &rings);
    let encoders = encoders(placements.clone());
    let mut assigned = Assigned::new();
    for placement in placements {
        let spec = &placement.spec;
        let (ring, generation) = ring_of(placement);
        let peers = rings.get(&(ring, generation)).cloned().unwrap_or_default();
        // Until every stage of the ring is written, its neighbours are not known; and stages of two plans are no ring.
        if stages.get(&(ring, generation)).is_none_or(|stages| !is_whole(stages)) {
            continue;
        }
        assigned.entry(spec.phone.clone()).or_default().push(Assignment {
            namespace: placement.namespace().unwrap_or_default(),
            name: placement.name_any(),
            ring,
            generation,
            ring_secret: ring_secret(host_key, ring, generation),
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
            follows: followed(placement, &owners, host_key),
            encoder: encoders.get(&(ring, generation)).copied(),
        });
    }
    for segments in assigned.values_mut() {
        segments.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }
    assigned
}

/// The stages at which encoders end and decoding begins, of generations whose placements tell both.
fn encoders<'a>(
    placements: impl IntoIterator<Item = &'a SegmentPlacement>,
) -> BTreeMap<(RingId, PlanGeneration), EncoderStages> {
    let mut ends: BTreeMap<(RingId, PlanGeneration), (Option<u32>, Option<u32>)> = BTreeMap::new();
    for placement in placements {
        let spec = &placement.spec;
        let Some(n_layers) = spec.encoder_layers else { continue };
        let (last, first_decoder) = ends.entry(ring_of(placement)).or_default();
        if spec.holds.from < n_layers {
            *last = (*last).max(Some(spec.stage));
        }
        if spec.holds.to > n_layers {
            *first_decoder = Some(first_decoder.map_or(spec.stage, |first| first.min(spec.stage)));
        }
    }
    let whole = |(ring, (last, first_decoder)): (_, (Option<u32>, Option<u32>))| {
        Some((ring, EncoderStages { last: last?, first_decoder: first_decoder? }))
    };
    ends.into_iter().filter_map(whole).collect()
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
        ring_address: peer.ring_address.clone(),
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
fn followed(
    placement: &SegmentPlacement,
    owners: &BTreeMap<(RingId, PlanGeneration), Vec<Owner>>,
    host_key: &Secret,
) -> Option<Followed> {
    let (ring, _) = ring_of(placement);
    let generation = PlanGeneration(u32::try_from(placement.spec.follows?).ok()?);
    let owners = owners.get(&(ring, generation))?.clone();
    Some(Followed { generation, ring_secret: ring_secret(host_key, ring, generation), owners })
}

/// What the phones of a generation know each other by. Nobody makes it who has not the key, which the host keeps to itself:
/// neither the join token nor the secrets of other generations lead to it.
fn ring_secret(host_key: &Secret, ring: RingId, generation: PlanGeneration) -> String {
    host_key.derive(&format!("ring/{ring}/{generation}"))
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
    use super::*;

    #[test]
    fn a_rings_secret_is_known_to_who_has_the_hosts_key_and_told_apart_by_generation() {
        let key = Secret::new("k");
        let secret = |generation| ring_secret(&key, RingId(7), PlanGeneration(generation));
        assert_eq!(secret(1), secret(1));
        assert_ne!(secret(1), secret(2));
        assert_ne!(secret(1), ring_secret(&Secret::new("t"), RingId(7), PlanGeneration(1)));
        // HMAC-SHA-256 (RFC 2104), so that no secret can be lengthened into another.
        assert_eq!(
            Secret::new("key").derive("The quick brown fox jumps over the lazy dog"),
            "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
        );
    }
}
