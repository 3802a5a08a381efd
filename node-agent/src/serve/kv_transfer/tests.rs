//! Who sends which rows, and in which order they come.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use polyphony_protocol::hub::Way;
use polyphony_protocol::{Epoch, PlanGeneration, RingId, RouteKey, SessionId};
use proptest::prelude::*;

use super::*;

fn key(generation: u32) -> RouteKey {
    RouteKey {
        ring: RingId(1),
        generation: PlanGeneration(generation),
        session: SessionId(1),
        epoch: Epoch(generation),
    }
}

fn owner(phone: &str, from: u32, to: u32) -> Owner {
    Owner {
        phone: phone.into(),
        ways: vec![Way::direct("127.0.0.1:1")],
        key: String::new(),
        layers: LayerSpan { from, to },
    }
}

fn followed() -> Followed {
    let owners = vec![owner("a", 0, 4), owner("b", 4, 9), owner("c", 9, 12)];
    Followed { generation: PlanGeneration(1), owners }
}

fn pull(layers: &[(u32, u32)]) -> Pull {
    let layers = layers.iter().map(|&(from, to)| LayerRange { from, to }).collect();
    Pull { key: key(2), from: key(1), layers, n_positions: 10 }
}

#[test]
fn each_layer_comes_from_who_held_it() {
    type Layers = &'static [(u32, u32)];
    type Parts = &'static [(&'static str, u32, u32)];
    let table: [(Layers, Parts); 4] = [
        (&[(0, 4)], &[("a", 0, 4)]),
        (&[(3, 5)], &[("a", 3, 4), ("b", 4, 5)]),
        (&[(2, 10)], &[("a", 2, 4), ("b", 4, 9), ("c", 9, 10)]),
        (&[(0, 1), (11, 12)], &[("a", 0, 1), ("c", 11, 12)]),
    ];
    for (layers, expected) in table {
        let parts = sources(&pull(layers), Some(&followed())).unwrap();
        let parts: Vec<_> = parts.iter().map(|(owner, span)| (owner.phone.as_str(), span.from, span.to)).collect();
        assert_eq!(parts, expected, "{layers:?}");
    }
}

#[test]
fn layers_that_nobody_held_are_named() {
    for (layers, followed) in [
        (&[(11, 13)][..], Some(followed())),
        (&[(0, 1)], None),
        (&[(0, 1)], Some(Followed { generation: PlanGeneration(5), ..followed() })),
    ] {
        let error = sources(&pull(layers), followed.as_ref()).unwrap_err();
        assert!(matches!(error, PullError::Unknown { .. }), "{error}");
        assert!(error.to_string().contains("generation g1"), "{error}");
    }
}

fn rows(layer: u32, position: u32, n_positions: u32) -> KvRows {
    KvRows { key: key(1), layer, position, n_positions, values: Bytes::new() }
}

#[test]
fn rows_come_by_layer_and_position_without_a_gap() {
    assert_eq!(after((3, 0), &rows(3, 0, 6), 10), Some((3, 6)));
    assert_eq!(after((3, 6), &rows(3, 6, 4), 10), Some((4, 0)));
    for wrong in [rows(3, 5, 5), rows(3, 7, 3), rows(4, 6, 4), rows(3, 6, 5), rows(3, 6, 0), rows(3, 6, u32::MAX)] {
        assert_eq!(after((3, 6), &wrong, 10), None, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_transfer_ends_when_who_fetches_goes_on_with_nothing_any_more() {
    let successor =
        |phone: &str| Successor { phone: phone.into(), key: "k".into(), layers: LayerSpan { from: 0, to: 4 } };
    let assignment = Assignment {
        namespace: "default".into(),
        name: "chat-0".into(),
        ring: RingId(1),
        generation: PlanGeneration(1),
        plan_digest: String::new(),
        stage: 0,
        holds: polyphony_protocol::hub::Holds { embedding: true, from: 0, to: 4, head: true },
        peers: Vec::new(),
        manifest_digest: String::new(),
        context_length: 64,
        max_sessions: 1,
        session_groups: 0,
        activation_type: polyphony_protocol::ActivationType::F16,
        numerics_class: String::new(),
        standby: None,
        follows: None,
        successors: vec![successor("a"), successor("b")],
        encoder: None,
    };
    let request = KvRequest {
        version: version::CURRENT,
        phone: "a".into(),
        key: key(1),
        layers: LayerSpan { from: 0, to: 4 },
        n_positions: 10,
    };
    let (tell, told) = watch::channel(assignment);
    let transfer = tokio::spawn(async move { until_parted(&request, &Proof::Plain, &told).await });
    // That of another goes, and this one's stays.
    tell.send_modify(|now| now.successors.retain(|one| one.phone == "a"));
    tokio::task::yield_now().await;
    assert!(!transfer.is_finished());
    tell.send_modify(|now| now.successors.clear());
    tokio::time::timeout(std::time::Duration::from_secs(60), transfer).await.unwrap().unwrap();
}

proptest! {
    /// Whatever comes: either it is in its place and brings the end nearer, or it is refused.
    #[test]
    fn no_rows_lead_outside(layer in 0u32..4, position in any::<u32>(), n_positions in any::<u32>(), due in (0u32..4, 0u32..10)) {
        if let Some(next) = after(due, &rows(layer, position, n_positions), 10) {
            prop_assert!((layer, position) == due && next > due && next.1 < 10);
        }
    }
}
