//! Real agents: sessions move from plan to plan in the middle of an answer, and say what they would have said.

use std::path::{Path, PathBuf};

use polyphony_protocol::frame::{FailureCode, KvRequest};
use polyphony_protocol::hub::{LayerSpan, Way};
use polyphony_protocol::session::Sampling;
use polyphony_protocol::{Frame, PlanGeneration, RouteKey, SessionId, version};
use polyphony_wire::Wire;

use crate::floor::{CONTEXT_LENGTH, Cut, Floor};
use crate::hub::{PATIENCE, phone};

const PROMPT: [u32; 5] = [7, 100, 42, 9, 300];
/// Tokens of a whole session: to its end.
const ALL: usize = CONTEXT_LENGTH as usize;
const PLENTY: u32 = 1000;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf")
}

fn greedy() -> Sampling {
    Sampling::default()
}

/// Draws that depend on all that was said before.
fn seeded() -> Sampling {
    Sampling {
        temperature: 1.0,
        seed: 5,
        repetition_penalty: 1.3,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..Sampling::default()
    }
}

/// What a session says that stays where it is.
async fn undisturbed(floor: &mut Floor, generation: u32, prompt: &[u32], sampling: Sampling) -> Vec<u32> {
    let session = floor.next_session();
    floor.start(session, generation, prompt, sampling, PLENTY).await;
    floor.until_tokens(session, ALL).await;
    floor.close(session).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boundary_layer_moves_there_and_back_and_the_answer_is_the_same() {
    let mut floor = Floor::open(&model(), 2).await;
    let (wide, narrow): ([Cut; 2], [Cut; 2]) =
        ([(0, 0, 2, Some((0, 3))), (1, 2, 4, Some((1, 4)))], [(0, 0, 1, Some((0, 3))), (1, 1, 4, Some((1, 4)))]);
    floor.plan(1, &wide, None).await;
    for sampling in [greedy(), seeded()] {
        let newest = *floor.plans.keys().next_back().unwrap();
        let expected = undisturbed(&mut floor, newest, &PROMPT, sampling.clone()).await;
        assert_eq!(expected.len(), ALL);
        // Plans that follow one another take the same memory and load nothing.
        let taken = "polyphony_memory_reserved_bytes";
        let fetched = "polyphony_weights_fetched_bytes_total";
        let before = [floor.metric(0, taken).await, floor.metric(1, taken).await, floor.metric(1, fetched).await];
        for n_answered in [1, 2, 40] {
            let first = *floor.plans.keys().next_back().unwrap();
            let session = floor.next_session();
            floor.start(session, first, &PROMPT, sampling.clone(), n_answered).await;
            floor.until_tokens(session, PROMPT.len() + n_answered as usize).await;
            for (generation, cuts) in (first..).zip([narrow, wide]) {
                floor.plan(generation + 1, &cuts, Some(generation)).await;
                // The head runs ahead of what is heard, and is stopped somewhere.
                let position = floor.move_to(session, generation + 1, 3).await.unwrap();
                assert!(position >= (PROMPT.len() as u32 + n_answered - 1));
                floor.drop_plan(generation).await;
                floor.until_tokens(session, position as usize + 4).await;
            }
            floor.credit(session, PLENTY).await;
            floor.until_tokens(session, ALL).await;
            assert_eq!(floor.close(session).await, expected, "moved after {n_answered}");
        }
        let after = [floor.metric(0, taken).await, floor.metric(1, taken).await, floor.metric(1, fetched).await];
        assert_eq!(before, after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_leave_a_phone_for_another_that_holds_nothing_yet() {
    sessions_leave("kv-f16").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_take_a_cache_of_8_bits_with_them_to_the_bit() {
    sessions_leave("kv-q8").await;
}

async fn sessions_leave(kept: &'static str) {
    let mut floor = Floor::open(&model(), 3).await;
    floor.kept = kept;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    let prompts: [&[u32]; 3] = [&PROMPT, &[11], &[3; 40]];
    let mut expected = Vec::new();
    for prompt in prompts {
        expected.push(undisturbed(&mut floor, 1, prompt, seeded()).await);
    }
    // All at once, and still running when they are stopped.
    for (session, prompt) in (1..).zip(prompts) {
        floor.start(session, 1, prompt, seeded(), 25).await;
    }
    floor.until_tokens(1, PROMPT.len() + 3).await;
    // The tail's layers go to the third phone, then the head's too, then all to one phone, in another order of phones.
    let plans: [&[Cut]; 3] =
        [&[(0, 0, 2, None), (2, 2, 4, None)], &[(1, 0, 1, None), (2, 1, 4, None)], &[(0, 0, 4, None)]];
    for (before, cuts) in (1..).zip(plans) {
        floor.plan(before + 1, cuts, Some(before)).await;
        let mut positions = Vec::new();
        for session in 1..=3 {
            positions.push(floor.move_to(session, before + 1, 5).await.unwrap());
        }
        floor.drop_plan(before).await;
        for (session, position) in (1..).zip(positions) {
            floor.until_tokens(session, position as usize + 2).await;
        }
    }
    for session in 1..=3 {
        floor.credit(session, PLENTY).await;
        floor.until_tokens(session, ALL).await;
        assert_eq!(floor.sessions[&session].tokens, expected[session as usize - 1], "session {session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_stopped_in_its_prompt_moves_with_its_first_token() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 3, None), (1, 3, 4, Some((1, 4)))], None).await;
    let prompt = [5; 80];
    let expected = undisturbed(&mut floor, 1, &prompt, seeded()).await;
    floor.plan(2, &[(0, 0, 1, None), (1, 1, 4, None)], Some(1)).await;
    floor.start(1, 1, &prompt, seeded(), PLENTY).await;
    let position = floor.move_to(1, 2, PLENTY).await.unwrap();
    assert!(position >= 80);
    floor.until_tokens(1, ALL).await;
    assert_eq!(floor.sessions[&1].tokens, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_kv_cache_of_an_owner_the_session_is_replayed_and_nothing_changes() {
    let mut floor = Floor::open(&model(), 3).await;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    let expected = undisturbed(&mut floor, 1, &PROMPT, seeded()).await;
    let good = floor.followed(1);
    let mut gone = good.clone();
    // A port on which nobody listens any more.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    gone.owners[1].ways = vec![Way::direct(listener.local_addr().unwrap().to_string())];
    drop(listener);
    let outsider = good.clone();
    let mut unknown = good.clone();
    unknown.owners.pop();
    let mut wrong_owner = good;
    wrong_owner.owners[1].ways = wrong_owner.owners[0].ways.clone();
    let table =
        [(gone, "phone-1"), (outsider, "has no part"), (unknown, "layers 2 to 4"), (wrong_owner, "not valid for name")];
    for (generation, (follows, why)) in (2..).zip(table) {
        let session = u64::from(generation);
        floor.start(session, 1, &PROMPT, seeded(), 9).await;
        floor.until_tokens(session, PROMPT.len() + 9).await;
        floor.outsiders = if why == "has no part" { vec!["phone-2".into()] } else { Vec::new() };
        floor.plan_after(generation, &[(0, 0, 2, None), (2, 2, 4, None)], Some(follows)).await;
        let old = floor.sessions[&session].key;
        let failed = floor.move_to(session, generation, PLENTY).await.unwrap_err();
        assert_eq!(failed.code, FailureCode::HandOver, "{failed:?}");
        assert!(failed.message.contains(why) && failed.message.contains("phone-2"), "{}", failed.message);
        // As the gateway does: both are left, and the next epoch begins anew.
        let key = floor.sessions[&session].key;
        floor.tell_head(key, Frame::Close { key }).await;
        floor.tell_head(old, Frame::Close { key: old }).await;
        floor.open_at(session, generation, 3, PLENTY).await;
        floor.until_tokens(session, ALL).await;
        assert_eq!(floor.close(session).await, expected, "{why}");
        floor.drop_plan(generation).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_opens_anew_is_not_disturbed_by_what_it_left_on_the_same_phone() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 2, Some((0, 3))), (1, 2, 4, Some((1, 4)))], None).await;
    let expected = undisturbed(&mut floor, 1, &PROMPT, seeded()).await;
    floor.plan(2, &[(0, 0, 1, None), (1, 1, 4, None)], Some(1)).await;
    // It runs on, unclosed, while its next epoch begins on the same phones.
    floor.start(1, 1, &PROMPT, seeded(), PLENTY).await;
    floor.until_tokens(1, PROMPT.len() + 4).await;
    floor.open_at(1, 2, 2, PLENTY).await;
    floor.until("the answer is whole", |floor| floor.sessions[&1].is_over).await;
    assert_eq!(floor.sessions[&1].tokens, expected);
    assert_eq!(floor.failures, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kv_cache_is_for_who_has_a_part_in_what_follows_alone() {
    let mut floor = Floor::open(&model(), 2).await;
    floor.plan(1, &[(0, 0, 2, None), (1, 2, 4, None)], None).await;
    floor.start(1, 1, &PROMPT, seeded(), 3).await;
    floor.until_tokens(1, PROMPT.len() + 3).await;
    floor.plan(2, &[(1, 0, 1, None), (0, 1, 4, None)], Some(1)).await;
    let key = floor.sessions[&1].key;
    let good = KvRequest {
        version: version::CURRENT,
        phone: "phone-0".into(),
        key,
        layers: LayerSpan { from: 2, to: 4 },
        n_positions: 7,
    };
    let address = floor.phones[1].ring_address.clone();
    let successor = floor.hub.wire_of("phone-0");
    let rows = ask(&successor, &address, &good).await;
    let Ok(rows) = rows else { panic!("{rows:?}") };
    // 2 key heads of 16 values: 64 values of 2 bytes a position.
    assert_eq!(rows, [(2, 0, 7, 7 * 64 * 2), (3, 0, 7, 7 * 64 * 2)]);
    let span = |from, to| LayerSpan { from, to };
    let table = [
        (KvRequest { phone: "phone-1".into(), ..good.clone() }, "phone-1 has no part"),
        (KvRequest { layers: span(1, 3), ..good.clone() }, "layers 1 to 3"),
        (KvRequest { layers: span(3, 3), ..good.clone() }, "layers 3 to 3"),
        (KvRequest { layers: span(2, u32::MAX), ..good.clone() }, "are not this stage's"),
        (KvRequest { n_positions: 0, ..good.clone() }, "0 positions"),
        (KvRequest { n_positions: u32::MAX, ..good.clone() }, "positions were asked for"),
        (KvRequest { n_positions: 60, ..good.clone() }, "has not computed 60 positions"),
        (KvRequest { key: RouteKey { session: SessionId(9), ..key }, ..good.clone() }, "has not computed"),
        (
            KvRequest { key: RouteKey { epoch: polyphony_protocol::Epoch(2), ..key }, ..good.clone() },
            "has not computed",
        ),
        (KvRequest { key: RouteKey { generation: PlanGeneration(3), ..key }, ..good.clone() }, "no generation g3"),
        (
            KvRequest { version: version::ProtocolVersion { major: 9, minor: 0 }, ..good.clone() },
            "differ by one minor version",
        ),
    ];
    for (request, why) in table {
        let refused = ask(&successor, &address, &request).await.expect_err(why);
        assert!(refused.contains(why), "{refused}, {why} expected");
    }
    // A phone of the same host that says it is the successor, and the successor's name with another key.
    for poser in ["phone-1", "phone-9"] {
        let refused = ask(&floor.hub.wire_of(poser), &address, &good).await.expect_err(poser);
        assert!(refused.contains("has no part"), "{refused}");
    }
    // A successor with another part: what is held here is none of those that it goes on with.
    let other = KvRequest { phone: "phone-1".into(), ..good.clone() };
    let refused = ask(&floor.hub.wire_of("phone-1"), &address, &other).await.expect_err("another's layers");
    assert!(refused.contains("layers 2 to 4 are not those that phone-1 goes on with"), "{refused}");
    // And the session goes on as if nothing had been asked.
    floor.credit(1, PLENTY).await;
    floor.until_tokens(1, ALL).await;
}

/// Asks a phone as another would: layer, position, positions and bytes of each frame of rows, or the refusal.
async fn ask(wire: &Wire, address: &str, request: &KvRequest) -> Result<Vec<(u32, u32, u32, usize)>, String> {
    let mut link = wire.dial(address, &phone("phone-1"), PATIENCE).await.unwrap();
    link.writer.write(&Frame::KvRequest(request.clone())).await.unwrap();
    let mut rows = Vec::new();
    while rows.len() < request.layers.to.saturating_sub(request.layers.from).max(1) as usize {
        match link.reader.next_within(PATIENCE).await.unwrap() {
            Frame::KvRows(one) => rows.push((one.layer, one.position, one.n_positions, one.values.len())),
            Frame::Refused(why) => return Err(why),
            other => panic!("{other:?}"),
        }
    }
    Ok(rows)
}
