//! The worker: what runs on a compute thread. The one owner of a segment, its engine, and the sessions of its stages.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use polyphony_model::Holds;
use polyphony_protocol::frame::{Failed, FailureCode, KvRows};
use polyphony_protocol::{Frame, PlanGeneration, RouteKey};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::batch::Batch;
use super::compute::{Attachment, Call, Compute, Event, Skip, Source};
use super::faults::Faults;
use super::kv_transfer::{PIECE_BYTES, Puller};
use super::outlet::{NotConnected, Outlet};
use super::stage::{Effect, EncoderJob, EncoderStep, Stage, Work};
use crate::board::Entry;
use crate::hub_link::key_of;
use crate::kv_cache::Slots;
use crate::metrics::StepKind;
use crate::pace::{Figures, Pace, Shares, Step};
use crate::segment::{AnySegment, SegmentError};
use crate::trial;

/// How often deadlines are looked at while nothing happens.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Worker {
    segment: AnySegment,
    /// Given back when the segment is freed: fields are dropped in this order.
    _memory: OwnedSemaphorePermit,
    slots: Slots,
    stages: Vec<Attached>,
    /// Which of the stages may step first.
    turn: usize,
    host: mpsc::Sender<Frame>,
    runtime: Handle,
    /// For handles that others call back on.
    calls: std_mpsc::SyncSender<Call>,
    /// Of the segment, whichever stage runs on it.
    pace: Pace,
    faults: Faults,
    /// Why it has to be loaded anew, when that is so.
    broken: watch::Sender<Option<String>>,
}

/// A stage and what belongs to it.
struct Attached {
    generation: PlanGeneration,
    stage: Stage,
    holds: Holds,
    next: Outlet,
    skips: BTreeMap<u32, Skip>,
    entry: Arc<Entry>,
    puller: Puller,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(
        (segment, memory): (AnySegment, OwnedSemaphorePermit),
        host: mpsc::Sender<Frame>,
        runtime: Handle,
        calls: std_mpsc::SyncSender<Call>,
        broken: watch::Sender<Option<String>>,
    ) -> Self {
        let slots = Slots::new(segment.capacity().n_slots);
        let pace = Pace::new(Shares::default(), Figures::default());
        let (stages, turn, faults) = (Vec::new(), 0, Faults::default());
        Self { segment, _memory: memory, slots, stages, turn, host, runtime, calls, pace, faults, broken }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(&mut self, inbox: &std_mpsc::Receiver<Call>) {
        self.time_trial();
        loop {
            let has_work = self.stages.iter().any(|it| it.stage.has_work());
            let wait = if has_work { Duration::ZERO } else { TICK };
            let mut call = match inbox.recv_timeout(wait) {
                Ok(call) => Some(call),
                Err(std_mpsc::RecvTimeoutError::Timeout) => {
                    if !has_work {
                        let figures = self.pace.catch_up(Instant::now());
                        self.publish(figures);
                    }
                    None
                }
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
            };
            while let Some(one) = call {
                match one {
                    Call::Attach(attachment) => self.attach(*attachment),
                    Call::Detach(generation) => self.detach(generation),
                    Call::Stage(generation, event) => self.hear(generation, event),
                    Call::Stop => return,
                }
                call = inbox.try_recv().ok();
            }
            for index in 0..self.stages.len() {
                let effects = self.stages[index].stage.expire(Instant::now());
                self.deliver(index, effects);
            }
            self.step();
            for it in &self.stages {
                it.entry.set_sessions(it.stage.n_sessions());
                it.entry.set_queued_rows(it.stage.n_queued_rows());
            }
        }
    }

    fn attach(&mut self, attachment: Attachment) {
        let Attachment { shape, holds, next, skips, entry, puller } = attachment;
        let generation = shape.generation;
        // One of the same generation is gone: its own end is on its way behind this.
        self.detach(generation);
        let stage = Stage::new(shape, self.slots.clone());
        entry.set_figures(self.pace.figures());
        self.stages.push(Attached { generation, stage, holds, next, skips, entry, puller });
    }

    fn detach(&mut self, generation: PlanGeneration) {
        if let Some(index) = self.find(generation) {
            self.stages.remove(index).stage.release();
        }
    }

    fn find(&self, generation: PlanGeneration) -> Option<usize> {
        self.stages.iter().position(|it| it.generation == generation)
    }

    fn hear(&mut self, generation: PlanGeneration, event: Event) {
        let Some(index) = self.find(generation) else {
            return self.refuse_late(event);
        };
        let now = Instant::now();
        let effects = match event {
            Event::Frame { frame, source } => self.accept(index, frame, source, now),
            Event::PeerLost { phone, why } => self.stages[index].stage.peer_lost(&phone, &why),
            Event::ReadKv { key, n_positions, layer, positions, answer } => {
                // Who asked may have gone.
                let _ = answer.send(self.read_kv(index, key, n_positions, layer, positions));
                Vec::new()
            }
            Event::WriteKv { key, rows } => match self.write_kv(index, key, &rows) {
                Ok(()) => Vec::new(),
                Err(why) => self.stages[index].stage.kv_failed(key, &why),
            },
            Event::Pulled { key, end: Ok(()) } => self.stages[index].stage.kv_arrived(key, now),
            Event::Pulled { key, end: Err(why) } => self.stages[index].stage.kv_failed(key, &why),
        };
        self.deliver(index, effects);
    }

    /// The stage ended with this on its way. The gateway is told; whoever else waits for an answer sees that none comes.
    fn refuse_late(&self, event: Event) {
        let Event::Frame { frame, source: Source::Host } = event else { return };
        if let Some(key) = key_of(&frame).filter(|_| !matches!(frame, Frame::Close { .. })) {
            let message = format!("generation {} of ring {} was released", key.generation, key.ring);
            let failed = Failed { key, code: FailureCode::StaleGeneration, message };
            drop(self.host.blocking_send(Frame::Failed(failed)));
        }
    }

    /// A session is in one generation alone: who opens it anew ends it elsewhere, who resumes it takes what is there.
    fn accept(&mut self, index: usize, frame: Frame, source: Source, now: Instant) -> Vec<Effect> {
        match frame {
            Frame::Open { key, .. } if self.stages[index].stage.takes_session(key, source) => {
                let others = self.stages.iter_mut().enumerate().filter(|(other, _)| *other != index);
                others.for_each(|(_, it)| it.stage.forget_before(key));
                self.stages[index].stage.accept(frame, source, now)
            }
            Frame::Resume(resume) if self.stages[index].stage.takes_session(resume.key, source) => {
                let from = RouteKey { generation: resume.from, epoch: resume.from_epoch, ..resume.key };
                let old = self.find(resume.from).filter(|old| *old != index);
                let kept = old.and_then(|old| self.stages[old].stage.kept(from, resume.position));
                self.stages[index].stage.resume(resume, kept, now)
            }
            frame => self.stages[index].stage.accept(frame, source, now),
        }
    }

    /// The stages take turns, so that none waits for more than one step of each other.
    fn step(&mut self) {
        let n_stages = self.stages.len();
        let began = Instant::now();
        for offset in 0..n_stages {
            let index = (self.turn + offset) % n_stages;
            let Some(work) = self.stages[index].stage.next_work(began) else { continue };
            self.turn = index + 1;
            let keys: Vec<RouteKey> = match &work {
                Work::Batch(batch) => batch.jobs.iter().map(|job| job.key).collect(),
                Work::Encoder(job) => vec![job.key],
            };
            let done = match work {
                Work::Batch(batch) => self.run_batch(index, batch, began),
                Work::Encoder(job) => self.run_encoder(index, job, began),
            };
            match done {
                Ok((effects, step)) => {
                    self.faults.step_succeeded();
                    self.deliver(index, effects);
                    self.note(&Step { whole: began.elapsed(), ..step });
                }
                Err(error) => {
                    tracing::error!(%error, "a step failed");
                    let effects = self.stages[index].stage.fail(&keys, &error.to_string());
                    self.deliver(index, effects);
                    if let Some(why) = self.faults.step_failed(&error) {
                        self.broken.send_replace(Some(why));
                    }
                }
            }
            return;
        }
    }

    fn run_batch(&mut self, index: usize, batch: Batch, began: Instant) -> Result<(Vec<Effect>, Step), SegmentError> {
        let it = &mut self.stages[index];
        let (n_rows, n_logits) = (batch.rows.len(), batch.n_logits);
        let is_decode = batch.jobs.len() == n_rows;
        let rows = (&batch.rows[..], &batch.n_encoded[..]);
        let output = self.segment.step_of(it.holds, rows, batch.input.clone(), n_logits)?;
        let computing = began.elapsed();
        it.entry.steps().note(if is_decode { StepKind::Decode } else { StepKind::Prefill }, computing);
        let n_layers = self.segment.n_decoding_layers(it.holds);
        let step = Step { n_rows, n_logits, n_layers, is_decode, computing, whole: computing };
        Ok((it.stage.complete(batch, output, Instant::now()), step))
    }

    fn run_encoder(
        &mut self,
        index: usize,
        job: EncoderJob,
        began: Instant,
    ) -> Result<(Vec<Effect>, Step), SegmentError> {
        let it = &mut self.stages[index];
        let EncoderJob { key, slot, n_rows, step } = job;
        let segment = self.segment.with_encoder()?;
        let (effects, n_layers) = match step {
            EncoderStep::Encode(input) => {
                let values = segment.encode_of(it.holds, n_rows, input)?;
                (it.stage.encoded((key, slot), values), segment.n_encoding_layers(it.holds))
            }
            EncoderStep::TakeEncoded(values) => {
                segment.take_encoded_of(it.holds, slot, values)?;
                it.stage.taken(key);
                // Two products a layer are no pass through it.
                (Vec::new(), 0)
            }
        };
        let computing = began.elapsed();
        it.entry.steps().note(StepKind::Prefill, computing);
        Ok((effects, Step { n_rows, n_logits: 0, n_layers, is_decode: false, computing, whole: computing }))
    }

    /// Times the segment before its first session comes.
    fn time_trial(&mut self) {
        match trial::run(&mut self.segment) {
            Ok((shares, figures)) => self.pace = Pace::new(shares, figures),
            Err(error) => {
                tracing::error!(%error, "a trial step failed");
                self.broken.send_replace(Some(Faults::trial_failed(&error)));
            }
        }
    }

    fn note(&mut self, step: &Step) {
        let figures = self.pace.note(step, Instant::now());
        self.publish(figures);
    }

    fn publish(&self, figures: Option<Figures>) {
        if let Some(figures) = figures {
            self.stages.iter().for_each(|it| it.entry.set_figures(figures));
        }
    }

    fn deliver(&mut self, index: usize, effects: Vec<Effect>) {
        let mut lost: Option<String> = None;
        let it = &mut self.stages[index];
        for effect in effects {
            match effect {
                Effect::Next(frame) => {
                    if it.next.send(frame).is_err() {
                        lost = Some(it.stage.next_phone().to_owned());
                    }
                }
                Effect::Skip { to, frame } => {
                    let sent = it.skips.get(&to).map(|skip| skip.outlet.send(frame));
                    if sent != Some(Ok(())) {
                        lost = Some(it.skips.get(&to).map_or_else(|| format!("stage {to}"), |skip| skip.phone.clone()));
                    }
                }
                // Without a host link the gateway knows that this phone is gone and replays.
                Effect::Host(frame) => drop(self.host.blocking_send(frame)),
                Effect::Pull(pull) => {
                    let compute = Compute::new(it.generation, self.calls.clone());
                    self.runtime.spawn(it.puller.clone().run(pull, compute));
                }
            }
        }
        if let Some(phone) = lost {
            for effect in it.stage.peer_lost(&phone, &NotConnected.to_string()) {
                if let Effect::Host(frame) = effect {
                    drop(self.host.blocking_send(frame));
                }
            }
        }
    }

    /// As many of the positions as make a piece, if this stage has computed all that is asked for.
    fn read_kv(
        &mut self,
        index: usize,
        key: RouteKey,
        n_positions: u32,
        layer: u32,
        positions: Range<u32>,
    ) -> Result<Vec<KvRows>, String> {
        let segment = self.segment.with_movable_cache().map_err(|error| error.to_string())?;
        let it = &self.stages[index];
        let Some(kept) = it.stage.kept(key, n_positions) else {
            return Err(format!("it has not computed {n_positions} positions of session {}", key.session));
        };
        if !kept.layers.contains(layer) || positions.end > n_positions {
            return Err(format!("layer {layer} up to position {} is not this stage's", positions.end));
        }
        let bytes_per_position = segment.kv_values_per_position() * 4;
        let per_frame = u32::try_from((PIECE_BYTES / bytes_per_position).max(1)).unwrap_or(u32::MAX);
        let mut all = Vec::new();
        let mut position = positions.start;
        while position < positions.end {
            let end = positions.end.min(position.saturating_add(per_frame));
            let values = segment.read_kv(layer, kept.slot, position..end).map_err(|error| error.to_string())?;
            all.push(KvRows { key, layer, position, n_positions: end - position, values: bytes_of(&values) });
            position = end;
        }
        Ok(all)
    }

    fn write_kv(&mut self, index: usize, key: RouteKey, rows: &KvRows) -> Result<(), String> {
        // A session that ended meanwhile needs nothing.
        let Some(slot) = self.stages[index].stage.slot_to_fill(key) else { return Ok(()) };
        let values: Vec<f32> = rows.values.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        let segment = self.segment.with_movable_cache().map_err(|error| error.to_string())?;
        let written = segment.write_kv(rows.layer, slot, (rows.position, rows.n_positions), &values);
        written.map_err(|error| error.to_string())
    }
}

fn bytes_of(values: &[f32]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(values.len() * 4);
    values.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}
