//! The pulse of a ring link: how each end knows that the other is there, however long rows take.
//!
//! Rows flow one way. The end that dials asks, in a lane that overtakes its rows; the other answers, and says besides that it hears for as
//! long as bytes come, in the midst of a frame too, and while its segment has no room for what came. So a link that is slower than its load
//! is slow, and not silent.

use std::pin::pin;
use std::time::{Duration, Instant};

use polyphony_protocol::Frame;
use polyphony_wire::{Entrance, FrameReader, FrameWriter, LinkError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior};

/// How often an end gives a sign of life, and how long it waits for one.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    pub every: Duration,
    pub silence: Duration,
}

/// Of every ring link.
pub const RHYTHM: Rhythm = Rhythm { every: Duration::from_secs(1), silence: Duration::from_secs(6) };
/// The pong that nobody asked for. Pings count from 1.
const SIGN_OF_LIFE: Frame = Frame::Pong { nonce: 0 };

/// When an end has last heard of the other. Pure.
struct Pulse {
    n_bytes: u64,
    heard_at: Instant,
    silence: Duration,
}

/// The end that rows come to.
pub struct Listener<'a, R, W> {
    reader: &'a mut FrameReader<R>,
    writer: &'a mut FrameWriter<W>,
    ticks: Interval,
    pulse: Pulse,
}

// === impl Pulse ===

impl Pulse {
    fn new(n_bytes: u64, now: Instant, silence: Duration) -> Self {
        Self { n_bytes, heard_at: now, silence }
    }

    /// So many bytes have come by now: whether they have become more.
    ///
    /// # Errors
    /// When they have not for too long.
    fn beat(&mut self, n_bytes: u64, now: Instant) -> Result<bool, LinkError> {
        if n_bytes > self.n_bytes {
            (self.n_bytes, self.heard_at) = (n_bytes, now);
            return Ok(true);
        }
        match now.duration_since(self.heard_at) > self.silence {
            true => Err(LinkError::Silent(self.silence)),
            false => Ok(false),
        }
    }

    /// This end did not listen until now, which is no silence of the other.
    fn listens_again(&mut self, now: Instant) {
        self.heard_at = now;
    }
}

// === impl Listener ===

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Listener<'a, R, W> {
    pub fn new(reader: &'a mut FrameReader<R>, writer: &'a mut FrameWriter<W>, rhythm: Rhythm) -> Self {
        let pulse = Pulse::new(reader.n_bytes_read(), Instant::now(), rhythm.silence);
        Self { reader, writer, ticks: ticks(rhythm), pulse }
    }

    /// What comes of `doing`, which holds this end up: it says all the same that it is there.
    ///
    /// # Errors
    /// When the link breaks.
    pub async fn meanwhile<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, LinkError> {
        let mut doing = pin!(doing);
        loop {
            tokio::select! {
                biased;
                done = doing.as_mut() => return Ok(done),
                _ = self.ticks.tick() => self.writer.write(&SIGN_OF_LIFE).await?,
            }
        }
    }

    /// The next frame that is not the link's own.
    ///
    /// # Errors
    /// When the link breaks or is silent.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        self.pulse.listens_again(Instant::now());
        loop {
            // What has come counts before the clock does: this program may have been asleep.
            tokio::select! {
                biased;
                frame = self.reader.next() => match frame? {
                    Frame::Ping { nonce } => self.writer.write(&Frame::Pong { nonce }).await?,
                    frame => return Ok(frame),
                },
                _ = self.ticks.tick() => {
                    if self.pulse.beat(self.reader.n_bytes_read(), Instant::now())? {
                        self.writer.write(&SIGN_OF_LIFE).await?;
                    }
                }
            }
        }
    }
}

/// Asks the end that rows go to, and tells `measured` how long an answer took, until the link breaks or is silent.
pub async fn probe<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    entrance: &Entrance,
    rhythm: Rhythm,
    mut measured: impl FnMut(Duration),
) -> Result<(), LinkError> {
    let mut ticks = ticks(rhythm);
    let mut pulse = Pulse::new(reader.n_bytes_read(), Instant::now(), rhythm.silence);
    let (mut nonce, mut sent_at) = (0, Instant::now());
    loop {
        tokio::select! {
            biased;
            frame = reader.next() => match frame? {
                Frame::Pong { nonce: answered } if answered == nonce => measured(sent_at.elapsed()),
                Frame::Pong { .. } => {}
                // It says why it ends the link.
                Frame::Refused(why) => return Err(LinkError::Refused(why)),
                other => return Err(LinkError::unexpected(&other, "a pong")),
            },
            _ = ticks.tick() => {
                pulse.beat(reader.n_bytes_read(), Instant::now())?;
                nonce += 1;
                sent_at = Instant::now();
                // Where pings wait already, theirs are the answers to wait for.
                let _ = entrance.overtake(Frame::Ping { nonce });
            }
        }
    }
}

fn ticks(rhythm: Rhythm) -> Interval {
    let mut ticks = tokio::time::interval(rhythm.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use polyphony_wire::{Bounds, LaneLimits, Uncounted, lanes};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    #[test]
    fn whatever_bytes_come_are_a_sign_of_life_and_only_silence_is_none() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut pulse = Pulse::new(40, now, 6 * second);
        assert!(matches!(pulse.beat(40, now + 6 * second), Ok(false)));
        assert!(matches!(pulse.beat(41, now + 7 * second), Ok(true)));
        assert!(matches!(pulse.beat(41, now + 13 * second), Ok(false)));
        assert!(matches!(pulse.beat(41, now + 14 * second), Err(LinkError::Silent(_))));
        pulse.listens_again(now + 14 * second);
        assert!(matches!(pulse.beat(41, now + 20 * second), Ok(false)));
    }

    /// Carries 1 KiB at a time, with a pause after each, and takes far more at once than it has carried.
    async fn slow(mut from: DuplexStream, mut to: DuplexStream) {
        let mut piece = [0; 1 << 10];
        while let Ok(n_bytes @ 1..) = from.read(&mut piece).await {
            to.write_all(&piece[..n_bytes]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each frame of rows takes longer than the silence that is allowed, and pings wait behind all of them where nothing overtakes.
    #[tokio::test]
    async fn a_link_that_is_slower_than_its_load_is_not_taken_for_silent() {
        let rhythm = Rhythm { every: Duration::from_millis(100), silence: Duration::from_millis(1200) };
        let bounds = Bounds::default();
        let writer = |stream| FrameWriter::new(stream, Duration::from_secs(60), Arc::new(Uncounted), Arc::default());
        let (near, near_end) = tokio::io::duplex(1 << 20);
        let (far_end, far) = tokio::io::duplex(1 << 10);
        let (far_answers, answers) = tokio::io::duplex(1 << 10);
        let link = tokio::spawn(slow(near_end, far_end));
        let (entrance, mut waiting) = lanes(LaneLimits { frames: 8, bytes: 0 });
        let rows = Frame::Filler(vec![0; 100 << 10].into());
        for _ in 0..2 {
            entrance.queue(rows.clone()).unwrap();
        }
        let (mut reader, mut to_far) = (FrameReader::metered(answers, bounds), writer(near));
        let (mut far_reader, mut to_near) = (FrameReader::metered(far, bounds), writer(far_answers));
        let mut listener = Listener::new(&mut far_reader, &mut to_near, rhythm);
        let heard = async {
            for _ in 0..2 {
                assert_eq!(listener.next().await.unwrap(), rows);
            }
        };
        tokio::select! {
            () = heard => {}
            end = to_far.write_lanes(&mut waiting) => panic!("{end:?}"),
            end = probe(&mut reader, &entrance, rhythm, |_| {}) => panic!("the end that dials: {end:?}"),
        }
        link.abort();
    }

    #[tokio::test]
    async fn an_end_that_is_held_up_says_that_it_is_there() {
        let rhythm = Rhythm { every: Duration::from_millis(5), silence: Duration::from_secs(3600) };
        let (near, far) = tokio::io::duplex(1 << 10);
        let (near_read, _near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        let mut reader = FrameReader::metered(near_read, Bounds::default());
        let mut far_reader = FrameReader::metered(far_read, Bounds::default());
        let mut far_writer = FrameWriter::new(far_write, Duration::from_secs(60), Arc::new(Uncounted), Arc::default());
        let mut listener = Listener::new(&mut far_reader, &mut far_writer, rhythm);
        let signs = async {
            for _ in 0..3 {
                assert_eq!(reader.next_within(Duration::from_secs(60)).await.unwrap(), SIGN_OF_LIFE);
            }
        };
        listener.meanwhile(signs).await.unwrap();
    }

    #[tokio::test]
    async fn an_end_that_says_nothing_is_silent_and_one_that_answers_is_measured() {
        let rhythm = Rhythm { every: Duration::from_millis(5), silence: Duration::from_millis(50) };
        let (stream, far) = tokio::io::duplex(1 << 10);
        let (read, _write) = tokio::io::split(stream);
        let (far_read, far_write) = tokio::io::split(far);
        let mut reader = FrameReader::metered(read, Bounds::default());
        let (entrance, mut waiting) = lanes(LaneLimits { frames: 1, bytes: 0 });
        let mut far_writer = FrameWriter::new(far_write, Duration::from_secs(60), Arc::new(Uncounted), Arc::default());
        let (told, mut measured) = tokio::sync::mpsc::unbounded_channel();
        let answering = async {
            for _ in 0..3 {
                let frame = waiting.next().await.unwrap();
                let Frame::Ping { nonce } = frame else { panic!("{frame:?}") };
                far_writer.write(&Frame::Pong { nonce }).await.unwrap();
            }
        };
        let probing = probe(&mut reader, &entrance, rhythm, |took| told.send(took).unwrap());
        let (end, ()) = tokio::join!(probing, answering);
        assert!(matches!(end, Err(LinkError::Silent(_))), "{end:?}");
        assert!(measured.try_recv().is_ok());
        drop(far_read);
    }
}
