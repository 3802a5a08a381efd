//! Phones fail, and the client does not notice.

use std::time::Duration;

use polyphony_gateway::{DeploymentRoute, GatewayConfig};
use polyphony_protocol::frame::FailureCode;
use polyphony_protocol::session::History;
use polyphony_protocol::{Epoch, PlanGeneration, RingId};
use serde_json::json;

use crate::house::{
    ANSWER, House, PROMPT, Streamed, TOKENIZER, config, deployment, end_token, ring_a, ring_a_next, ring_b, table,
    tokens,
};
use crate::phones::{Act, Step};

/// Where the ring fails: within the credit window, so that tokens before it are on their way.
const AT: u32 = 6;

/// The first placement does `act` at [`AT`], all others work.
fn once(act: Act) -> impl Fn(Step) -> Act + Send + Sync + 'static {
    move |step| {
        if step.key.epoch == Epoch(1) && step.idx == AT { act } else { Act::Token }
    }
}

fn assert_unbroken(streamed: &Streamed) {
    let mut expected: Vec<u64> = tokens(ANSWER).into_iter().map(u64::from).collect();
    expected.push(end_token().into());
    assert_eq!(streamed.text(), ANSWER);
    assert_eq!(streamed.token_ids(), expected);
    assert!(streamed.is_done);
}

async fn stream(house: &House) -> Streamed {
    house.stream(json!({"return_token_ids": true})).await
}

#[tokio::test]
async fn whatever_fails_in_the_middle_the_stream_is_unbroken() {
    let acts = [
        Act::Fail(FailureCode::PeerGone),
        Act::Fail(FailureCode::PeerSlow),
        Act::Fail(FailureCode::Busy),
        Act::Fail(FailureCode::Compute),
        Act::Fail(FailureCode::StaleGeneration),
        Act::Skip,
        Act::Hold,
    ];
    for act in acts {
        // Only silence is found by waiting.
        let patience = if act == Act::Hold { Duration::from_millis(500) } else { config().inter_token_deadline };
        let config = GatewayConfig { inter_token_deadline: patience, ..config() };
        let house = House::with(config, deployment(vec![ring_a()]), once(act));
        assert_unbroken(&stream(&house).await);
        let prompts = house.phones.prompts();
        assert_eq!(prompts.len(), 2, "{act:?}");
        let so_far = [tokens(PROMPT), tokens(ANSWER)[..AT as usize].to_vec()].concat();
        assert_eq!((&prompts[1].tokens, prompts[1].key.epoch), (&so_far, Epoch(2)), "{act:?}");
        assert_eq!(house.phones.closed(), [prompts[0].key, prompts[1].key], "{act:?}");
        assert_eq!(house.metric("polyphony_replays_total"), 1.0);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_has_all_the_text_of_its_tokens() {
    let house = House::new(once(Act::Fail(FailureCode::BadFrame)));
    let said = TOKENIZER.decode(&tokens(ANSWER)[..AT as usize], false);
    // The end of it may be the beginning of that.
    let stop = format!("{}?!", &said[said.len() - 3..]);
    let streamed = house.stream(json!({"stop": stop})).await;
    assert_eq!(streamed.text(), said);
    assert_eq!(streamed.events.last().unwrap()["error"]["code"], "session_refused");
    assert!(!streamed.is_done);
}

#[tokio::test]
async fn the_answer_is_the_same_with_the_same_options_after_a_replay() {
    let house = House::new(once(Act::Fail(FailureCode::Compute)));
    house.complete(json!({"temperature": 1})).await;
    let options = house.phones.options();
    assert_eq!(options[0], options[1]);
}

#[tokio::test]
async fn a_replay_tells_penalties_what_was_asked_from_what_was_answered() {
    let house = House::new(once(Act::Fail(FailureCode::Compute)));
    let fields = json!({"repetition_penalty": 1.25, "presence_penalty": 0.5, "frequency_penalty": 0.25, "min_p": 0.5});
    house.complete(fields).await;
    let options = house.phones.options();
    assert_eq!((options.len(), &options[0].sampling), (2, &options[1].sampling));
    let of = |output: &[u32]| History::new(&options[0].sampling, &tokens(PROMPT), output);
    assert_eq!(options[0].history, of(&[]));
    assert_eq!(options[1].history, of(&tokens(ANSWER)[..AT as usize]));
    assert_ne!(options[0].history, options[1].history);
}

#[tokio::test]
async fn a_lost_phone_moves_the_session_to_another_replica() {
    for phone in ["a-head", "a-middle", "a-tail"] {
        let house = House::with(config(), deployment(vec![ring_a(), ring_b()]), once(Act::Gone(phone)));
        assert_unbroken(&stream(&house).await);
        let rings: Vec<_> = house.phones.prompts().iter().map(|prompt| prompt.key.ring).collect();
        assert_eq!(rings, [RingId(1), RingId(2)], "{phone}");
    }
}

#[tokio::test]
async fn an_interrupted_session_waits_for_the_next_plan() {
    let house = House::with(config(), deployment(vec![ring_a()]), once(Act::Gone("a-tail")));
    let plan = async {
        house.until("the session has left its ring", |house| !house.phones.closed().is_empty()).await;
        house.routes.send_replace(table(deployment(vec![])));
        // A request that comes now is told why, while the old one waits.
        let (status, _) = house.post("/v1/completions", json!({"model": "tiny", "prompt": "a"})).await;
        assert_eq!(status, 503);
        house.routes.send_replace(table(deployment(vec![ring_a_next()])));
    };
    let (streamed, ()) = tokio::join!(stream(&house), plan);
    assert_unbroken(&streamed);
    let generations: Vec<_> = house.phones.prompts().iter().map(|prompt| prompt.key.generation).collect();
    assert_eq!(generations.last(), Some(&PlanGeneration(2)), "{generations:?}");
}

#[tokio::test]
async fn late_tokens_of_the_epoch_before_are_not_heard() {
    let house = House::new(|step| match (step.key.epoch, step.idx) {
        (Epoch(1), AT) => Act::Fail(FailureCode::PeerGone),
        (Epoch(2), _) => Act::AfterOldOnes,
        _ => Act::Token,
    });
    assert_unbroken(&stream(&house).await);
    assert!(house.metric("polyphony_ignored_frames_total") > 0.0);
}

#[tokio::test]
async fn repeated_tokens_and_tokens_of_other_phones_are_not_heard() {
    for act in [Act::Twice, Act::FromHead] {
        let house = House::new(move |_| act);
        assert_unbroken(&stream(&house).await);
        assert_eq!(house.phones.prompts().len(), 1, "{act:?}");
        assert!(house.metric("polyphony_ignored_frames_total") > 0.0, "{act:?}");
    }
}

#[tokio::test]
async fn a_session_that_fails_again_and_again_ends_with_what_happened() {
    let config = || GatewayConfig { max_replays: 3, ..config() };
    let fail = |step: Step| {
        if step.idx < AT { Act::Token } else { Act::Fail(FailureCode::Compute) }
    };
    let house = House::with(config(), deployment(vec![ring_a()]), fail);
    let streamed = stream(&house).await;
    assert_eq!(streamed.token_ids().len(), AT as usize);
    let error = &streamed.events.last().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("session_lost"), &json!("server_error")));
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("3 replays") && message.contains("a-tail") && message.contains("told to by the test"),
        "{message}"
    );
    assert!(!streamed.is_done && streamed.finish_reasons().is_empty());
    assert_eq!(house.phones.prompts().len(), 4);

    let house = House::with(config(), deployment(vec![ring_a()]), fail);
    let (status, body) = house.post("/v1/completions", crate::house::request(json!({}))).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (503, &json!("session_lost")));
    assert!(house.is_idle());
}

#[tokio::test]
async fn a_session_that_gets_on_between_failures_is_replayed_as_often_as_it_takes() {
    let house = House::with(GatewayConfig { max_replays: 1, ..config() }, deployment(vec![ring_a()]), |step| {
        // Each placement brings three tokens.
        if step.idx == step.key.epoch.0 * 3 { Act::Fail(FailureCode::Busy) } else { Act::Token }
    });
    assert_unbroken(&stream(&house).await);
    assert!(house.metric("polyphony_replays_total") > 5.0);
}

#[tokio::test]
async fn a_session_that_the_phones_refuse_is_not_replayed() {
    let house = House::new(once(Act::Fail(FailureCode::BadFrame)));
    let streamed = stream(&house).await;
    assert_eq!(streamed.events.last().unwrap()["error"]["code"], "session_refused");
    assert_eq!(house.phones.prompts().len(), 1);
}

#[tokio::test]
async fn an_answer_of_a_model_whose_numbers_are_none_ends_with_its_name_and_is_not_replayed() {
    let house = House::new(once(Act::Fail(FailureCode::NonFinite)));
    let unsound = house.gateway.unsound_models();
    assert!(unsound.borrow().is_empty());
    let streamed = stream(&house).await;
    let error = &streamed.events.last().unwrap()["error"];
    assert_eq!((&error["code"], streamed.is_done), (&json!("model_unsound"), false));
    assert!(error["message"].as_str().unwrap().contains("`tiny`"), "{error}");
    assert_eq!((house.phones.prompts().len(), house.is_idle()), (1, true));
    assert!(unsound.borrow()["tiny"].contains("told to by the test"), "by the digest of its manifest");
}

#[tokio::test]
async fn without_a_first_token_in_time_the_session_is_replayed() {
    let config = GatewayConfig { first_token_deadline: Duration::from_millis(50), ..config() };
    let house = House::with(config, deployment(vec![ring_a(), ring_b()]), |step| {
        if step.key.ring == RingId(1) { Act::Hold } else { Act::Token }
    });
    assert_unbroken(&stream(&house).await);
}

/// The ring loses its middle at [`AT`], and the table becomes what `change` makes of a deployment without rings; what the stream ends with.
async fn lost(config: GatewayConfig, change: impl Fn(&mut DeploymentRoute)) -> serde_json::Value {
    let house = House::with(config, deployment(vec![ring_a()]), once(Act::Gone("a-middle")));
    let mut route = deployment(vec![]);
    change(&mut route);
    let plan = async {
        house.until("the session has left its ring", |house| !house.phones.closed().is_empty()).await;
        house.routes.send_replace(table(route));
    };
    let (streamed, ()) = tokio::join!(stream(&house), plan);
    assert!(!streamed.is_done && house.is_idle());
    assert_eq!(streamed.token_ids().len(), AT as usize);
    streamed.events.last().unwrap()["error"].clone()
}

/// What a session waits for by [`config`] is longer than any test, but for these.
fn waiting(replay_deadline: Duration, no_plan_deadline: Duration) -> GatewayConfig {
    let suspicion = Duration::from_secs(3600);
    let long = Duration::from_secs(3600);
    GatewayConfig { queue_deadline: long, replay_deadline, no_plan_deadline, suspicion, ..config() }
}

const SOON: Duration = Duration::from_millis(300);
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_replay_that_finds_no_ring_in_time_says_so() {
    let error = lost(waiting(SOON, NEVER), |route| route.is_planned = true).await;
    assert_eq!(error["code"], "no_ring");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("within 0 s") && message.contains("2 of 3 phones are Ready"), "{message}");
}

#[tokio::test]
async fn an_interrupted_answer_for_which_no_ring_is_to_come_ends_soon_with_the_reason() {
    let error = lost(waiting(NEVER, SOON), |_| ()).await;
    assert_eq!(error["code"], "no_ring");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("broke off") && message.contains("2 of 3 phones are Ready"), "{message}");
}

#[tokio::test]
async fn an_interrupted_answer_whose_deployment_is_gone_ends_soon() {
    let house = House::with(waiting(NEVER, SOON), deployment(vec![ring_a()]), once(Act::Gone("a-middle")));
    let delete = async {
        house.until("the session has left its ring", |house| !house.phones.closed().is_empty()).await;
        house.routes.send_replace(std::sync::Arc::default());
    };
    let (streamed, ()) = tokio::join!(stream(&house), delete);
    let error = &streamed.events.last().unwrap()["error"];
    assert_eq!((streamed.is_done, &error["code"]), (false, &json!("no_ring")));
    assert!(error["message"].as_str().unwrap().contains("its deployment is gone"), "{error}");
}

#[tokio::test]
async fn a_request_that_waits_for_a_ring_which_is_lost_without_another_is_refused_soon() {
    let route = DeploymentRoute { max_sessions: 1, ..deployment(vec![ring_a()]) };
    let house = House::with(waiting(NEVER, SOON), route, |_| Act::Hold);
    let lose = async {
        house.until("one request waits", |house| house.gateway.sessions_waiting("tiny") == 1).await;
        house.routes.send_replace(table(deployment(vec![])));
    };
    let waits = async {
        house.until("the ring is taken", |house| !house.is_idle()).await;
        house.post("/v1/completions", crate::house::request(json!({}))).await
    };
    tokio::select! {
        _ = stream(&house) => panic!("its ring holds"),
        ((status, body), ()) = async { tokio::join!(waits, lose) } => {
            assert_eq!((status.as_u16(), &body["error"]["code"]), (503, &json!("model_not_ready")));
            assert!(body["error"]["message"].as_str().unwrap().contains("2 of 3 phones are Ready"), "{body}");
        }
    }
}

#[tokio::test]
async fn a_gateway_that_closes_ends_its_answers_with_an_error_to_retry() {
    let house = House::new(|step| if step.idx < AT { Act::Token } else { Act::Hold });
    let close = async {
        house.until("the ring holds", |house| house.gateway.sessions_in(RingId(1), PlanGeneration(1)) == 1).await;
        house.gateway.close();
    };
    let (streamed, ()) = tokio::join!(stream(&house), close);
    assert_eq!(streamed.events.last().unwrap()["error"]["code"], "shutting_down");
    let (status, body) = house.post("/v1/completions", crate::house::request(json!({}))).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (503, &json!("shutting_down")));
    assert!(house.is_idle());
}

/// The ring loses its tail at [`AT`], and the table becomes this route.
async fn stream_into(route: DeploymentRoute) -> Streamed {
    let house = House::with(config(), deployment(vec![ring_a()]), once(Act::Gone("a-tail")));
    let plan = async {
        house.until("the session has left its ring", |house| !house.phones.closed().is_empty()).await;
        house.routes.send_replace(table(route));
    };
    tokio::join!(stream(&house), plan).0
}

#[tokio::test]
async fn an_answer_does_not_go_on_with_another_model() {
    let other = DeploymentRoute { manifest_digest: "other".into(), ..deployment(vec![ring_a_next()]) };
    let streamed = stream_into(other).await;
    assert!(!streamed.is_done && streamed.text().len() < ANSWER.len(), "{streamed:?}");
    assert!(format!("{streamed:?}").contains("model_changed"), "{streamed:?}");
}

#[tokio::test]
async fn an_answer_ends_where_the_next_rings_context_does() {
    let n_so_far = tokens(PROMPT).len() as u32 + AT;
    for room in [0, 1, 3] {
        let route = DeploymentRoute { context_length: n_so_far + room, ..deployment(vec![ring_a_next()]) };
        let streamed = stream_into(route).await;
        assert_eq!(streamed.token_ids().len() as u32, AT + room, "{streamed:?}");
        assert_eq!(streamed.finish_reasons(), ["length"], "{streamed:?}");
    }
}
