//! Tables of decisions: models with an encoder, whose output skips stages and whose sessions stay where they are.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use polyphony_api::segment_placement::{Edge, EdgeKind};
use polyphony_protocol::hub::{EncoderStages, SegmentPhase};

use super::super::fixtures::{MIB, World};
use crate::hub::assignments;
use crate::models::Progress;
use crate::reconcile::ledger::Ledger;
use crate::reconcile::problem::brief::Brief;
use crate::reconcile::problem::census::Census;
use crate::reconcile::problem::measured::Figures;
use crate::reconcile::problem::{Request, problems};
use crate::routes;

fn over(n_phones: u32) -> World {
    World::new().with_encoder().with_phones(&[100; 5]).with_deployment(|spec| {
        spec.placement.min_phones = n_phones;
        spec.placement.max_phones = Some(n_phones);
    })
}

#[test]
fn the_encoders_output_goes_straight_to_every_stage_that_decodes() {
    let mut world = over(5);
    world.settle();
    let stages = world.generation(1);
    let holds: Vec<_> = stages.iter().map(|one| (one.spec.holds.from, one.spec.holds.to)).collect();
    // The encoder has the layers 0 to 2.
    let last = holds.iter().position(|(from, to)| (*from..*to).contains(&2)).unwrap() as u32;
    let first_decoder = holds.iter().position(|(_, to)| *to > 3).unwrap() as u32;
    for stage in &stages {
        let at = stage.spec.stage;
        let mut expected = Vec::new();
        if at < 4 && at + 1 != first_decoder {
            expected.push(Edge { to: at + 1, kind: EdgeKind::Sequential });
        }
        if at == last {
            expected.extend((first_decoder..5).filter(|to| *to != at).map(|to| Edge { to, kind: EdgeKind::Skip }));
        }
        assert_eq!(stage.spec.edges, expected, "stage {at} of {holds:?}");
        assert_eq!((stage.spec.encoder_layers, &stage.spec.standby), (Some(3), &None));
    }
    let placements = world.observed.placements.values().map(AsRef::as_ref);
    let assigned = assignments::derive(placements, &world.observed.ring_addresses(), &world.observed.keys());
    assert_eq!(assigned.len(), 5);
    for segment in assigned.values().flatten() {
        assert_eq!(segment.encoder, Some(EncoderStages { last, first_decoder }));
    }
}

#[test]
fn the_stages_of_each_half_are_told_however_the_layers_are_cut() {
    for n_phones in 1..=4 {
        let mut world = over(n_phones);
        world.settle();
        let placements = world.observed.placements.values().map(AsRef::as_ref);
        let assigned = assignments::derive(placements, &world.observed.ring_addresses(), &world.observed.keys());
        assert_eq!(assigned.len(), n_phones as usize);
        for segment in assigned.values().flatten() {
            let stages = segment.encoder.unwrap();
            assert_eq!(segment.holds.from < 3, segment.stage <= stages.last, "{segment:?}");
            assert_eq!(segment.holds.to > 3, segment.stage >= stages.first_decoder, "{segment:?}");
        }
    }
}

#[test]
fn the_first_layer_that_decodes_brings_the_embedding() {
    let world = over(5);
    let seen = world.observed.models.values().next().unwrap();
    let Some(Progress::Resolved(resolved)) = &seen.progress else { panic!("not resolved") };
    let (ledger, census) = (Ledger::default(), Census::of(&world.observed));
    let deployment = world.observed.deployments.values().next().unwrap();
    let brief = Brief::of(&world.observed, &census, deployment, &resolved.manifest, &resolved.digest);
    let request =
        Request { brief: &brief, census: &census, excluded: &BTreeSet::new(), taken: &ledger.all(), within: None };
    let problems = problems(&world.observed, &request, Figures::Raw);
    let problem = &problems.values().next().unwrap().problem;
    let &[encoding, .., last_encoding, first, decoding, last] = problem.model.layer_bytes.as_slice() else {
        panic!("{:?}", problem.model.layer_bytes)
    };
    assert_eq!(first - decoding, 4 * MIB);
    // What an encoder's layer lacks are caches, which the planner counts alike for all.
    let cache = problem.model.kv_bytes_per_token_per_layer * problem.demand.kv_tokens();
    assert_eq!((encoding, last_encoding, last), (decoding - cache, decoding - cache, decoding));
    assert_eq!(decoding, 10 * MIB);
    assert!(!problem.demand.overlap, "no layer stands by");
}

#[test]
fn sessions_and_layers_stay_where_they_are_and_the_condition_says_why() {
    let mut world = over(2).serving();
    let phones: Vec<String> = world.generation(1).iter().map(|one| one.spec.phone.clone()).collect();
    world.measure(&phones[0], 0.002);
    world.measure(&phones[1], 0.050);
    for _ in 0..3 {
        world.wait(60);
        world.settle();
    }
    assert_eq!(world.condition("Balanced"), "Unknown Disabled");
    assert!(world.message("Balanced").contains("do not move yet"), "{}", world.message("Balanced"));
    assert_eq!(world.generations().len(), 1);
    // Drained, its layers go to another phone; sessions end where they are.
    world.busy(1);
    world.edit_phone(&phones[1], |phone| phone.spec.drain = true);
    world.settle();
    let next = world.generation(2);
    assert!(!next.is_empty() && next.iter().all(|one| one.spec.follows.is_none()), "{next:?}");
    // A phone of both has room once, so those that are left count against the new ring, and do not move there.
    world.report(SegmentPhase::Ready);
    world.settle();
    let ring = routes::table(&world.observed).deployments["d"].rings[0].clone();
    assert_eq!((ring.generation.0, ring.follows.map(|of| of.0), ring.moves_sessions), (2, Some(1), false));
}
