//! Neighbours: measures round trip and bandwidth to phones that a plan may put beside this one, in small probes.
//!
//! The hub has told each of the other, and each knows the other by its key; the port is that of ring links. A probe sends
//! under 100 KiB; a phone is probed a few times when it is new, and once a minute from then on. Where it cannot be dialled, the way over the
//! hub is measured as often, and dialling is tried more often than that: what lay between the two may have gone.

mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use polyphony_protocol::frame::{Hello, NO_RING};
use polyphony_protocol::hub::{Neighbour, Neighbours, Way};
use polyphony_protocol::{Frame, PlanGeneration, version};
use polyphony_wire::{Connection, LinkError};
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::acquaintance::{self, Acquaintance};
use crate::board::Board;

use schedule::{End, PAUSE, Schedule};

/// Phones that are dialled at a time: one that does not answer holds up few others.
const AT_ONCE: usize = 8;
/// Each wait of a probe.
const DEADLINE: Duration = Duration::from_secs(5);
/// Filler may take this long: a slow link is one that has to be known.
const FILLER_DEADLINE: Duration = Duration::from_secs(15);
/// Who waits for its turn shows the other end so often that it is there.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// A probe is over by then, its turn included.
const LONGEST_PROBE: Duration = Duration::from_secs(600);
/// Pings whose least round trip counts.
const PINGS: u64 = 3;
/// Filler that opens TCP's window, and filler that is timed.
const WARM_UP_BYTES: usize = 48 << 10;
const TIMED_BYTES: usize = 48 << 10;
/// A faster link is not told apart from this one.
const MAX_BYTES_PER_SECOND: f64 = 1e9;
/// Filler that one connection may send.
const MAX_FILLER_BYTES: usize = 256 << 10;

/// Who probes.
struct Prober {
    acquaintance: Acquaintance,
    board: Arc<Board>,
    places: Semaphore,
    /// Links that are measured at once would measure each other.
    turn: Mutex<()>,
}

/// Measures links to `neighbours`, as they are told, until `shutdown`.
pub async fn measure(
    acquaintance: Acquaintance,
    mut neighbours: watch::Receiver<Neighbours>,
    board: Arc<Board>,
    shutdown: CancellationToken,
) {
    let prober = Prober { acquaintance, board, places: Semaphore::new(AT_ONCE), turn: Mutex::new(()) };
    let mut schedules: BTreeMap<Neighbour, Schedule> = BTreeMap::new();
    // Whoever does not answer holds up nobody else, whether told before it or after.
    let (mut probing, mut under_way) = (FuturesUnordered::new(), BTreeSet::<Neighbour>::new());
    loop {
        let told = neighbours.borrow_and_update().clone();
        let now = Instant::now();
        schedules.retain(|known, _| told.phones.contains(known));
        for neighbour in told.phones {
            let schedule = schedules.get(&neighbour);
            let seeks = prober.board.seeks_way(&neighbour.phone);
            let is_due = schedule.is_none_or(|schedule| schedule.is_due(seeks, now));
            if neighbour.phone == prober.acquaintance.phone || !is_due || !under_way.insert(neighbour.clone()) {
                continue;
            }
            // Of a way that was lost since it was measured the board knows nothing any more.
            let knows_way = !seeks && schedule.is_some_and(|schedule| schedule.knows_way(now));
            let prober = &prober;
            probing.push(async move { (prober.probe(&neighbour, knows_way).await, neighbour) });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some((end, neighbour)) = probing.next() => {
                under_way.remove(&neighbour);
                let at = Instant::now();
                schedules.entry(neighbour).or_insert_with(|| Schedule::new(at)).go_on(end, at);
            }
            changed = neighbours.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

// === impl Prober ===

impl Prober {
    /// Measures the best way that there is to it, but for the one over the hub where that is known; the board hears how it went at once.
    async fn probe(&self, neighbour: &Neighbour, knows_way: bool) -> End {
        // It is never closed.
        let _place = self.places.acquire().await;
        for way in &neighbour.ways {
            let is_led = *way == Way::Relayed;
            if is_led && knows_way {
                return End::LedAsKnown;
            }
            match self.dial(neighbour, way).await {
                Ok(()) if is_led => return End::Led,
                Ok(()) => return End::Dialled,
                Err(error) => {
                    self.board.note_end(&neighbour.phone, way, &error);
                    tracing::debug!(peer = %neighbour.phone, %way, %error, "a link was not measured");
                    if !error.leads_nowhere() {
                        return End::Refused;
                    }
                }
            }
        }
        End::Nothing
    }

    async fn dial(&self, neighbour: &Neighbour, way: &Way) -> Result<(), LinkError> {
        let Neighbour { phone, key, .. } = neighbour;
        let mut link = self.acquaintance.dial(phone, key, way, DEADLINE).await?;
        let hello = Hello {
            version: version::CURRENT,
            ring: NO_RING,
            generation: PlanGeneration(0),
            phone: self.acquaintance.phone.clone(),
            from_stage: 0,
            to_stage: 0,
        };
        link.writer.write(&Frame::Hello(hello)).await?;
        let answer = link.reader.next_within(DEADLINE).await?;
        self.board.note_reachable(phone, way);
        match answer {
            Frame::Accepted => {}
            Frame::Refused(why) => return Err(LinkError::Refused(why)),
            other => return Err(LinkError::unexpected(&other, "an acceptance")),
        }
        let _turn = self.turn(&mut link).await?;
        self.measure(&mut link, phone, way).await
    }

    /// The turn to measure. The other end, which waits no longer than a deadline for a sign of life, gets one until then.
    async fn turn(&self, link: &mut Connection) -> Result<MutexGuard<'_, ()>, LinkError> {
        let mut turn = pin!(self.turn.lock());
        let mut signs = tokio::time::interval(SIGN_EVERY);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                turn = turn.as_mut() => return Ok(turn),
                _ = signs.tick() => ping(link, 0, DEADLINE).await?,
            }
        }
    }

    async fn measure(&self, link: &mut Connection, phone: &str, way: &Way) -> Result<(), LinkError> {
        let mut round_trip = Duration::MAX;
        for nonce in 0..PINGS {
            let began = Instant::now();
            ping(link, nonce, DEADLINE).await?;
            round_trip = round_trip.min(began.elapsed());
        }
        link.writer.write(&Frame::Filler(Bytes::from(vec![0; WARM_UP_BYTES]))).await?;
        ping(link, PINGS, FILLER_DEADLINE).await?;
        let filler = Frame::Filler(Bytes::from(vec![0; TIMED_BYTES]));
        let began = Instant::now();
        link.writer.write(&filler).await?;
        ping(link, PINGS + 1, FILLER_DEADLINE).await?;
        self.board.note_link(phone, way, round_trip.as_secs_f64());
        self.board.note_bandwidth(phone, bytes_per_second(began.elapsed(), round_trip));
        Ok(())
    }
}

/// What the link carries, when the timed filler and a ping behind it took `elapsed`.
fn bytes_per_second(elapsed: Duration, round_trip: Duration) -> f64 {
    let least = TIMED_BYTES as f64 / MAX_BYTES_PER_SECOND;
    TIMED_BYTES as f64 / elapsed.saturating_sub(round_trip).as_secs_f64().max(least)
}

async fn ping(link: &mut Connection, nonce: u64, deadline: Duration) -> Result<(), LinkError> {
    link.writer.write(&Frame::Ping { nonce }).await?;
    match link.reader.next_within(deadline).await? {
        Frame::Pong { nonce: answered } if answered == nonce => Ok(()),
        other => Err(LinkError::unexpected(&other, "a pong")),
    }
}

/// Lets a neighbour measure its link to this phone, when it is one that the hub has told of.
///
/// # Errors
/// When it is not, is silent, sends more or stays longer than a probe does, or breaks off.
pub async fn answer(
    hello: &Hello,
    neighbours: &watch::Receiver<Neighbours>,
    link: &mut Connection,
) -> Result<(), LinkError> {
    let is_told =
        |one: &Neighbour| one.phone == hello.phone && acquaintance::is(&link.peer.proof, &one.phone, &one.key);
    if !neighbours.borrow().phones.iter().any(is_told) {
        let why = format!("the host has not told this phone of {} yet: it may try again", hello.phone);
        link.writer.write(&Frame::Refused(why.clone())).await?;
        return Err(LinkError::Refused(why));
    }
    link.reader.trust();
    link.writer.write(&Frame::Accepted).await?;
    let late = |_| LinkError::GivenUp(format!("a probe does not take longer than {LONGEST_PROBE:?}"));
    tokio::time::timeout(LONGEST_PROBE, echo(link)).await.map_err(late)?
}

/// Answers pings and swallows filler until the other end has measured enough.
async fn echo(link: &mut Connection) -> Result<(), LinkError> {
    let mut n_bytes = 0;
    loop {
        // Filler may come slowly.
        match link.reader.next_unless_silent(DEADLINE).await {
            Ok(Frame::Ping { nonce }) => link.writer.write(&Frame::Pong { nonce }).await?,
            Ok(Frame::Filler(bytes)) if n_bytes + bytes.len() <= MAX_FILLER_BYTES => n_bytes += bytes.len(),
            Ok(other) => {
                return Err(LinkError::unexpected(&other, "a ping, or less filler"));
            }
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Name, Role, Whom};
    use polyphony_wire::{Bounds, Security, Uncounted, Wire};
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    use super::*;
    use crate::relay::Relay;

    fn plain() -> Acquaintance {
        let wire = Wire::new(Bounds::default(), Arc::new(Uncounted), Security::Plain);
        let hub = Whom::Hub(Name::of_controller(Role::Hub, "lab"));
        let relay = Relay { address: String::new(), hub, wire: wire.clone() };
        Acquaintance { phone: "us".into(), domain: "lab".into(), wire, relay }
    }

    /// As phones do that are too slow to be waited for one by one: nobody answers before all are asked.
    async fn refuse_together(wire: Wire, listener: TcpListener, all: Arc<Barrier>) {
        let mut link = wire.accept(&listener).await.meet(DEADLINE).await.unwrap();
        assert!(matches!(link.reader.next().await, Ok(Frame::Hello(_))));
        all.wait().await;
        // Who gave up meanwhile hears nothing of it.
        let _ = link.writer.write(&Frame::Refused("not now".into())).await;
    }

    #[tokio::test]
    async fn a_phone_that_does_not_answer_holds_up_no_other() {
        let us = plain();
        let (all, board) = (Arc::new(Barrier::new(AT_ONCE)), Arc::new(Board::default()));
        let (mut told, mut asked) = (Neighbours::default(), Vec::new());
        for n in 0..AT_ONCE {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let ways = vec![Way::direct(listener.local_addr().unwrap().to_string())];
            told.phones.push(Neighbour { phone: format!("phone-{n}"), ways, key: String::new() });
            asked.push(tokio::spawn(refuse_together(us.wire.clone(), listener, all.clone())));
        }
        let (_tell, told) = watch::channel(told);
        let shutdown = CancellationToken::new();
        let measuring = tokio::spawn(measure(us, told, board.clone(), shutdown.clone()));
        for one in asked {
            one.await.unwrap();
        }
        shutdown.cancel();
        measuring.await.unwrap();
        assert_eq!(board.links_down(), [], "one after the other the first would have been given up");
    }

    #[tokio::test]
    async fn a_phone_that_is_told_of_while_another_does_not_answer_is_probed_at_once() {
        let us = plain();
        let (both, board) = (Arc::new(Barrier::new(2)), Arc::new(Board::default()));
        let neighbour = async |name: &str| {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let ways = vec![Way::direct(listener.local_addr().unwrap().to_string())];
            (Neighbour { phone: name.into(), ways, key: String::new() }, listener)
        };
        let ((first, of_first), (second, of_second)) = (neighbour("first").await, neighbour("second").await);
        let (tell, told) = watch::channel(Neighbours { phones: vec![first.clone()] });
        let shutdown = CancellationToken::new();
        let measuring = tokio::spawn(measure(us.clone(), told, board.clone(), shutdown.clone()));
        // The first is asked, and answers when the second is asked, too.
        let mut link = us.wire.accept(&of_first).await.meet(DEADLINE).await.unwrap();
        assert!(matches!(link.reader.next().await, Ok(Frame::Hello(_))));
        tell.send(Neighbours { phones: vec![first, second] }).unwrap();
        let asked = tokio::spawn(refuse_together(us.wire.clone(), of_second, both.clone()));
        both.wait().await;
        let _ = link.writer.write(&Frame::Refused("not now".into())).await;
        asked.await.unwrap();
        shutdown.cancel();
        measuring.await.unwrap();
        assert!(!board.seeks_way("first"), "it was given up before the second was asked");
    }

    #[tokio::test]
    async fn who_waits_for_its_turn_shows_that_it_is_there() {
        let us = plain();
        let wire = us.wire.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ways = vec![Way::direct(listener.local_addr().unwrap().to_string())];
        let neighbour = Neighbour { phone: "other".into(), ways, key: String::new() };
        let (board, places) = (Arc::new(Board::default()), Semaphore::new(AT_ONCE));
        let prober = Prober { acquaintance: us, board, places, turn: Mutex::new(()) };
        let others = prober.turn.lock().await;
        let answering = async {
            let mut link = wire.accept(&listener).await.meet(DEADLINE).await.unwrap();
            let Ok(Frame::Hello(_)) = link.reader.next().await else { panic!("no hello") };
            link.reader.trust();
            link.writer.write(&Frame::Accepted).await.unwrap();
            for _ in 0..2 {
                let Ok(Frame::Ping { nonce }) = link.reader.next_within(DEADLINE).await else { panic!("shown out") };
                link.writer.write(&Frame::Pong { nonce }).await.unwrap();
            }
            // It has waited for longer than once; now the others are done.
            drop(others);
            echo(&mut link).await.unwrap();
        };
        let (end, ()) = tokio::join!(prober.probe(&neighbour, false), answering);
        assert_eq!(end, End::Dialled);
    }

    #[test]
    fn a_bandwidth_is_what_the_filler_took_beyond_the_round_trip() {
        let ms = Duration::from_millis;
        let measured = bytes_per_second(ms(53), ms(5));
        assert!((measured - TIMED_BYTES as f64 / 0.048).abs() < 1.0, "{measured}");
        assert_eq!(bytes_per_second(ms(1), ms(5)), MAX_BYTES_PER_SECOND, "a fast link has a bound");
    }
}
