//! Neighbours: measures round trip and bandwidth to phones that a plan may put beside this one, in small probes.
//!
//! Both ends prove by the hub's probe secret that they have joined it; the port is that of ring links. A probe sends
//! under 100 KiB; a phone is probed a few times when it is new, and once a minute from then on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use polyphony_protocol::frame::{Hello, NO_RING};
use polyphony_protocol::hub::{Neighbour, Neighbours};
use polyphony_protocol::{Frame, PlanGeneration, version};
use polyphony_wire::{Connection, LinkError, Wire};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::board::Board;

/// A phone that is new is probed this often, one after another.
const FIRST_PROBES: u32 = 3;
/// Between looks at who is due, and between two probes of a phone that is known.
const PAUSE: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// A phone that could not be reached is tried again after this.
const RETRY_EVERY: Duration = Duration::from_secs(15);
/// Each wait of a probe.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pings whose least round trip counts.
const PINGS: u64 = 3;
/// Filler that opens TCP's window, and filler that is timed.
const WARM_UP_BYTES: usize = 48 << 10;
const TIMED_BYTES: usize = 48 << 10;
/// A faster link is not told apart from this one.
const MAX_BYTES_PER_SECOND: f64 = 1e9;
/// Filler that one connection may send.
const MAX_FILLER_BYTES: usize = 256 << 10;

/// Who is probed when.
struct Schedule {
    n_probes: u32,
    due: Instant,
}

/// Measures links to `neighbours`, as they are told, until `shutdown`.
pub async fn measure(
    phone: String,
    mut neighbours: watch::Receiver<Neighbours>,
    board: Arc<Board>,
    wire: Wire,
    shutdown: CancellationToken,
) {
    let mut schedules: BTreeMap<String, Schedule> = BTreeMap::new();
    loop {
        let now = neighbours.borrow_and_update().clone();
        schedules.retain(|address, _| now.phones.iter().any(|neighbour| neighbour.ring_address == *address));
        for neighbour in now.phones.iter().filter(|neighbour| neighbour.phone != phone) {
            let schedule = schedules
                .entry(neighbour.ring_address.clone())
                .or_insert_with(|| Schedule { n_probes: 0, due: Instant::now() });
            if schedule.due > Instant::now() {
                continue;
            }
            let probed = tokio::select! {
                () = shutdown.cancelled() => return,
                probed = probe(&phone, &now.probe_secret, neighbour, &board, &wire) => probed,
            };
            let pause = match probed {
                Ok(()) => {
                    schedule.n_probes += 1;
                    if schedule.n_probes < FIRST_PROBES { PAUSE } else { PROBE_EVERY }
                }
                Err(error) => {
                    board.note_end(&neighbour.phone, &error);
                    tracing::debug!(peer = %neighbour.phone, %error, "a link was not measured");
                    RETRY_EVERY
                }
            };
            schedule.due = Instant::now() + pause;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = neighbours.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn probe(phone: &str, secret: &str, neighbour: &Neighbour, board: &Board, wire: &Wire) -> Result<(), LinkError> {
    let mut link = wire.dial(&neighbour.ring_address, DEADLINE).await?;
    let hello = Hello {
        version: version::CURRENT,
        ring: NO_RING,
        generation: PlanGeneration(0),
        phone: phone.to_owned(),
        from_stage: 0,
        to_stage: 0,
        ring_secret: secret.to_owned(),
    };
    link.writer.write(&Frame::Hello(hello)).await?;
    match link.reader.next_within(DEADLINE).await? {
        Frame::Accepted => {}
        Frame::Refused(why) => {
            board.note_reachable(&neighbour.phone);
            return Err(LinkError::Refused(why));
        }
        other => return Err(LinkError::unexpected(&other, "an acceptance")),
    }
    let mut round_trip = Duration::MAX;
    for nonce in 0..PINGS {
        let began = Instant::now();
        ping(&mut link, nonce).await?;
        round_trip = round_trip.min(began.elapsed());
    }
    link.writer.write(&Frame::Filler(Bytes::from(vec![0; WARM_UP_BYTES]))).await?;
    ping(&mut link, PINGS).await?;
    let filler = Frame::Filler(Bytes::from(vec![0; TIMED_BYTES]));
    let began = Instant::now();
    link.writer.write(&filler).await?;
    ping(&mut link, PINGS + 1).await?;
    board.note_link(&neighbour.phone, round_trip.as_secs_f64());
    board.note_bandwidth(&neighbour.phone, bytes_per_second(began.elapsed(), round_trip));
    Ok(())
}

/// What the link carries, when the timed filler and a ping behind it took `elapsed`.
fn bytes_per_second(elapsed: Duration, round_trip: Duration) -> f64 {
    let least = TIMED_BYTES as f64 / MAX_BYTES_PER_SECOND;
    TIMED_BYTES as f64 / elapsed.saturating_sub(round_trip).as_secs_f64().max(least)
}

async fn ping(link: &mut Connection, nonce: u64) -> Result<(), LinkError> {
    link.writer.write(&Frame::Ping { nonce }).await?;
    match link.reader.next_within(DEADLINE).await? {
        Frame::Pong { nonce: answered } if answered == nonce => Ok(()),
        other => Err(LinkError::unexpected(&other, "a pong")),
    }
}

/// Lets a neighbour measure its link to this phone, when its hello proves that both have joined one hub.
///
/// # Errors
/// When it proves nothing, sends more than a probe does, or ends.
pub async fn answer(
    hello: &Hello,
    neighbours: &watch::Receiver<Neighbours>,
    link: &mut Connection,
) -> Result<(), LinkError> {
    let secret = neighbours.borrow().probe_secret.clone();
    // Before the hub has told its secret nobody can know it.
    if secret.is_empty() || !crate::serve::ring::equal(&hello.ring_secret, &secret) {
        let why = format!("{} has not joined this phone's hub, or just now: it may try again", hello.phone);
        link.writer.write(&Frame::Refused(why.clone())).await?;
        return Err(LinkError::Refused(why));
    }
    link.reader.trust();
    link.writer.write(&Frame::Accepted).await?;
    let mut n_bytes = 0;
    loop {
        match link.reader.next_within(DEADLINE).await {
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
    use super::*;

    #[test]
    fn a_bandwidth_is_what_the_filler_took_beyond_the_round_trip() {
        let ms = Duration::from_millis;
        let measured = bytes_per_second(ms(53), ms(5));
        assert!((measured - TIMED_BYTES as f64 / 0.048).abs() < 1.0, "{measured}");
        assert_eq!(bytes_per_second(ms(1), ms(5)), MAX_BYTES_PER_SECOND, "a fast link has a bound");
    }
}
