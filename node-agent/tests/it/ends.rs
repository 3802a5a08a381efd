//! Real agents: who is gone leaves no session behind, and whoever can be told of it is.

use std::path::{Path, PathBuf};

use polyphony_protocol::frame::{Failed, FailureCode, Hello};
use polyphony_protocol::session::Sampling;
use polyphony_protocol::{Frame, PlanGeneration, version};

use crate::floor::{Floor, RING};
use crate::hub::{PATIENCE, phone};

const PROMPT: [u32; 3] = [7, 100, 42];
/// As many as a plan of the floor has slots.
const ALL_SLOTS: u64 = 3;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf")
}

/// As the first of two stages greets the other.
fn hello() -> Hello {
    Hello {
        version: version::CURRENT,
        ring: RING,
        generation: PlanGeneration(1),
        phone: "phone-0".into(),
        from_stage: 0,
        to_stage: 1,
    }
}

/// Begins as many sessions as there are slots, each with a token and no credit for more.
async fn fill(floor: &mut Floor, first: u64) {
    for session in first..first + ALL_SLOTS {
        floor.start(session, 1, &PROMPT, Sampling::default(), 1).await;
        floor.until_tokens(session, PROMPT.len() + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_back_finds_every_slot_free() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    fill(&mut floor, 1).await;
    floor.restart_host().await;
    // Nobody has closed the sessions of before.
    fill(&mut floor, 11).await;
    assert_eq!(floor.failures, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_made_between_join_and_welcome_is_not_lost() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    floor.lose_host().await;
    let mut both = [floor.hub.hear().await, floor.hub.hear().await];
    both.sort_by(|a, b| a.join.phone.cmp(&b.join.phone));
    let [mut head, mut tail] = both;
    floor.hub.send_welcome(&mut head, version::CURRENT).await;
    floor.take_back(head);
    // The host begins a session while the tail has not read its welcome; the token is made by then.
    floor.start(1, 1, &PROMPT, Sampling::default(), 1).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The tail tells the head too.
    while floor.metric_of(1, "polyphony_sent_frames_total", &[("kind", "token")]).await < Some(1.0) {
        assert!(tokio::time::Instant::now() < deadline, "no token is made");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    floor.hub.send_welcome(&mut tail, version::CURRENT).await;
    floor.take_back(tail);
    floor.until_tokens(1, PROMPT.len() + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_taken_away_ends_its_sessions_with_a_word() {
    let mut floor = Floor::open(&model(), 1).await;
    floor.plan(1, &[(0, 0, 4, None)], None).await;
    fill(&mut floor, 1).await;
    floor.drop_plan(1).await;
    floor.until("each session's end is told", |floor| floor.failures.len() == ALL_SLOTS as usize).await;
    let is_stale = |failed: &Failed| failed.code == FailureCode::StaleGeneration && failed.message.contains("released");
    assert!(floor.failures.iter().all(is_stale), "{:?}", floor.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_connection_that_takes_the_place_of_another_ends_its_sessions_by_name() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    fill(&mut floor, 1).await;
    let hello = hello();
    let wire = floor.hub.wire_of("phone-0");
    let mut link = wire.dial(&floor.phones[1].ring_address, &phone("phone-1"), PATIENCE).await.unwrap();
    link.writer.write(&Frame::Hello(hello)).await.unwrap();
    assert_eq!(link.reader.next_within(PATIENCE).await.unwrap(), Frame::Accepted);
    let is_told = |failed: &Failed| failed.code == FailureCode::PeerGone && failed.message.contains("took its place");
    floor.until("phone-1 tells of its sessions", |floor| floor.failures.iter().any(is_told)).await;
    // Both phones are free of them.
    for phone in 0..2 {
        floor.until_metric(phone, "polyphony_segment_sessions", 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_link_is_taken_from_this_plans_neighbour_alone() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    fill(&mut floor, 1).await;
    let good = hello();
    let address = floor.phones[1].ring_address.clone();
    let old = ("phone-0", good.clone());
    let table = [
        // Phones of the same host, certified as they should be, that are nobody in this plan.
        (("phone-9", good.clone()), "is not the phone of stage 0"),
        (("phone-1", good.clone()), "is not the phone of stage 0"),
        (("phone-9", Hello { phone: "phone-9".into(), ..good.clone() }), "is not the phone of stage 0"),
        // The neighbour, with what is not of this plan.
        (("phone-0", Hello { from_stage: 1, ..good.clone() }), "sends nothing"),
        (("phone-0", Hello { to_stage: 0, ..good.clone() }), "sends nothing"),
        (("phone-0", Hello { generation: PlanGeneration(2), ..good.clone() }), "holds no segment"),
        (("phone-0", Hello { ring: polyphony_protocol::RingId(RING.0 + 1), ..good }), "holds no segment"),
    ];
    for ((name, hello), why) in table {
        let said = greet(&floor.hub.wire_of(name), &address, hello.clone()).await;
        assert!(matches!(&said, Frame::Refused(said) if said.contains(why)), "{name} {hello:?}: {said:?}");
    }
    assert_eq!(floor.failures, [], "the sessions of the ring have not heard of it");
    floor.plan(2, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    floor.drop_plan(1).await;
    let said = greet(&floor.hub.wire_of(old.0), &address, old.1).await;
    assert!(
        matches!(&said, Frame::Refused(said) if said.contains("holds no segment")),
        "of an old generation: {said:?}"
    );
}

async fn greet(wire: &polyphony_wire::Wire, address: &str, hello: Hello) -> Frame {
    let mut link = wire.dial(address, &phone("phone-1"), PATIENCE).await.unwrap();
    link.writer.write(&Frame::Hello(hello)).await.unwrap();
    link.reader.next_within(PATIENCE).await.unwrap()
}
