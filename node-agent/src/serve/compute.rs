//! The compute thread of a segment: the one owner of its sessions and its engine.

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use polyphony_protocol::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::outlet::{NotConnected, Outlet};
use super::stage::{Effect, Stage};
use crate::board::Entry;
use crate::metrics::StepKind;
use crate::pace::{Figures, Pace, Shares, Step};
use crate::segment::Segment;
use crate::trial;

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host link: the gateway.
    Host,
    /// The ring link of the previous stage; the head's previous stage is the tail.
    Previous,
}

/// What a compute thread hears.
#[derive(Debug)]
pub enum Event {
    Frame { frame: Frame, source: Source },
    PeerLost { phone: String, why: String },
    Stop,
}

/// How many events wait at most; whoever sends more waits, and so does the ring behind it.
const QUEUE_EVENTS: usize = 1024;
/// How often deadlines are looked at while nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// A handle on the thread. Dropping it does not stop the thread; sending [`Event::Stop`] does.
#[derive(Clone)]
pub struct Compute {
    events: std_mpsc::SyncSender<Event>,
}

/// Why a compute thread does not take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("the segment no longer runs")]
    Ended,
    #[error("{QUEUE_EVENTS} frames wait for the segment already")]
    Full,
}

// === impl Compute ===

impl Compute {
    /// Starts the thread that owns `stage`, and a segment with its share of the memory budget.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        name: &str,
        (segment, memory): (Segment, OwnedSemaphorePermit),
        stage: Stage,
        next: Outlet,
        host: mpsc::Sender<Frame>,
        entry: Arc<Entry>,
    ) -> std::io::Result<Self> {
        let (events, inbox) = std_mpsc::sync_channel(QUEUE_EVENTS);
        let pace = Pace::new(Shares::default(), Figures::default());
        let mut worker = Worker { segment, _memory: memory, stage, next, host, entry, pace };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || worker.run(&inbox))?;
        Ok(Self { events })
    }

    /// Hands an event to the thread; never waits.
    ///
    /// # Errors
    /// When the thread has ended or its queue is full.
    pub fn try_send(&self, event: Event) -> Result<(), Unavailable> {
        self.events.try_send(event).map_err(|error| match error {
            std_mpsc::TrySendError::Full(_) => Unavailable::Full,
            std_mpsc::TrySendError::Disconnected(_) => Unavailable::Ended,
        })
    }

    /// Hands an event to the thread; waits on a blocking thread while the queue is full, so that the sender feels it.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn send(&self, event: Event) -> Result<(), Unavailable> {
        match self.events.try_send(event) {
            Ok(()) => Ok(()),
            Err(std_mpsc::TrySendError::Disconnected(_)) => Err(Unavailable::Ended),
            Err(std_mpsc::TrySendError::Full(event)) => {
                let events = self.events.clone();
                let sent = tokio::task::spawn_blocking(move || events.send(event).map_err(drop)).await;
                sent.map_err(|_| Unavailable::Ended)?.map_err(|_| Unavailable::Ended)
            }
        }
    }
}

struct Worker {
    segment: Segment,
    /// Given back when the segment is freed: fields are dropped in this order.
    _memory: OwnedSemaphorePermit,
    stage: Stage,
    next: Outlet,
    host: mpsc::Sender<Frame>,
    entry: Arc<Entry>,
    pace: Pace,
}

// === impl Worker ===

impl Worker {
    fn run(&mut self, inbox: &std_mpsc::Receiver<Event>) {
        self.time_trial();
        loop {
            let wait = if self.stage.has_work() { Duration::ZERO } else { TICK };
            let mut event = match inbox.recv_timeout(wait) {
                Ok(event) => Some(event),
                Err(std_mpsc::RecvTimeoutError::Timeout) => None,
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
            };
            while let Some(one) = event {
                let effects = match one {
                    Event::Frame { frame, source } => self.stage.accept(frame, source, Instant::now()),
                    Event::PeerLost { phone, why } => self.stage.peer_lost(&phone, &why),
                    Event::Stop => return,
                };
                self.deliver(effects);
                event = inbox.try_recv().ok();
            }
            let effects = self.stage.expire(Instant::now());
            self.deliver(effects);
            self.step();
            self.entry.set_sessions(self.stage.n_sessions());
            self.entry.set_queued_rows(self.stage.n_queued_rows());
        }
    }

    /// Times the segment before its first session comes.
    fn time_trial(&mut self) {
        match trial::run(&mut self.segment) {
            Ok((shares, figures)) => {
                self.pace = Pace::new(shares, figures);
                self.entry.set_figures(figures);
            }
            // The first real step will say the same to the session that it fails.
            Err(error) => tracing::error!(%error, "a trial step failed"),
        }
    }

    fn step(&mut self) {
        let began = Instant::now();
        let Some(batch) = self.stage.next_batch(began) else { return };
        let (n_rows, n_logits) = (batch.rows.len(), batch.n_logits);
        let is_decode = batch.jobs.len() == n_rows;
        let mut computing = None;
        let effects = match self.segment.step(&batch.rows, batch.input.clone(), n_logits) {
            Ok(output) => {
                let took = began.elapsed();
                computing = Some(took);
                self.entry.steps().note(if is_decode { StepKind::Decode } else { StepKind::Prefill }, took);
                self.stage.complete(batch, output, Instant::now())
            }
            Err(error) => {
                tracing::error!(%error, "a step failed");
                self.stage.fail(&batch, &error.to_string())
            }
        };
        self.deliver(effects);
        if let Some(computing) = computing {
            let n_layers = self.segment.n_layers();
            let step = Step { n_rows, n_logits, n_layers, is_decode, computing, whole: began.elapsed() };
            if let Some(figures) = self.pace.note(&step, Instant::now()) {
                self.entry.set_figures(figures);
            }
        }
    }

    fn deliver(&mut self, effects: Vec<Effect>) {
        let mut is_down = false;
        for effect in effects {
            match effect {
                Effect::Next(frame) => is_down |= self.next.send(frame).is_err(),
                // Without a host link the gateway knows that this phone is gone and replays.
                Effect::Host(frame) => drop(self.host.blocking_send(frame)),
            }
        }
        if is_down {
            let phone = self.stage.next_phone().to_owned();
            for effect in self.stage.peer_lost(&phone, &NotConnected.to_string()) {
                if let Effect::Host(frame) = effect {
                    drop(self.host.blocking_send(frame));
                }
            }
        }
    }
}
