//! Who is taken in by the hub and gets a link, and who is not.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use polyphony_api::Phone;
use polyphony_controller::door::tokens;
use polyphony_identity::{Digest, Key};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{Enrol, Remedy, ToAgent, ToHub};
use polyphony_protocol::version::{self, ProtocolVersion};
use polyphony_wire::LinkError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agent::{Device, join};
use super::farm::{Farm, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_takes_in_whom_it_was_made_for_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let enrol = async |name: &str, token: &str| farm.enrol(name, token).await.map(|_| ()).unwrap_err();
    let token = farm.token().await;
    assert!(enrol("phone-1", "guess").await.contains("join token is wrong"));
    let other = format!("{}{}", &token[..7], "a".repeat(32));
    assert!(enrol("phone-1", &other).await.contains("join token is wrong"), "its id and another secret");
    assert!(enrol("Phone 1", &token).await.contains("no name for a phone"));
    let expired = farm.token_of(|terms| terms.expires = Timestamp::UNIX_EPOCH).await;
    assert!(enrol("phone-1", &expired).await.contains("expired"));
    // One use: the device that has used it may come again, no other may.
    let labels = BTreeMap::from([("shelf".to_owned(), "left".to_owned())]);
    let shelf = farm.token_of(|terms| terms.labels = labels.clone()).await;
    let phone_1 = farm.enrol("phone-1", &shelf).await.unwrap();
    assert!(enrol("phone-2", &shelf).await.contains("used by another device"));
    let key = |path: &std::path::Path| Key::in_file(path).unwrap();
    let path = folder.path().join("device.pem");
    let once = farm.token().await;
    for _ in 0..2 {
        let hash = farm.endpoints.ca_hash;
        Device::enrol_with(key(&path), &farm.endpoints.hub, hash, &once, "phone-3").await.unwrap();
    }
    let phones = Api::<Phone>::all(farm.client.clone());
    // Deleted, it is shut out, whatever it was taken in by.
    phones.delete("phone-3", &Default::default()).await.unwrap();
    let again = Device::enrol_with(key(&path), &farm.endpoints.hub, farm.endpoints.ca_hash, &once, "phone-3").await;
    assert!(again.err().unwrap().contains("no Phone records it any more"));
    assert!(phones.get_opt("phone-3").await.unwrap().is_none());
    let phone = phones.get("phone-1").await.unwrap();
    assert_eq!(phone.metadata.labels.unwrap_or_default().get("shelf"), Some(&"left".to_owned()));
    assert_eq!(phone.status.unwrap().public_key, Some(phone_1.key.digest().to_string()));
    // The name is its own: another device gets it by a token alone that is for it, and then the first one is nobody.
    assert!(enrol("phone-1", &token).await.contains("another device is known as phone-1"));
    assert_eq!(tokens::list(&farm.client).await.unwrap().iter().filter(|kept| kept.uses_left() == 0).count(), 2);
    let bound = farm.token_of(|terms| terms.phone = Some("phone-1".into())).await;
    assert!(enrol("phone-2", &bound).await.contains("is for the phone phone-1"));
    let living = phone_1.start(join("phone-1", 64)).await.unwrap();
    let found = farm.enrol("phone-1", &bound).await.unwrap();
    let (_, answer) = phone_1.ask(join("phone-1", 64)).await;
    assert!(matches!(answer, ToAgent::Refused { remedy: Remedy::Enrol, .. }), "{answer:?}");
    found.start(join("phone-1", 64)).await.unwrap();
    drop(living);
    // A token that is deleted takes nobody in.
    assert!(tokens::delete(&farm.client, &token[..6]).await.unwrap());
    assert!(enrol("phone-9", &token).await.contains("was deleted"));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown_to_no_hub_but_the_one_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let token = farm.token().await;
    let wire = polyphony_wire::Wire::new(
        polyphony_wire::Bounds::default(),
        std::sync::Arc::new(polyphony_wire::Uncounted),
        polyphony_wire::Security::Joining,
    );
    let whom = polyphony_identity::Whom::Pinned(Digest::of_spki(b"another root"));
    let end = wire.dial(&farm.endpoints.hub, &whom, std::time::Duration::from_secs(20)).await.err();
    assert!(matches!(&end, Some(LinkError::Tls(why)) if why.contains("not the one of --ca-hash")), "{end:?}");
    // It was never sent: it is as it was.
    farm.enrol("phone-1", &token).await.unwrap();
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_one_minor_version_apart_is_a_phone_and_one_further_apart_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let newer = |minors: u8| ProtocolVersion { minor: version::CURRENT.minor + minors, ..version::CURRENT };
    let of_version = |name: &str, version| polyphony_protocol::hub::Join { version, ..join(name, 64) };
    let device = farm.device("phone-1").await;
    let (_link, answer) = device.ask(of_version("phone-1", newer(1))).await;
    let ToAgent::Welcome(welcome) = answer else { panic!("{answer:?}") };
    assert_eq!(welcome.version, version::CURRENT);
    let is_told_why = |reason: &str, name: &str, theirs: ProtocolVersion| {
        for word in [name, &theirs.to_string(), &version::CURRENT.to_string(), "update"] {
            assert!(reason.contains(word), "{reason}");
        }
    };
    let (_link, answer) = farm.device("phone-2").await.ask(of_version("phone-2", newer(2))).await;
    let ToAgent::Refused { reason, .. } = answer else { panic!("{answer:?}") };
    is_told_why(&reason, "phone-2", newer(2));
    // Its token is as it was.
    let token = farm.token().await;
    let enrol = |version| Enrol {
        version,
        phone: "phone-3".into(),
        token: token.clone(),
        request: Key::generate().unwrap().request().unwrap(),
    };
    let ask = async |enrol| Device::ask_to_enrol(&farm.endpoints.hub, farm.endpoints.ca_hash, enrol).await;
    let answer = ask(enrol(newer(2))).await;
    let ToAgent::Refused { reason, .. } = answer else { panic!("{answer:?}") };
    is_told_why(&reason, "phone-3", newer(2));
    let garbled = Enrol { request: "garbled".into(), ..enrol(version::CURRENT) };
    let answer = ask(garbled).await;
    assert!(matches!(&answer, ToAgent::Refused { reason, .. } if reason.contains("request for a certificate")));
    assert!(matches!(ask(enrol(newer(1))).await, ToAgent::Enrolled(_)));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_kept_while_its_phone_answers_and_makes_way_when_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let device = farm.device("phone-1").await;
    let living = device.start(join("phone-1", 64)).await.unwrap();
    let why = device.start(join("phone-1", 64)).await.err().unwrap();
    assert!(why.contains("linked already"), "{why}");
    drop(living);
    drop(device.start(join("phone-1", 64)).await.unwrap());

    // A link that is open, but never answers, makes way.
    let device = farm.device("phone-2").await;
    let (_mute, answer) = device.ask(join("phone-2", 64)).await;
    assert!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
    let _agent = device.start(join("phone-2", 64)).await.unwrap();
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_phone_is_shown_out_and_comes_back_with_a_token_alone() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let device = farm.device("phone-1").await;
    let mut living = device.start(join("phone-1", 64)).await.unwrap();
    farm.phone_condition("phone-1", "Ready", "True").await;
    Api::<Phone>::all(farm.client.clone()).delete("phone-1", &Default::default()).await.unwrap();
    // Its link is ended, at which the agent's task ends.
    let ended = async { while living.assigned.changed().await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap();
    let why = device.start(join("phone-1", 64)).await.err().unwrap();
    assert!(why.contains("no Phone phone-1 records"), "{why}");
    assert!(Api::<Phone>::all(farm.client.clone()).get_opt("phone-1").await.unwrap().is_none(), "nobody makes it anew");
    let again = farm.enrol("phone-1", &farm.token().await).await.unwrap();
    let _living = again.start(join("phone-1", 64)).await.unwrap();
    farm.phone_condition("phone-1", "Ready", "True").await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_a_link_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let device = farm.device("phone-2").await;
    let _agent = farm.agent("phone-1").await;
    // Of who speaks no TLS, and of a phone that says what no phone says.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0, 1, 2, 3]] {
        let mut stream = TcpStream::connect(&farm.endpoints.hub).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 64, "an alert of TLS at most: {rest:?}");
    }
    for said in
        [Frame::Accepted, Frame::Filler(vec![0; 100 << 10].into()), Frame::ToHub(ToHub::Heartbeat(Default::default()))]
    {
        let mut link = device.dial().await;
        // It may have been shown out before all of it was taken.
        let _ = link.writer.write(&said).await;
        let answer = link.reader.next().await;
        assert!(answer.is_err(), "{answer:?}");
    }
    farm.phone_condition("phone-1", "Ready", "True").await;
    until("and one that joins is a phone", async || match device.start(join("phone-2", 64)).await {
        Ok(_) => Ok(()),
        Err(why) => Err(why),
    })
    .await;
    farm.stop().await;
}
