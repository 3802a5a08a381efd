//! Sessions move to the next generation of their ring, and the client does not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polyphony_gateway::{GatewayConfig, RingRoute};
use polyphony_protocol::session::History;
use polyphony_protocol::{Epoch, Frame, PlanGeneration, RingId};
use serde_json::json;

use crate::house::{
    ANSWER, House, PROMPT, Streamed, config, deployment, end_token, request, ring_a, ring_a_next, ring_a_third, ring_b,
    table, tokens,
};
use crate::phones::{Act, Stuck};

/// Where the ring stands when the next plan is ready.
const AT: u32 = 6;

/// Holds at [`AT`] until it moves.
fn house(config: GatewayConfig, rings: Vec<RingRoute>) -> House {
    House::with(config, deployment(rings), |step| {
        if step.key.epoch == Epoch(1) && step.idx == AT { Act::Hold } else { Act::Token }
    })
}

fn following(ring: RingRoute, before: u32) -> RingRoute {
    RingRoute { follows: Some(PlanGeneration(before)), ..ring }
}

fn assert_unbroken(streamed: &Streamed) {
    let mut expected: Vec<u64> = tokens(ANSWER).into_iter().map(u64::from).collect();
    expected.push(end_token().into());
    assert_eq!(streamed.text(), ANSWER);
    assert_eq!(streamed.token_ids(), expected);
    assert!(streamed.is_done);
}

/// A stream during which, at [`AT`], the table becomes these rings.
async fn stream_over(house: &House, rings: Vec<RingRoute>) -> Streamed {
    let fields = json!({"return_token_ids": true, "repetition_penalty": 1.25});
    let plan = async {
        house
            .until("the ring has a session", |house| house.gateway.sessions_in(RingId(1), PlanGeneration(1)) == 1)
            .await;
        house.routes.send_replace(table(deployment(rings)));
    };
    tokio::join!(house.stream(fields), plan).0
}

fn n_computed() -> u32 {
    tokens(PROMPT).len() as u32 + AT - 1
}

#[tokio::test]
async fn a_session_moves_with_its_kv_cache_and_sends_nothing_twice() {
    let house = house(config(), vec![ring_a()]);
    assert_unbroken(&stream_over(&house, vec![following(ring_a_next(), 1)]).await);
    let (resumes, prompts) = (house.phones.resumes(), house.phones.prompts());
    let [resume] = resumes.as_slice() else { panic!("{resumes:?}") };
    let [first, second] = prompts.as_slice() else { panic!("{prompts:?}") };
    assert_eq!((resume.from, resume.from_epoch), (PlanGeneration(1), Epoch(1)));
    assert_eq!((resume.key.generation, resume.key.epoch), (PlanGeneration(2), Epoch(2)));
    assert!(resume.position <= n_computed());
    // The one token that is not computed yet, and nothing before it.
    let all = [tokens(PROMPT), tokens(ANSWER)].concat();
    assert_eq!((second.key, second.position), (resume.key, resume.position));
    assert_eq!(second.tokens, [all[resume.position as usize]]);
    // Penalties go on where they were.
    let answered = &all[tokens(PROMPT).len()..=resume.position as usize];
    assert_eq!(resume.options.history, History::new(&resume.options.sampling, &tokens(PROMPT), answered));
    assert_eq!(house.phones.closed(), [first.key, second.key]);
    // The old ring is left only when the new one has all, and before the new one goes on.
    let order = house.phones.frames(|frame| match frame {
        Frame::Pause { .. } => Some("pause"),
        Frame::Resume(_) => Some("resume"),
        Frame::Close { .. } => Some("close"),
        Frame::Prompt(_) => Some("prompt"),
        _ => None,
    });
    assert_eq!(order, ["prompt", "pause", "resume", "close", "prompt", "close"]);
    assert_eq!(house.metric("polyphony_replays_total"), 0.0);
    assert_eq!(house.metric("polyphony_hand_over_failures_total"), 0.0);
    assert_eq!(house.metric("polyphony_hand_over_seconds_count"), 1.0);
    assert_eq!(house.gateway.sessions_in(RingId(1), PlanGeneration(2)), 0);
    assert!(house.is_idle());
}

#[tokio::test]
async fn a_move_that_gets_stuck_becomes_a_replay_and_nothing_is_lost() {
    let all = [
        Stuck::Pausing,
        Stuck::Resuming(0),
        Stuck::Resuming(1),
        Stuck::Failed,
        Stuck::Gone("a-spare"),
        Stuck::Gone("a-head"),
    ];
    for stuck in all {
        let config = GatewayConfig {
            hand_over_deadline: Duration::from_millis(300),
            inter_token_deadline: Duration::from_secs(1),
            ..config()
        };
        let house = house(config, vec![ring_a()]);
        *house.phones.stuck.lock().unwrap() = Some(stuck);
        let mut rings = vec![following(ring_a_next(), 1)];
        if matches!(stuck, Stuck::Gone(_)) {
            // Another replica takes over from a ring that lost a phone.
            rings.push(ring_b());
        }
        assert_unbroken(&stream_over(&house, rings).await);
        assert_eq!(house.metric("polyphony_replays_total"), 1.0, "{stuck:?}");
        assert_eq!(house.metric("polyphony_hand_over_failures_total"), 1.0, "{stuck:?}");
        assert_eq!(house.metric("polyphony_hand_over_seconds_count"), 0.0, "{stuck:?}");
        // Every key that was opened or resumed and can be reached is closed.
        let mut opened = house.phones.frames(|frame| match frame {
            Frame::Open { key, .. } => Some(*key),
            Frame::Resume(resume) => Some(resume.key),
            _ => None,
        });
        if !matches!(stuck, Stuck::Gone("a-head")) {
            let mut closed = house.phones.closed();
            opened.sort_by_key(|key| key.epoch);
            closed.sort_by_key(|key| key.epoch);
            assert_eq!(opened, closed, "{stuck:?}");
        }
        let epochs: Vec<_> = opened.iter().map(|key| key.epoch.0).collect();
        assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{stuck:?}: {epochs:?}");
    }
}

#[tokio::test]
async fn sessions_do_not_take_a_kv_cache_into_another_numerics_class() {
    let house = house(config(), vec![ring_a()]);
    let other = RingRoute { numerics_class: "vulkan-f32/f16".into(), ..following(ring_a_next(), 1) };
    assert_unbroken(&stream_over(&house, vec![other]).await);
    assert_eq!((house.phones.resumes().len(), house.metric("polyphony_replays_total")), (0, 1.0));
    assert_eq!(house.phones.prompts()[1].key.generation, PlanGeneration(2));
}

#[tokio::test]
async fn a_generation_that_moves_no_sessions_leaves_them_where_they_are() {
    let published = RingRoute { moves_sessions: false, ..following(ring_a_next(), 1) };
    for next in [ring_a_next(), published] {
        let is_free = Arc::new(AtomicBool::new(false));
        let hook = {
            let is_free = is_free.clone();
            move |step: crate::phones::Step| {
                if step.idx == AT && !is_free.load(Ordering::Relaxed) { Act::Hold } else { Act::Token }
            }
        };
        let house = House::with(config(), deployment(vec![ring_a()]), hook);
        let second = async {
            house
                .until("the ring has a session", |house| house.gateway.sessions_in(RingId(1), PlanGeneration(1)) == 1)
                .await;
            house.routes.send_replace(table(deployment(vec![next.clone()])));
            is_free.store(true, Ordering::Relaxed);
            house.complete(json!({})).await;
        };
        let (streamed, ()) = tokio::join!(house.stream(json!({"return_token_ids": true})), second);
        assert_unbroken(&streamed);
        let pauses = house.phones.frames(|frame| matches!(frame, Frame::Pause { .. }).then_some(()));
        let generations: Vec<_> = house.phones.prompts().iter().map(|prompt| prompt.key.generation.0).collect();
        assert_eq!((pauses.len(), generations), (0, vec![1, 2]), "{next:?}");
    }
}

#[tokio::test]
async fn a_session_moves_on_when_the_next_but_one_plan_comes_while_it_moves() {
    // The second generation waits for one of its stages until the third is there, which follows the second or the first.
    for (before, n_moves) in [(2, 2), (1, 0)] {
        let config = GatewayConfig { hand_over_deadline: Duration::from_millis(500), ..config() };
        let house = house(config, vec![ring_a()]);
        *house.phones.stuck.lock().unwrap() = Some(Stuck::Resuming(1));
        let third = async {
            house.until("the session is on its way", |house| !house.phones.resumes().is_empty()).await;
            house.routes.send_replace(table(deployment(vec![following(ring_a_third(), before)])));
            *house.phones.stuck.lock().unwrap() = None;
            let Some(resume) = house.phones.resumes().pop() else { panic!("it was there") };
            if before == 2 {
                let (key, position) = (resume.key, resume.position);
                house.gateway.deliver("a-spare", Frame::Resumed { key, stage: 1, position });
            }
        };
        let (streamed, ()) = tokio::join!(stream_over(&house, vec![following(ring_a_next(), 1)]), third);
        assert_unbroken(&streamed);
        let last = house.phones.prompts().pop().map(|prompt| prompt.key.generation);
        assert_eq!(last, Some(PlanGeneration(3)));
        assert_eq!(house.metric("polyphony_hand_over_seconds_count"), f64::from(n_moves));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_during_a_move_leaves_nothing_behind() {
    let house = house(config(), vec![ring_a()]);
    *house.phones.stuck.lock().unwrap() = Some(Stuck::Resuming(0));
    let resumed = house.until("the session is on its way", |house| !house.phones.resumes().is_empty());
    tokio::select! {
        _ = stream_over(&house, vec![following(ring_a_next(), 1)]) => panic!("it cannot end"),
        () = resumed => {}
    }
    house.until("both rings are told", |house| house.phones.closed().len() == 2).await;
    house
        .until("no place is taken", |house| {
            house.is_idle() && house.gateway.sessions_in(RingId(1), PlanGeneration(2)) == 0
        })
        .await;
    assert_eq!(house.metric("polyphony_requests_running"), 0.0);
    assert_eq!(house.metric("polyphony_hand_over_failures_total"), 0.0);
}

#[tokio::test]
async fn a_request_between_two_plans_waits_for_the_next() {
    let mut between = deployment(vec![]);
    between.is_planned = true;
    let house = House::with(config(), between, |_| Act::Token);
    let plan = async {
        house.until("the request waits", |house| house.gateway.sessions_waiting("tiny") == 1).await;
        house.routes.send_replace(table(deployment(vec![ring_a()])));
    };
    let (streamed, ()) = tokio::join!(house.stream(json!({"return_token_ids": true})), plan);
    assert_unbroken(&streamed);
}

#[tokio::test]
async fn a_request_that_hoped_for_a_plan_is_told_when_there_is_none() {
    let mut between = deployment(vec![]);
    between.is_planned = true;
    let house = House::with(config(), between, |_| Act::Token);
    let no_plan = async {
        house.until("the request waits", |house| house.gateway.sessions_waiting("tiny") == 1).await;
        house.routes.send_replace(table(deployment(vec![])));
    };
    let ((status, answer), ()) = tokio::join!(house.post("/v1/completions", request(json!({}))), no_plan);
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (503, &json!("model_not_ready")), "{answer}");
}
