//! Who is let in by the hub, and what ends a link.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use polyphony_protocol::hub::{Heartbeat, ToAgent, ToHub};
use polyphony_protocol::version::{self, ProtocolVersion};
use polyphony_protocol::{Frame, encode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::agent::{self, join, next, send};
use super::farm::Farm;

async fn refusal(farm: &Farm, join: polyphony_protocol::hub::Join) -> String {
    agent::start(&farm.endpoints.hub, join).await.err().expect("the agent was let in")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    assert!(refusal(&farm, join("phone-1", "guess", 64)).await.contains("join token"));
    assert!(refusal(&farm, join("Phone 1", &farm.token, 64)).await.contains("no name for a phone"));
    let mut old = join("phone-1", &farm.token, 64);
    old.version = ProtocolVersion { major: 0, minor: 9 };
    assert!(refusal(&farm, old).await.contains("update"));
    farm.stop().await;
}

/// A frame as a program of another minor version writes it.
async fn send_as(stream: &mut TcpStream, minor: u8, frame: &Frame) {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes);
    bytes[5] = minor;
    stream.write_all(&bytes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_one_minor_version_apart_is_a_phone_and_one_further_apart_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let newer = |minors: u8| ProtocolVersion { minor: version::CURRENT.minor + minors, ..version::CURRENT };
    let join_as = async |name: &str, version: ProtocolVersion| {
        let mut stream = TcpStream::connect(&farm.endpoints.hub).await.unwrap();
        let mut join = join(name, &farm.token, 64);
        join.version = version;
        send_as(&mut stream, version.minor, &Frame::ToHub(ToHub::Join(join))).await;
        let answer = next(&mut stream, &mut BytesMut::new()).await.unwrap();
        (stream, answer)
    };
    let (mut stream, answer) = join_as("phone-1", newer(1)).await;
    let Frame::ToAgent(ToAgent::Welcome(welcome)) = answer else { panic!("{answer:?}") };
    assert_eq!(welcome.version, version::CURRENT);
    let heartbeat = Frame::ToHub(ToHub::Heartbeat(Heartbeat::default()));
    send_as(&mut stream, newer(1).minor, &heartbeat).await;
    farm.phone_condition("phone-1", "Ready", "True").await;

    let (_stream, answer) = join_as("phone-2", newer(2)).await;
    let Frame::ToAgent(ToAgent::Refused { reason }) = answer else { panic!("{answer:?}") };
    for word in ["phone-2", &newer(2).to_string(), &version::CURRENT.to_string(), "update"] {
        assert!(reason.contains(word), "{reason}");
    }
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_taken_while_its_phone_answers_and_free_when_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let living = farm.agent("phone-1").await;
    assert!(refusal(&farm, join("phone-1", &farm.token, 64)).await.contains("linked already"));
    drop(living);
    let again = farm.agent("phone-1").await;
    drop(again);

    // A link that is open, but never answers, makes way.
    let mut mute = TcpStream::connect(&farm.endpoints.hub).await.unwrap();
    send(&mut mute, &Frame::ToHub(ToHub::Join(join("phone-2", &farm.token, 64)))).await;
    let answer = next(&mut mute, &mut BytesMut::new()).await;
    assert!(matches!(answer, Some(Frame::ToAgent(ToAgent::Welcome(_)))), "{answer:?}");
    let _agent = farm.agent("phone-2").await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_a_link_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let _agent = farm.agent("phone-1").await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0, 1, 2, 3]] {
        let mut stream = TcpStream::connect(&farm.endpoints.hub).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        assert_eq!(next(&mut stream, &mut BytesMut::new()).await, None);
    }
    farm.phone_condition("phone-1", "Ready", "True").await;
    farm.stop().await;
}
