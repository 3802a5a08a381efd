//! Who is let in over real sockets, and what ends a link.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use polyphony_identity::{
    Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Key, Lifetimes, Name, Role, Signed, Whom,
};
use polyphony_protocol::encode;
use polyphony_protocol::hub::{Heartbeat, Remedy, ToAgent, ToHub};
use polyphony_wire::{Bounds, Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixtures::join;
use super::*;

mod relaying;

const DEADLINE: Duration = Duration::from_secs(20);

struct Nobody;

impl FrameSink for Nobody {
    fn deliver(&self, _: &str, _: Frame) {}
    fn phone_gone(&self, _: &str) {}
}

/// Signs for whoever asks.
struct Signs(Authority);

impl Signs {
    fn sign(&self, phone: &str, request: &str) -> Result<Enrolled, String> {
        let signed = Signed::read(request).map_err(|error| error.to_string())?;
        let papers = self.0.certify(&signed, &Name::phone(phone, DEFAULT_DOMAIN), now()).unwrap();
        let good_until_seconds = papers.holder().unwrap().not_after;
        Ok(Enrolled { chain: papers.chain_pem(), roots: papers.roots_pem(), time_seconds: now(), good_until_seconds })
    }
}

impl Registrar for Signs {
    fn enrol<'a>(&'a self, enrol: &'a Enrol) -> BoxFuture<'a, Result<Enrolled, String>> {
        Box::pin(async { if enrol.token == "t" { self.sign(&enrol.phone, &enrol.request) } else { Err("no".into()) } })
    }

    fn renew(&self, phone: &str, _: &Digest, request: &str) -> Result<Enrolled, String> {
        self.sign(phone, request)
    }
}

fn now() -> u64 {
    Clock::system().now()
}

/// A hub that runs, and who may tell it things.
struct Scene {
    authority: Authority,
    registry: Arc<Registry>,
    address: String,
    keys: watch::Sender<Option<Keys>>,
    stop: CancellationToken,
    assign: watch::Sender<Option<Arc<Assigned>>>,
    near: watch::Sender<Arc<Neighbourhood>>,
}

impl Scene {
    async fn open(lifetime: Duration, is_plain: bool) -> Self {
        let authority =
            Authority::generate(DEFAULT_DOMAIN, Lifetimes { leaf: lifetime, ..Lifetimes::default() }, now()).unwrap();
        let key = Key::generate().unwrap();
        // The hub's own is good for longer.
        let lasting = Authority::open(&authority.sealed(), Lifetimes::default()).unwrap();
        let name = Name::of_controller(Role::Hub, DEFAULT_DOMAIN);
        let papers = lasting.certify_server(&key, &name, &[], now()).unwrap();
        let credentials = Credentials::new(&key, &papers, Clock::system()).unwrap();
        let window = Duration::from_secs(3600);
        let security = Security::mutual(&credentials, Audience::Joining { rejoin_window: window }).unwrap();
        let (assign, assigned) = watch::channel(None);
        let (near, neighbourhood) = watch::channel(Arc::default());
        let (keys, keys_seen) = watch::channel(None);
        let sealed = authority.sealed();
        let lifetimes = authority.lifetimes();
        let hub = Hub {
            registry: Arc::new(Registry::default()),
            frames: Arc::new(Nobody),
            registrar: Arc::new(Signs(Authority::open(&sealed, lifetimes).unwrap())),
            security: if is_plain { Security::Plain } else { security },
            keys: keys_seen,
            weights_url: String::new(),
            assigned,
            relay: Relay::new(64 << 20),
            neighbourhood,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (registry, stop) = (hub.registry.clone(), CancellationToken::new());
        tokio::spawn(hub.run(listener, stop.clone()));
        Self { authority, registry, address, keys, stop, assign, near }
    }

    /// A device with a certificate of that name, whose key is recorded as `recorded`.
    fn device(&self, name: Name, recorded: Option<&str>) -> Wire {
        let key = Key::generate().unwrap();
        if let Some(phone) = recorded {
            self.record(phone, Some(&key.digest().to_string()));
        }
        let papers = self.authority.certify(&Signed::read(&key.request().unwrap()).unwrap(), &name, now()).unwrap();
        let credentials = Credentials::new(&key, &papers, Clock::system()).unwrap();
        wire(Security::mutual(&credentials, Audience::Certified).unwrap())
    }

    fn record(&self, phone: &str, key: Option<&str>) {
        self.keys.send_modify(|keys| {
            let mut recorded = keys.as_deref().cloned().unwrap_or_default();
            match key {
                Some(key) => recorded.insert(phone.to_owned(), key.to_owned()),
                None => recorded.remove(phone),
            };
            *keys = Some(Arc::new(recorded));
        });
    }

    async fn dial(&self, wire: &Wire) -> Connection {
        wire.dial(&self.address, &hub_name(), DEADLINE).await.unwrap()
    }

    /// What the hub answers to who says that.
    async fn ask(&self, wire: &Wire, says: ToHub) -> (Connection, ToAgent) {
        let mut link = self.dial(wire).await;
        link.writer.write(&Frame::ToHub(says)).await.unwrap();
        match link.reader.next_within(DEADLINE).await.unwrap() {
            Frame::ToAgent(answer) => (link, answer),
            other => panic!("{other:?}"),
        }
    }

    /// Why a phone of that name gets no link, and what could help.
    async fn refusal(&self, wire: &Wire, name: &str) -> (String, Remedy) {
        match self.ask(wire, ToHub::Join(join(name).into())).await.1 {
            ToAgent::Refused { reason, remedy } => (reason, remedy),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn wire(security: Security) -> Wire {
    Wire::new(Bounds::default(), Arc::new(Uncounted), security)
}

fn hub_name() -> Whom {
    Whom::Hub(Name::of_controller(Role::Hub, DEFAULT_DOMAIN))
}

fn phone(name: &str) -> Name {
    Name::phone(name, DEFAULT_DOMAIN)
}

#[tokio::test]
async fn connections_that_do_not_join_take_no_phones_place() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let mut first = TcpStream::connect(&scene.address).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_STRANGERS {
        silent.push(TcpStream::connect(&scene.address).await.unwrap());
    }
    // The longest silent one is shown out to make room, well before its time is up; and a phone that joins is welcome.
    let mut byte = [0];
    assert_eq!(tokio::time::timeout(DEADLINE, first.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
    let device = scene.device(phone("a"), Some("a"));
    let (_link, answer) = scene.ask(&device, ToHub::Join(join("a").into())).await;
    assert!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
    assert!(scene.registry.last_heard("a").is_some());
}

#[tokio::test]
async fn a_link_is_for_who_has_the_name_and_the_key_that_its_phone_records() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let (a, b) = (scene.device(phone("a"), Some("a")), scene.device(phone("b"), None));
    let (reason, remedy) = scene.refusal(&a, "b").await;
    assert!(reason.contains("of phone a, not of phone b") && remedy == Remedy::Person, "{reason}");
    let (reason, remedy) = scene.refusal(&b, "b").await;
    assert!(reason.contains("no Phone b records") && remedy == Remedy::Enrol, "{reason}");
    // Another device under the name that a device has.
    let other = scene.device(phone("a"), None);
    assert_eq!(scene.refusal(&other, "a").await.1, Remedy::Enrol);
    for role in [Role::User, Role::Hub, Role::Weights] {
        let poser = scene.device(Name::new(role, "a", DEFAULT_DOMAIN), Some("a"));
        assert!(scene.refusal(&poser, "a").await.0.contains("not of phone a"), "{role}");
    }
    let nobody = wire(Security::Joining);
    let mut link = nobody.dial(&scene.address, &Whom::Pinned(scene.authority.ca_hash()), DEADLINE).await.unwrap();
    link.writer.write(&Frame::ToHub(ToHub::Join(join("a").into()))).await.unwrap();
    let answer = link.reader.next_within(DEADLINE).await.unwrap();
    let Frame::ToAgent(ToAgent::Refused { reason, remedy: Remedy::Enrol }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("no certificate"), "{reason}");
}

#[tokio::test]
async fn a_phone_that_is_deleted_is_shown_out_at_once() {
    let scene = Scene::open(Duration::from_secs(3600), false).await;
    let device = scene.device(phone("a"), Some("a"));
    let (mut link, answer) = scene.ask(&device, ToHub::Join(join("a").into())).await;
    assert!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
    scene.record("a", None);
    let ended = async { while link.reader.next().await.is_ok() {} };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(scene.refusal(&device, "a").await.1, Remedy::Enrol, "its session of TLS may be resumed; it is nobody");
}

#[tokio::test]
async fn a_certificate_that_runs_out_ends_its_link_unless_it_is_renewed_and_is_renewed_afterwards() {
    let scene = Scene::open(Duration::from_secs(2), false).await;
    let key = Key::generate().unwrap();
    scene.record("a", Some(&key.digest().to_string()));
    let papers = |name| {
        let request = Signed::read(&key.request().unwrap()).unwrap();
        scene.authority.certify(&request, &phone(name), now()).unwrap()
    };
    let credentials = Credentials::new(&key, &papers("a"), Clock::system()).unwrap();
    let device = wire(Security::mutual(&credentials, Audience::Certified).unwrap());
    let (mut link, _) = scene.ask(&device, ToHub::Join(join("a").into())).await;
    let mut n_renewed = 0;
    let until = Instant::now() + Duration::from_secs(4);
    // Renewed, it stays beyond the end of the certificate that it came with.
    while Instant::now() < until {
        link.writer.write(&Frame::ToHub(ToHub::Renew { request: key.request().unwrap() })).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        while let Ok(frame) = link.reader.next_within(Duration::from_millis(20)).await {
            n_renewed += usize::from(matches!(frame, Frame::ToAgent(ToAgent::Enrolled(_))));
        }
    }
    assert!(n_renewed > 3 && scene.registry.last_heard("a").is_some(), "{n_renewed}");
    let ended = async { while link.reader.next().await.is_ok() {} };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    // What it came with has run out: it is good to renew itself, and for nothing else.
    let (reason, remedy) = scene.refusal(&device, "a").await;
    assert!(reason.contains("run out") && remedy == Remedy::Renew, "{reason}");
    let (_, answer) = scene.ask(&device, ToHub::Renew { request: key.request().unwrap() }).await;
    let ToAgent::Enrolled(enrolled) = answer else { panic!("{answer:?}") };
    let renewed = polyphony_identity::Papers::from_pem(&enrolled.chain, &enrolled.roots).unwrap();
    credentials.replace(&key, &renewed).unwrap();
    let (_link, answer) = scene.ask(&device, ToHub::Join(join("a").into())).await;
    assert!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
    scene.record("a", None);
    let (_, answer) = scene.ask(&device, ToHub::Renew { request: key.request().unwrap() }).await;
    assert!(matches!(answer, ToAgent::Refused { remedy: Remedy::Enrol, .. }), "{answer:?}");
}

#[tokio::test]
async fn a_phone_whose_frame_is_long_under_way_is_heard() {
    let scene = Scene::open(Duration::from_secs(3600), true).await;
    let registry = scene.registry.clone();
    let mut phone = TcpStream::connect(&scene.address).await.unwrap();
    let heard_after = async |before: Option<Instant>| {
        let heard = async {
            while registry.last_heard("a") == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, heard).await.unwrap();
        registry.last_heard("a")
    };
    let [joins, beats] = [ToHub::Join(join("a").into()), ToHub::Heartbeat(Heartbeat::default())].map(|said| {
        let mut bytes = BytesMut::new();
        encode(&Frame::ToHub(said), &mut bytes);
        bytes
    });
    phone.write_all(&joins).await.unwrap();
    let mut heard = heard_after(None).await;
    for byte in &beats[..2] {
        phone.write_all(&[*byte]).await.unwrap();
        heard = heard_after(heard).await;
    }
}
