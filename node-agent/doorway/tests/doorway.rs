//! A port as its guests meet it: who is shown out, who stays, and that nobody waits for who is silent.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::routing::{get, post};
use http::StatusCode;
use polyphony_doorway::{Doorway, Limits, is_late};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What every wait has to be over within.
const DEADLINE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);
/// Never over in a test.
const LONG: Duration = Duration::from_secs(3600);

struct House {
    address: SocketAddr,
    /// What `GET /told` streams.
    tell: mpsc::Sender<Bytes>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// No deadline.
fn patient() -> Limits {
    Limits {
        enter_within: LONG,
        head_within: LONG,
        keep_alive: LONG,
        body_pause: LONG,
        body_within: LONG,
        unread_within: LONG,
        ..Default::default()
    }
}

impl House {
    async fn open(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel::<Bytes>(1);
        let told = std::sync::Arc::new(std::sync::Mutex::new(Some(told)));
        let stream = move || {
            let mut told = told.lock().unwrap().take().unwrap();
            Body::from_stream(futures::stream::poll_fn(move |context| {
                told.poll_recv(context).map(|bytes| bytes.map(Ok::<_, Infallible>))
            }))
        };
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/told", get(async move || stream()))
            .route("/much", get(async || vec![0; 64 << 20]))
            .route("/refused", post(async || StatusCode::PAYLOAD_TOO_LARGE))
            .route("/length", post(length));
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(Doorway::new(listener, limits).serve(router, shutdown.clone()));
        Self { address, tell, shutdown, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to one request on a connection of its own.
    async fn ask(&self, path: &str) -> String {
        let mut stream = self.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }
}

async fn length(body: Result<Bytes, BytesRejection>) -> (StatusCode, String) {
    match body {
        Ok(body) => (StatusCode::OK, body.len().to_string()),
        Err(error) if is_late(&error) => (StatusCode::REQUEST_TIMEOUT, "late".to_owned()),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// All until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A connection may be closed with or without a word; either way it is over.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut all)).await.expect("it was not closed");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until what came ends in `end`.
async fn until(stream: &mut TcpStream, end: &str) {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let byte = timeout(DEADLINE, stream.read_u8()).await.expect("nothing more came");
        all.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&all))));
    }
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_shown_out() {
    let house = House::open(Limits { enter_within: SHORT, head_within: SHORT, ..patient() }).await;
    for said in ["", "G", "GET / HTTP/1.1\r\nhost: local"] {
        let mut stream = house.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{said:?}");
    }
    // A byte now and then gives nobody more time.
    let mut stream = house.connect().await;
    let (mut reads, mut writes) = stream.split();
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'y')) {
            if writes.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let mut byte = [0];
    tokio::select! {
        () = drip => {}
        read = timeout(DEADLINE, reads.read(&mut byte)) => assert!(!matches!(read.unwrap(), Ok(1..))),
    }
}

#[tokio::test]
async fn who_hears_nothing_before_all_is_sent_hears_why_it_was_refused() {
    let house = House::open(patient()).await;
    let mut stream = house.connect().await;
    for n_bytes in [32 << 20, 1 << 20] {
        // On one connection, which is as good as before.
        let head = format!("POST /refused HTTP/1.1\r\nhost: localhost\r\ncontent-length: {n_bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![0; n_bytes]).await.unwrap();
        until(&mut stream, "\r\n\r\n").await;
    }
    // Who asks first is told without.
    let mut stream = house.connect().await;
    let head = "POST /refused HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let told = rest(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 413"), "{told}");
    // What has no end is not heard to its end.
    let mut stream = house.connect().await;
    let head = format!("POST /refused HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut n_sent = 0;
    let endless = async {
        while stream.write_all(&vec![0; 1 << 20]).await.is_ok() {
            n_sent += 1;
        }
    };
    timeout(DEADLINE, endless).await.expect("it is let pass for ever");
    assert!(n_sent > 32, "{n_sent} MiB, more than any buffers take");
}

/// Whoever stands before a port, a proxy say, may take other bytes for the next request than the port does: what can be read in two ways is
/// refused, and nothing that follows it is read.
#[tokio::test]
async fn a_body_whose_length_can_be_read_in_two_ways_smuggles_no_request_in() {
    let house = House::open(patient()).await;
    let smuggled = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for lengths in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "content-length: 5, 6",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "content-length : 5",
        "transfer-encoding\u{b}: chunked",
    ] {
        let mut stream = house.connect().await;
        let head = format!("POST /length HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\n\r\nhello{smuggled}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 400") && said.matches("HTTP/1.1").count() == 1, "{lengths:?}: {said}");
    }
    // In chunks is how it is read where both are said, never by the length.
    let mut stream = house.connect().await;
    let head = "POST /length HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("\r\n\r\n5"), "{said}");
}

#[tokio::test]
async fn a_connection_may_rest_between_two_requests_but_not_for_ever() {
    let house = House::open(Limits { keep_alive: SHORT, ..patient() }).await;
    let mut stream = house.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        until(&mut stream, "\r\n\r\nok").await;
    }
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn at_a_full_port_who_is_silent_makes_room_and_who_is_answered_stays() {
    let house = House::open(Limits { connections: 4, ..patient() }).await;
    let mut answered = house.connect().await;
    answered.write_all(b"GET /told HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut answered, "\r\n\r\n").await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(house.connect().await);
    }
    assert!(timeout(DEADLINE, house.ask("/")).await.unwrap().ends_with("ok"));
    assert_eq!(rest(&mut silent[0]).await, "", "the first of the silent ones made room");
    house.tell.send(Bytes::from("still here")).await.unwrap();
    until(&mut answered, "still here\r\n").await;
}

#[tokio::test]
async fn a_crowd_of_more_than_there_are_places_keeps_nobody_waiting() {
    const PLACES: usize = 50;
    let ask = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let house = House::open(Limits { connections: PLACES, ..patient() }).await;
    let mut answered = house.connect().await;
    answered.write_all(b"GET /told HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut answered, "\r\n\r\n").await;
    let mut resting = Vec::new();
    for _ in 0..10 * PLACES {
        let mut stream = house.connect().await;
        stream.write_all(ask).await.unwrap();
        until(&mut stream, "\r\n\r\nok").await;
        resting.push(stream);
    }
    assert!(timeout(DEADLINE, house.ask("/")).await.unwrap().ends_with("ok"));
    // Who came last has its place, beside who is answered, who asked just now, and who may come next.
    let n_displaced = resting.len() - (PLACES - 3);
    for displaced in &mut resting[..n_displaced] {
        assert_eq!(rest(displaced).await, "");
    }
    for held in &mut resting[n_displaced..] {
        held.write_all(ask).await.unwrap();
        until(held, "\r\n\r\nok").await;
    }
    house.tell.send(Bytes::from("still here")).await.unwrap();
    until(&mut answered, "still here\r\n").await;
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_told_so_and_one_that_does_is_read() {
    let limits = Limits { body_pause: SHORT, ..patient() };
    let house = House::open(limits).await;
    let head = b"POST /length HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
    let ask = async |body: &[u8]| {
        let mut stream = house.connect().await;
        stream.write_all(head).await.unwrap();
        stream.write_all(body).await.unwrap();
        rest(&mut stream).await
    };
    assert!(ask(b"four").await.starts_with("HTTP/1.1 200"));
    let late = ask(b"two").await;
    assert!(late.starts_with("HTTP/1.1 408") && late.ends_with("late"), "{late}");

    // No pause is long, and yet it takes too long.
    let house = House::open(Limits { body_within: SHORT, ..patient() }).await;
    let mut stream = house.connect().await;
    stream.write_all(b"POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    let (mut reads, mut writes) = stream.split();
    let drip = async {
        while writes.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
        std::future::pending().await
    };
    let mut status = [0; 12];
    tokio::select! {
        () = drip => {}
        read = timeout(DEADLINE, reads.read_exact(&mut status)) => drop(read.unwrap().unwrap()),
    }
    assert_eq!(&status, b"HTTP/1.1 408");
}

#[tokio::test]
async fn an_answer_that_lies_unread_is_given_up() {
    let house = House::open(Limits { unread_within: SHORT, ..patient() }).await;
    let mut stream = house.connect().await;
    stream.write_all(b"GET /much HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    // Nothing is read now until the other side has given up, which is when the port has nobody left to wait for.
    house.shutdown.cancel();
    timeout(DEADLINE, house.serving).await.expect("the answer was not given up").unwrap();
    let read = rest(&mut stream).await.len();
    assert!(read < 64 << 20, "{read}");
}

#[tokio::test]
async fn at_the_end_who_rests_goes_and_who_is_answered_is_answered_first() {
    let house = House::open(patient()).await;
    let mut silent = house.connect().await;
    let mut resting = house.connect().await;
    resting.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut resting, "\r\n\r\nok").await;
    let mut answered = house.connect().await;
    answered.write_all(b"GET /told HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut answered, "\r\n\r\n").await;
    house.shutdown.cancel();
    assert_eq!(rest(&mut silent).await + &rest(&mut resting).await, "");
    house.tell.send(Bytes::from("the rest")).await.unwrap();
    drop(house.tell);
    assert!(rest(&mut answered).await.contains("the rest"));
    timeout(DEADLINE, house.serving).await.unwrap().unwrap();
}
