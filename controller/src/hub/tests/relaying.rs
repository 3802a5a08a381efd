//! Two phones are led to each other over the hub: who is, how far, and what ends it.

use std::collections::BTreeMap;

use polyphony_protocol::PlanGeneration;
use polyphony_protocol::hub::{Assignment, EncoderStages, Followed, Holds, LayerSpan, Owner, Peer, Way};
use polyphony_protocol::{ActivationType, RingId};

use super::*;

/// What `phone` is to hold in a plan of these phones, in which it reaches others by `way`.
fn stage(phones: &[&str], phone: &str, way: Way) -> Assignment {
    let number = phones.iter().position(|one| *one == phone).unwrap() as u32;
    let peer = |(stage, name): (u32, &&str)| Peer {
        stage,
        phone: (*name).to_owned(),
        ways: vec![way.clone()],
        key: String::new(),
        layers: None,
    };
    Assignment {
        namespace: "default".into(),
        name: format!("d-0-g1-{number}"),
        ring: RingId(1),
        generation: PlanGeneration(1),
        plan_digest: String::new(),
        stage: number,
        holds: Holds { embedding: number == 0, from: 0, to: 1, head: false },
        peers: (0..).zip(phones).map(peer).collect(),
        manifest_digest: String::new(),
        context_length: 8,
        max_sessions: 1,
        session_groups: 0,
        activation_type: ActivationType::F32,
        numerics_class: "cpu-f32".into(),
        standby: None,
        follows: None,
        successors: Vec::new(),
        encoder: None,
    }
}

impl Scene {
    /// Each of these phones reaches those of its plan by `way`.
    fn plan(&self, phones: &[&str], way: &Way) {
        let all: BTreeMap<_, _> =
            phones.iter().map(|phone| ((*phone).to_owned(), vec![stage(phones, phone, way.clone())])).collect();
        self.assign.send_replace(Some(Arc::new(all)));
    }

    async fn link(&self, device: &Wire, name: &str) -> Connection {
        let (link, answer) = self.ask(device, ToHub::Join(join(name).into())).await;
        assert!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
        link
    }

    /// The first of a connection that is no link.
    async fn knock(&self, device: &Wire, first: ToHub) -> Connection {
        let mut link = self.dial(device).await;
        link.writer.write(&Frame::ToHub(first)).await.unwrap();
        link
    }

    /// Two phones that are led to each other, and their TLS inside.
    async fn lead(&self, from: &Wire, to: &Wire, link: &mut Connection) -> (Connection, Connection) {
        let mut calling = self.knock(from, call("b")).await;
        let mut answering = self.knock(to, ToHub::Answer { call: called(link).await }).await;
        for end in [&mut calling, &mut answering] {
            assert_eq!(end.reader.next_within(DEADLINE).await.unwrap(), Frame::Accepted);
        }
        let (calling, answering) = (calling.into_relayed(), answering.into_relayed());
        let whom = Whom::Named(phone("b"));
        let met = to.caller_over(answering).meet(DEADLINE);
        let (calling, answering) = tokio::join!(from.dial_over(calling, &whom, DEADLINE), met);
        (calling.unwrap(), answering.unwrap())
    }
}

fn call(phone: &str) -> ToHub {
    ToHub::Call { phone: phone.to_owned() }
}

/// By which number a phone is called.
async fn called(link: &mut Connection) -> u64 {
    loop {
        if let Frame::ToAgent(ToAgent::Called { call }) = link.reader.next_within(DEADLINE).await.unwrap() {
            return call;
        }
    }
}

async fn reason(mut link: Connection) -> String {
    match link.reader.next_within(DEADLINE).await.unwrap() {
        Frame::ToAgent(ToAgent::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

async fn ended(mut link: Connection) {
    let ended = async { while link.reader.next().await.is_ok() {} };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
}

#[tokio::test]
async fn two_phones_of_a_plan_speak_over_the_hub_under_their_own_seal() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let (a, b) = (scene.device(phone("a"), Some("a")), scene.device(phone("b"), Some("b")));
    let (_link_of_a, mut link_of_b) = (scene.link(&a, "a").await, scene.link(&b, "b").await);
    scene.plan(&["a", "b"], &Way::Relayed);
    let (mut one, mut other) = scene.lead(&a, &b, &mut link_of_b).await;
    assert_eq!(one.proven().unwrap().name, phone("b"), "it is the phone that answers, and not the hub");
    assert_eq!(other.proven().unwrap().name, phone("a"));
    other.reader.trust();
    // Much more than lies anywhere on the way, both ways at once.
    let filler = Frame::Filler(vec![7; 700 << 10].into());
    for _ in 0..4 {
        let (there, back) = tokio::join!(
            async {
                one.writer.write(&filler).await.unwrap();
                one.reader.next_within(DEADLINE).await.unwrap()
            },
            async {
                other.writer.write(&filler).await.unwrap();
                other.reader.next_within(DEADLINE).await.unwrap()
            }
        );
        assert_eq!((&there, &back), (&filler, &filler));
    }
    drop(one);
    ended(other).await;
}

#[tokio::test]
async fn the_hub_leads_nobody_where_no_plan_leads() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let [a, b, c] = ["a", "b", "c"].map(|name| scene.device(phone(name), Some(name)));
    let _links = [scene.link(&a, "a").await, scene.link(&b, "b").await, scene.link(&c, "c").await];
    let direct = Way::direct("127.0.0.1:1");
    let says = async |device: &Wire, whom: &str| reason(scene.knock(device, call(whom)).await).await;
    assert!(says(&a, "b").await.contains("no plan has a dial b"), "there is none");
    scene.plan(&["a", "b"], &direct);
    assert!(says(&a, "b").await.contains("no plan has a dial b"), "it dials it");
    scene.plan(&["a", "b", "c"], &Way::Relayed);
    assert!(says(&a, "c").await.contains("no plan has a dial c"), "it is no neighbour of that ring");
    assert!(says(&a, "a").await.contains("no plan"));
    let garbled = says(&a, "b\u{1b}[2J").await;
    assert!(garbled.contains("no name of a phone"), "{garbled}");
    // What is measured is led too, of each pair.
    let addresses = ["a", "c"].map(|name| (name.to_owned(), "127.0.0.1:1".to_owned()));
    let keys = ["a", "c"].map(|name| (name.to_owned(), "k".to_owned()));
    scene.near.send_replace(Arc::new(Neighbourhood::new(addresses.into(), &keys.into(), 0)));
    assert!(says(&a, "c").await.contains("c was called, and came not"), "its link takes no notice");

    let stranger = scene.device(phone("d"), None);
    assert!(reason(scene.knock(&stranger, call("b")).await).await.contains("no Phone d records"));
    let user = scene.device(Name::new(Role::User, "a", DEFAULT_DOMAIN), None);
    assert!(reason(scene.knock(&user, call("b")).await).await.contains("not of phone a"));
    let answer = |call| ToHub::Answer { call };
    assert!(reason(scene.knock(&b, answer(1)).await).await.contains("nobody waits"));
}

#[tokio::test]
async fn skip_edges_and_caches_that_move_are_led_as_hops_are() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let [a, b] = ["a", "b"].map(|name| scene.device(phone(name), Some(name)));
    let _links = [scene.link(&a, "a").await, scene.link(&b, "b").await];
    let says = async |device: &Wire, whom: &str| reason(scene.knock(device, call(whom)).await).await;
    // Nobody answers: whether anybody was called is what is asked.
    let ring = ["a", "b", "c"];
    let mut encoder = stage(&ring, "a", Way::Relayed);
    encoder.encoder = Some(EncoderStages { last: 0, first_decoder: 1 });
    let mut fetches = stage(&["x", "b", "y"], "b", Way::direct("127.0.0.1:1"));
    let owner = |phone: &str| Owner {
        phone: phone.into(),
        ways: vec![Way::direct("127.0.0.1:1"), Way::Relayed],
        key: String::new(),
        layers: LayerSpan::default(),
    };
    fetches.follows = Some(Followed { generation: PlanGeneration(0), owners: vec![owner("z")] });
    let assigned = [("a".to_owned(), vec![encoder]), ("b".to_owned(), vec![fetches])];
    scene.assign.send_replace(Some(Arc::new(assigned.into())));
    for (device, whom) in [(&a, "c"), (&b, "z")] {
        let said = says(device, whom).await;
        assert!(said.contains(&format!("{whom} is not called")), "it would be led there: {said}");
    }
    for (device, whom) in [(&a, "z"), (&b, "c"), (&b, "y")] {
        assert!(says(device, whom).await.contains("no plan has"), "{whom}");
    }
}

#[tokio::test]
async fn a_call_is_answered_by_who_was_called_alone() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let [a, b, c] = ["a", "b", "c"].map(|name| scene.device(phone(name), Some(name)));
    let mut link_of_b = scene.link(&b, "b").await;
    scene.plan(&["a", "b"], &Way::Relayed);
    let mut calling = scene.knock(&a, call("b")).await;
    let number = called(&mut link_of_b).await;
    assert!(reason(scene.knock(&c, ToHub::Answer { call: number }).await).await.contains("nobody waits"));
    let mut answering = scene.knock(&b, ToHub::Answer { call: number }).await;
    for end in [&mut calling, &mut answering] {
        assert_eq!(end.reader.next_within(DEADLINE).await.unwrap(), Frame::Accepted, "the other was no answer");
    }
    drop(link_of_b);
    let gone = async {
        while scene.registry.last_heard("b").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    assert!(reason(scene.knock(&a, call("b")).await).await.contains("b is not called"));
}

#[tokio::test]
async fn a_way_ends_with_its_plan_and_with_either_phone() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let b = scene.device(phone("b"), Some("b"));
    let mut link_of_b = scene.link(&b, "b").await;
    type End = fn(&Scene);
    let ends: [(&str, End); 3] = [
        ("the plan goes", |scene| scene.plan(&["c", "b"], &Way::Relayed)),
        ("who called is deleted", |scene| scene.record("a", None)),
        ("who was called is deleted", |scene| scene.record("b", None)),
    ];
    for (what, end) in ends {
        let a = scene.device(phone("a"), Some("a"));
        scene.plan(&["a", "b"], &Way::Relayed);
        let (one, other) = scene.lead(&a, &b, &mut link_of_b).await;
        end(&scene);
        let both = async { tokio::join!(ended(one), ended(other)) };
        assert!(tokio::time::timeout(DEADLINE, both).await.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn ways_of_a_phone_are_bounded_and_a_host_may_lead_none() {
    let relay = Relay::new(1 << 20);
    let open = |from: &str, to: &str| relay.open(from, to).map(|(way, _)| way);
    let ways: Vec<_> = (0..32).map(|n| open("a", &format!("b{n}")).unwrap()).collect();
    assert!(open("a", "c").err().unwrap().contains("32 ways of a"));
    assert!(open("c", "a").err().unwrap().contains("32 ways of a"));
    drop(ways);
    assert!(open("a", "c").is_ok(), "those that have ended count no more");
    assert!(Relay::new(0).open("a", "b").err().unwrap().contains("passes nothing on"));
}

#[tokio::test]
async fn a_way_carries_no_more_than_its_rate_and_is_given_up_when_it_is_idle() {
    let relay = Relay::new(1_000_000);
    let (mut near, from) = tokio::io::duplex(1 << 20);
    let (mut to, mut far) = tokio::io::duplex(1 << 20);
    let began = Instant::now();
    let carrying = tokio::spawn(async move {
        let heard = std::sync::atomic::AtomicU64::new(0);
        tokio::select! {
            end = relay::carry(&relay, from, &mut to, &heard, Duration::from_secs(1)) => end.map(|()| "closed"),
            () = relay::silence(&heard, Duration::from_secs(3)) => Ok("idle"),
        }
    });
    near.write_all(&[7; 600_000]).await.unwrap();
    let mut all = vec![0; 600_000];
    far.read_exact(&mut all).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(450), "{:?} for more than half a second's worth", began.elapsed());
    assert_eq!(carrying.await.unwrap().unwrap(), "idle");
}

#[tokio::test]
async fn a_slow_way_is_no_dead_one() {
    let relay = Relay::new(1 << 30);
    let (mut near, from) = tokio::io::duplex(1 << 20);
    // What is read at a time takes three seconds to be taken, and patience is for one.
    let (mut to, mut far) = tokio::io::duplex(1 << 10);
    near.write_all(&[7; 64 << 10]).await.unwrap();
    drop(near);
    let carrying = tokio::spawn(async move {
        let heard = std::sync::atomic::AtomicU64::new(0);
        tokio::select! {
            end = relay::carry(&relay, from, &mut to, &heard, Duration::from_secs(1)) => end.map(|()| "closed"),
            () = relay::silence(&heard, Duration::from_secs(2)) => Ok("idle"),
        }
    });
    let mut taken = 0;
    let mut buffer = [0; 1 << 10];
    while taken < 64 << 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        match far.read(&mut buffer).await.unwrap() {
            0 => break,
            n_bytes => taken += n_bytes,
        }
    }
    assert_eq!((taken, carrying.await.unwrap().unwrap()), (64 << 10, "closed"));
    // Who takes nothing at all is given up.
    let relay = Relay::new(1 << 30);
    let (mut near, from) = tokio::io::duplex(1 << 20);
    let (mut to, far) = tokio::io::duplex(1 << 10);
    near.write_all(&[7; 64 << 10]).await.unwrap();
    let heard = std::sync::atomic::AtomicU64::new(0);
    let end = relay::carry(&relay, from, &mut to, &heard, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::TimedOut);
    drop(far);
}
