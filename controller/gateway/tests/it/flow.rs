//! Credit, queues, and clients that go away or do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use polyphony_gateway::GatewayConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::house::{ANSWER, House, config, deployment, request, ring_a, ring_b};
use crate::phones::Act;

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_own_session_and_no_other() {
    let house = House::good();
    let body = request(json!({"stream": true, "ignore_eos": true}));
    let mut unread = house.send("POST", "/v1/completions", body.to_string()).await.into_body().into_data_stream();
    let alive = unread.next().await.unwrap().unwrap();
    assert!(alive.starts_with(b": "), "a comment, before any token");
    let first = unread.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: "));
    assert_eq!(house.complete(json!({})).await["choices"][0]["text"], ANSWER);
    let session = house.phones.prompts()[0].key.session;
    // One token read, as many as fit into the queue, one on its way, and the window beyond them.
    assert!(house.phones.granted(session) <= 1 + 4 + 1 + 4, "{}", house.phones.granted(session));
    let rest = unread.fold(Vec::new(), async |mut all, part| {
        all.extend_from_slice(&part.unwrap());
        all
    });
    assert!(rest.await.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(house.phones.granted(session), 200);
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_session() {
    let config = GatewayConfig { client_deadline: Duration::from_millis(50), ..config() };
    let house = House::with(config, deployment(vec![ring_a()]), |_| Act::Token);
    let body = request(json!({"stream": true}));
    let _unread = house.send("POST", "/v1/completions", body.to_string()).await;
    house.until("the session is closed", |house| house.phones.closed().len() == 1 && house.is_idle()).await;
}

#[tokio::test]
async fn a_client_that_goes_away_closes_its_session() {
    let house = House::new(|step| if step.idx < 3 { Act::Token } else { Act::Hold });
    let body = request(json!({"stream": true}));
    let mut stream = house.send("POST", "/v1/completions", body.to_string()).await.into_body().into_data_stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    house.until("the stream's session is closed", |house| house.phones.closed().len() == 1 && house.is_idle()).await;

    tokio::select! {
        _ = house.complete(json!({})) => panic!("the ring holds the answer back"),
        () = house.until("the session runs", |house| house.phones.prompts().len() == 2) => {}
    }
    house.until("the other's too", |house| house.phones.closed().len() == 2 && house.is_idle()).await;
}

#[tokio::test]
async fn a_connection_that_ends_closes_its_session() {
    for streams in [true, false] {
        let house = House::new(|step| if step.idx < 3 { Act::Token } else { Act::Hold });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = house.gateway.router();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let body = request(json!({"stream": streams})).to_string();
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        client.write_all((head + &body).as_bytes()).await.unwrap();
        if streams {
            let mut first = [0; 12];
            client.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
        } else {
            house.until("the session runs", |house| !house.phones.prompts().is_empty()).await;
        }
        drop(client);
        house.until("the session is closed", |house| house.phones.closed().len() == 1 && house.is_idle()).await;
        server.abort();
    }
}

/// A ring that holds every answer back until the flag is up.
fn held() -> (Arc<AtomicBool>, impl Fn(crate::phones::Step) -> Act + Send + Sync + 'static) {
    let is_free = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_free);
    (is_free, move |step| if step.idx == 0 && !seen.load(Ordering::SeqCst) { Act::Hold } else { Act::Token })
}

#[tokio::test]
async fn sessions_beyond_the_rings_places_wait_and_beyond_the_queue_are_refused() {
    let (is_free, hook) = held();
    let mut route = deployment(vec![ring_a()]);
    route.max_sessions = 1;
    let house = House::with(GatewayConfig { max_waiting: 1, ..config() }, route, hook);
    let mut first = Box::pin(house.complete(json!({})));
    let mut second = Box::pin(house.complete(json!({})));
    let mut third = Box::pin(house.send("POST", "/v1/completions", request(json!({})).to_string()));
    // Each is polled only when the one before has its place: in the ring, in the queue, nowhere.
    tokio::select! {
        _ = &mut first => panic!("the ring holds the answer back"),
        () = house.until("the first runs", |house| house.phones.prompts().len() == 1) => {}
    }
    tokio::select! {
        _ = &mut second => panic!("there is one place"),
        () = house.until("the second waits", |house| house.gateway.sessions_waiting("tiny") == 1) => {}
    }
    let refused = (&mut third).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &http::HeaderValue::from(5)));
    let (_, body) = crate::house::read_json(refused).await;
    assert_eq!((&body["error"]["code"], &body["error"]["type"]), (&json!("queue_full"), &json!("rate_limit_error")));

    assert_eq!(house.phones.prompts().len(), 1);
    is_free.store(true, Ordering::SeqCst);
    // The first client goes away; its place goes to the second.
    drop(first);
    assert_eq!(second.await["choices"][0]["text"], ANSWER);
}

#[tokio::test]
async fn a_session_that_waits_too_long_for_its_place_is_told_to_come_back() {
    let (_is_free, hook) = held();
    let mut route = deployment(vec![ring_a()]);
    route.max_sessions = 1;
    let house = House::with(GatewayConfig { queue_deadline: Duration::from_millis(50), ..config() }, route, hook);
    let body = request(json!({"stream": true})).to_string();
    let _first = house.send("POST", "/v1/completions", body.clone()).await;
    let second = house.send("POST", "/v1/completions", body).await;
    assert_eq!((second.status().as_u16(), &second.headers()["retry-after"]), (503, &http::HeaderValue::from(5)));
    assert_eq!(crate::house::read_json(second).await.1["error"]["code"], "no_ring");
}

#[tokio::test]
async fn sessions_go_to_the_ring_with_the_fewest() {
    let (_is_free, hook) = held();
    let house = House::with(config(), deployment(vec![ring_a(), ring_b()]), hook);
    let body = request(json!({"stream": true})).to_string();
    let mut open = Vec::new();
    for n in 1..=4 {
        open.push(house.send("POST", "/v1/completions", body.clone()).await);
        let on = |ring: polyphony_gateway::RingRoute| house.gateway.sessions_in(ring.ring, ring.generation);
        assert_eq!(on(ring_a()).abs_diff(on(ring_b())), n % 2);
    }
}
