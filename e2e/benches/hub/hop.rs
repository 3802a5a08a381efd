//! Hops: what a frame from one phone to the next takes: in the clear, sealed, and sealed over a hub. And how soon a first link is up.
//!
//! Both ends, and the hub, are in this process on one thread, over loopback: processor time is that of all of them. There is no network in it; the
//! 5 ms of the first link are bytes that a go-between holds back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use polyphony_controller::hub::neighbours::Neighbourhood;
use polyphony_controller::hub::registry::Registry;
use polyphony_controller::hub::relay::Relay;
use polyphony_controller::hub::{FrameSink, Hub, Registrar};
use polyphony_identity::{
    Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Digest, Key, Lifetimes, Name, Role, Signed, Whom,
};
use polyphony_protocol::Frame;
use polyphony_protocol::hub::{Enrol, Enrolled, ToAgent, ToHub};
use polyphony_wire::{Bounds, Connection, Security, Uncounted, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::controller::processor_seconds;
use crate::phone::said_of;

const DEADLINE: Duration = Duration::from_secs(30);
/// A hidden state of SmolLM2 in f16.
const FRAME_BYTES: usize = 576 * 2;
const WARM_UP: usize = 2_000;
/// Of a turn; each hop goes there or back.
const HOPS: usize = 100_000;
const TURNS: usize = 5;
/// Each way.
const DELAY: Duration = Duration::from_millis(5);

/// One turn of one kind.
#[derive(Clone, Copy, Default)]
struct Turn {
    microseconds: f64,
    cpu_microseconds: f64,
    wire_bytes: f64,
}

/// Measures all kinds in turns, and prints what was found.
pub async fn measure() -> Result<()> {
    let scene = Scene::open().await?;
    let mut kinds = [
        ("in the clear", pair(&plain(), &plain(), "b").await?),
        ("sealed", pair(&scene.a, &scene.b, "b").await?),
        ("sealed, over the hub", scene.relayed().await?),
    ];
    let mut turns: BTreeMap<&str, Vec<Turn>> = BTreeMap::new();
    for round in 0..TURNS {
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (name, ends) = &mut kinds[at];
            turns.entry(name).or_default().push(hops(ends).await?);
        }
    }
    let median = |name: &str, of: fn(&Turn) -> f64| {
        let mut all: Vec<f64> = turns[name].iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for (name, _) in &kinds {
        let figures: [fn(&Turn) -> f64; 3] =
            [|turn| turn.microseconds, |turn| turn.cpu_microseconds, |turn| turn.wire_bytes];
        let figures = figures.map(|of| median(name, of));
        println!(
            "a hop {name}: {:.1} µs, {:.1} µs of processor time, {:.0} bytes of a frame of {FRAME_BYTES}",
            figures[0], figures[1], figures[2]
        );
    }
    let cpu = |name| median(name, |turn| turn.cpu_microseconds);
    println!(
        "TLS takes {:.1} µs of processor time a hop, both ends (goal: 30 at most)",
        cpu("sealed") - cpu("in the clear")
    );
    println!(
        "over the hub a hop takes {:.2} × the time of a direct one",
        median("sealed, over the hub", |turn| turn.microseconds) / median("sealed", |turn| turn.microseconds)
    );
    let mut links = Vec::new();
    for _ in 0..9 {
        links.push(scene.first_link().await?);
    }
    links.sort();
    println!(
        "a first link over {} ms each way is up after {:.0} ms (goal: 300 at most)",
        DELAY.as_millis(),
        links[links.len() / 2].as_secs_f64() * 1e3
    );
    Ok(())
}

async fn hops((one, other): &mut (Connection, Connection)) -> Result<Turn> {
    let frame = Frame::Filler(Bytes::from(vec![7; FRAME_BYTES]));
    let mut figures = Turn::default();
    for (n_hops, counts) in [(WARM_UP, false), (HOPS, true)] {
        let (began, cpu, bytes) =
            (Instant::now(), processor_seconds("self")?, one.meter.n_read() + one.meter.n_written());
        let there = async {
            for _ in 0..n_hops / 2 {
                one.writer.write(&frame).await?;
                one.reader.next().await?;
            }
            anyhow::Ok(())
        };
        let back = async {
            for _ in 0..n_hops / 2 {
                let frame = other.reader.next().await?;
                other.writer.write(&frame).await?;
            }
            anyhow::Ok(())
        };
        let (there, back) = tokio::join!(there, back);
        there?;
        back?;
        if counts {
            let a_hop = |all: f64| all / n_hops as f64;
            figures = Turn {
                microseconds: a_hop(began.elapsed().as_secs_f64() * 1e6),
                cpu_microseconds: a_hop((processor_seconds("self")? - cpu) * 1e6),
                wire_bytes: a_hop((one.meter.n_read() + one.meter.n_written() - bytes) as f64),
            };
        }
    }
    Ok(figures)
}

fn wire(security: Security) -> Wire {
    Wire::new(Bounds::default(), Arc::new(Uncounted), security)
}

fn plain() -> Wire {
    wire(Security::Plain)
}

fn phone(name: &str) -> Whom {
    Whom::Named(Name::phone(name, DEFAULT_DOMAIN))
}

/// Two ends of a connection over loopback.
async fn pair(dials: &Wire, lets_in: &Wire, name: &str) -> Result<(Connection, Connection)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, whom) = (listener.local_addr()?.to_string(), phone(name));
    let meeting = async { lets_in.accept(&listener).await.meet(DEADLINE).await };
    let (dialled, met) = tokio::join!(dials.dial(&address, &whom, DEADLINE), meeting);
    let mut met = met?;
    met.reader.trust();
    Ok((dialled?, met))
}

/// A hub, and two phones that each measure the way to the other over it.
struct Scene {
    hub: String,
    a: Wire,
    b: Wire,
    stop: CancellationToken,
    _tell: Box<dyn Send + Sync>,
}

impl Scene {
    async fn open() -> Result<Self> {
        let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), Clock::system().now())?;
        let certified = |name: &Name, audience| -> Result<(Security, String)> {
            let key = Key::generate()?;
            let papers = authority.certify(&Signed::read(&key.request()?)?, name, Clock::system().now())?;
            let credentials = Credentials::new(&key, &papers, Clock::system())?;
            Ok((Security::mutual(&credentials, audience)?, key.digest().to_string()))
        };
        let window = Duration::from_secs(3600);
        let (of_hub, _) =
            certified(&Name::of_controller(Role::Hub, DEFAULT_DOMAIN), Audience::Joining { rejoin_window: window })?;
        let of_phone = |name| certified(&Name::phone(name, DEFAULT_DOMAIN), Audience::Certified);
        let ((a, key_of_a), (b, key_of_b)) = (of_phone("a")?, of_phone("b")?);
        let keys = BTreeMap::from([("a".to_owned(), key_of_a), ("b".to_owned(), key_of_b)]);
        let addresses = ["a", "b"].map(|name| (name.to_owned(), "127.0.0.1:9".to_owned()));
        let neighbourhood = Neighbourhood::new(addresses.into(), &keys, 0);
        let (tell_keys, keys) = watch::channel(Some(Arc::new(keys)));
        let (tell_near, neighbourhood) = watch::channel(Arc::new(neighbourhood));
        let (tell_plans, assigned) = watch::channel(None);
        let hub = Hub {
            registry: Arc::new(Registry::default()),
            frames: Arc::new(Nobody),
            registrar: Arc::new(Nobody),
            security: of_hub,
            keys,
            weights_url: String::new(),
            assigned,
            relay: Relay::new(1 << 30),
            neighbourhood,
        };
        let (listener, stop) = (TcpListener::bind("127.0.0.1:0").await?, CancellationToken::new());
        let address = listener.local_addr()?.to_string();
        tokio::spawn(hub.run(listener, stop.clone()));
        let tell = Box::new((tell_keys, tell_near, tell_plans));
        Ok(Self { hub: address, a: wire(a), b: wire(b), stop, _tell: tell })
    }

    async fn knock(&self, device: &Wire, first: ToHub) -> Result<Connection> {
        let hub = Whom::Hub(Name::of_controller(Role::Hub, DEFAULT_DOMAIN));
        let mut link = device.dial(&self.hub, &hub, DEADLINE).await?;
        link.writer.write(&Frame::ToHub(first)).await?;
        Ok(link)
    }

    async fn relayed(&self) -> Result<(Connection, Connection)> {
        let mut link = self.knock(&self.b, ToHub::Join(said_of("b").into())).await?;
        let mut calling = self.knock(&self.a, ToHub::Call { phone: "b".into() }).await?;
        let call = loop {
            match link.reader.next_within(DEADLINE).await? {
                Frame::ToAgent(ToAgent::Called { call }) => break call,
                Frame::ToAgent(ToAgent::Refused { reason, .. }) => bail!("b was not let in: {reason}"),
                _ => {}
            }
        };
        let mut answering = self.knock(&self.b, ToHub::Answer { call }).await?;
        for end in [&mut calling, &mut answering] {
            let said = end.reader.next_within(DEADLINE).await?;
            if said != Frame::Accepted {
                bail!("a is not led to b: {said:?}");
            }
        }
        // The link of b is nobody's business from here on, and has to stay.
        tokio::spawn(async move { while link.reader.next().await.is_ok() {} });
        let whom = phone("b");
        let met = self.b.caller_over(answering.into_relayed()).meet(DEADLINE);
        let (dialled, met) = tokio::join!(self.a.dial_over(calling.into_relayed(), &whom, DEADLINE), met);
        let mut met = met.context("b meets nobody")?;
        met.reader.trust();
        Ok((dialled?, met))
    }

    /// From dialling to the acceptance, over a link that holds each byte back; no session of TLS is resumed.
    async fn first_link(&self) -> Result<Duration> {
        let fresh = Self::open().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (behind, before) = (listener.local_addr()?, TcpListener::bind("127.0.0.1:0").await?);
        let address = before.local_addr()?.to_string();
        let between = tokio::spawn(async move {
            let (near, _) = before.accept().await?;
            let far = TcpStream::connect(behind).await?;
            // What TCP itself would have taken to be there.
            tokio::time::sleep(2 * DELAY).await;
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            tokio::join!(late(from_near, to_far), late(from_far, to_near));
            anyhow::Ok(())
        });
        let answering = async {
            let mut met = fresh.b.accept(&listener).await.meet(DEADLINE).await?;
            met.reader.next_within(DEADLINE).await?;
            met.writer.write(&Frame::Accepted).await?;
            anyhow::Ok(met)
        };
        let whom = phone("b");
        let began = Instant::now();
        let dialling = async {
            let mut link = fresh.a.dial(&address, &whom, DEADLINE).await?;
            link.writer.write(&Frame::Ping { nonce: 1 }).await?;
            link.reader.next_within(DEADLINE).await?;
            anyhow::Ok(began.elapsed())
        };
        let (took, met) = tokio::join!(dialling, answering);
        between.abort();
        met?;
        took
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Carries bytes on, each a while after it came.
async fn late(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let (sender, mut queue) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n_bytes @ 1..) = from.read(&mut bytes).await {
            let _ = sender.send((Instant::now() + DELAY, bytes[..n_bytes].to_vec()));
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = queue.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(reading, writing);
}

/// Takes nobody in, and passes nothing on.
struct Nobody;

impl FrameSink for Nobody {
    fn deliver(&self, _: &str, _: Frame) {}
    fn phone_gone(&self, _: &str) {}
}

impl Registrar for Nobody {
    fn enrol<'a>(&'a self, _: &'a Enrol) -> BoxFuture<'a, Result<Enrolled, String>> {
        Box::pin(async { Err("nobody is taken in here".to_owned()) })
    }

    fn renew(&self, _: &str, _: &Digest, _: &str) -> Result<Enrolled, String> {
        Err("nothing is renewed here".to_owned())
    }
}
