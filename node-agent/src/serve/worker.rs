//! The worker: what runs on a compute thread. The one owner of a segment, its engine, and the sessions of its stages.
//!
//! It waits for calls and for the next deadline, and never for a network: what it sends is queued, or the link is given up.

mod attached;
mod cache_pieces;

use std::time::{Duration, Instant};

use polyphony_protocol::frame::Failed;
use polyphony_protocol::{Frame, PlanGeneration, RouteKey};
use tokio::sync::watch;

use super::batch::{Batch, Part, StepInput};
use super::calls::{Calls, Inbox, Late};
use super::compute::{Attachment, AttachmentId, Call};
use super::event::{Event, Source, key_of};
use super::faults::Faults;
use super::outlet::ToHost;
use super::stage::{AnyStage, Effect, EncoderJob, EncoderStep, Reason, Work};
use crate::at_work::{Activity, AtWork};
use crate::budget::Share;
use crate::duty::Duty;
use crate::kv_cache::Slots;
use crate::pace::{Figures, Pace, Shares, Step};
use crate::segment::{AnySegment, SegmentError};
use crate::steps::StepKind;
use crate::trial;

use attached::{Attached, Lost};

/// How long after the last step its figures are told, if no other step comes.
const FIGURES_AFTER: Duration = Duration::from_millis(250);

/// A loaded segment with its share of the memory budget.
pub struct Owned {
    pub segment: AnySegment,
    /// Given back when the segment is freed: fields are dropped in this order.
    pub memory: Share,
}

/// How a thread is to work.
pub struct Conduct {
    /// Of the phone.
    pub duty: Duty,
    /// No rest is longer: others wait for what is asked of this phone meanwhile.
    pub longest_rest: Duration,
    pub at_work: AtWork,
}

pub(super) struct Worker {
    owned: Owned,
    conduct: Conduct,
    slots: Slots,
    stages: Vec<Attached>,
    /// Which of the stages may step first.
    turn: usize,
    host: ToHost,
    /// For handles that others call back on.
    calls: Calls<Call>,
    /// Of the segment, whichever stage runs on it.
    pace: Pace,
    /// When the figures of the last steps are due.
    figures_due: Option<Instant>,
    faults: Faults,
    /// Why it has to be loaded anew, when that is so.
    broken: watch::Sender<Option<String>>,
}

/// What a step gave.
struct Done {
    effects: Vec<Effect>,
    step: Step,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Further calls may be heard before the next step.
    Hear,
    /// A piece of a KV cache was copied: others' steps come before the next one.
    Step,
    Stop,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(
        owned: Owned,
        conduct: Conduct,
        host: ToHost,
        calls: Calls<Call>,
        broken: watch::Sender<Option<String>>,
    ) -> Self {
        let slots = Slots::new(owned.segment.capacity().n_slots);
        let pace = Pace::new(Shares::default(), Figures::default());
        let (stages, turn, faults, figures_due) = (Vec::new(), 0, Faults::default(), None);
        Self { owned, conduct, slots, stages, turn, host, calls, pace, figures_due, faults, broken }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(&mut self, inbox: &Inbox<Call>) {
        self.time_trial();
        while self.turn(inbox) {}
    }

    /// Hears what waits, looks at the deadlines and runs a step. Whether another turn is to come.
    fn turn(&mut self, inbox: &Inbox<Call>) -> bool {
        let mut call = self.wait(inbox).ok();
        while let Some(one) = call {
            match self.take(one) {
                Next::Hear => call = inbox.try_recv(),
                Next::Step => break,
                Next::Stop => return false,
            }
        }
        self.handle_timeouts();
        self.step();
        for it in &self.stages {
            it.entry.set_sessions(it.stage.decoding().n_sessions());
            it.entry.set_queued_rows(it.stage.n_queued_rows());
        }
        true
    }

    /// The thread ends by a fault of this program: the gateway hears it of every session, and of what waits to be heard.
    pub(super) fn abandon(&mut self, inbox: &Inbox<Call>) {
        while !self.stages.is_empty() {
            self.end(0);
        }
        while let Some(call) = inbox.try_recv() {
            if let Call::Stage(generation, event) = call {
                self.refuse_late(generation, event);
            }
        }
    }

    /// The next call; none at once where a step can be run, none at the end of a rest that a step waits for, and none at the next deadline.
    fn wait(&self, inbox: &Inbox<Call>) -> Result<Call, Late> {
        let has_work = self.stages.iter().any(|it| it.stage.has_work());
        let rest = self.conduct.duty.rests_until(Instant::now()).filter(|_| has_work);
        if has_work && rest.is_none() {
            return inbox.try_recv().ok_or(Late);
        }
        let deadlines = self.stages.iter().filter_map(|it| it.stage.poll_timeout());
        inbox.recv_until(deadlines.chain(self.figures_due).chain(rest).min())
    }

    fn take(&mut self, call: Call) -> Next {
        match call {
            Call::Attach(id, attachment) => self.attach(id, *attachment),
            Call::Detach(id) => self.detach(id),
            Call::Stage(generation, event) => {
                let is_copy = matches!(event, Event::ReadKv { .. } | Event::WriteKv { .. });
                self.hear(generation, event);
                return if is_copy { Next::Step } else { Next::Hear };
            }
            Call::Stop => return Next::Stop,
        }
        Next::Hear
    }

    fn handle_timeouts(&mut self) {
        let now = Instant::now();
        for index in 0..self.stages.len() {
            if self.stages[index].stage.poll_timeout().is_some_and(|deadline| deadline <= now) {
                let effects = self.stages[index].stage.handle_timeout(now);
                self.deliver(index, effects);
            }
        }
        if self.figures_due.is_some_and(|due| due <= now) {
            self.figures_due = None;
            let figures = self.pace.catch_up(now);
            self.publish(figures);
        }
    }

    fn attach(&mut self, id: AttachmentId, attachment: Attachment) {
        let Attachment { shape, holds, next, skips, entry, pull } = attachment;
        let generation = shape.generation;
        // One of the same generation is gone: its own end is on its way behind this.
        if let Some(index) = self.find(generation) {
            self.end(index);
        }
        let stage = AnyStage::new(shape, self.slots.clone());
        entry.set_figures(self.pace.figures());
        self.stages.push(Attached { id, generation, stage, holds, next, skips, entry, pull });
    }

    fn detach(&mut self, id: AttachmentId) {
        if let Some(index) = self.stages.iter().position(|it| it.id == id) {
            self.end(index);
        }
    }

    fn end(&mut self, index: usize) {
        let effects = self.stages[index].stage.decoding_mut().release();
        self.deliver(index, effects);
        self.stages.remove(index);
    }

    fn find(&self, generation: PlanGeneration) -> Option<usize> {
        self.stages.iter().position(|it| it.generation == generation)
    }

    fn hear(&mut self, generation: PlanGeneration, event: Event) {
        let Some(index) = self.find(generation) else {
            return self.refuse_late(generation, event);
        };
        let now = Instant::now();
        let copies = matches!(event, Event::ReadKv { .. } | Event::WriteKv { .. });
        let _at_work = copies.then(|| self.conduct.at_work.begin(Activity::Other, now));
        let stage = &mut self.stages[index].stage;
        let effects = match event {
            Event::Frame { frame, source } => self.accept(index, frame, source, now),
            Event::PeerLost { phone, why } => stage.decoding_mut().peer_lost(&phone, &why),
            Event::HostLost => stage.decoding_mut().host_lost(),
            Event::AllOver => stage.decoding_mut().all_over(),
            Event::ReadKv { key, n_positions, layer, positions, answer } => {
                // Who asked may have gone.
                let _ = answer.send(self.read_kv(index, key, n_positions, layer, positions));
                Vec::new()
            }
            Event::WriteKv { key, rows, place: _ } => match self.write_kv(index, key, &rows) {
                Ok(()) => Vec::new(),
                Err(why) => self.stages[index].stage.decoding_mut().kv_failed(key, &why),
            },
            Event::Pulled { key, end: Ok(()) } => stage.decoding_mut().kv_arrived(key, now),
            Event::Pulled { key, end: Err(why) } => stage.decoding_mut().kv_failed(key, &why),
        };
        self.deliver(index, effects);
    }

    /// The stage ended with this on its way. The gateway is told; whoever else waits for an answer sees that none comes.
    fn refuse_late(&self, generation: PlanGeneration, event: Event) {
        let Event::Frame { frame, source: Source::Host } = event else { return };
        if let Some(key) = key_of(&frame).filter(|_| !matches!(frame, Frame::Close { .. })) {
            let reason = Reason::Released { generation };
            self.host.send(Frame::Failed(Failed { key, code: reason.code(), message: reason.to_string() }));
        }
    }

    /// A session is in one generation alone: who opens it anew ends it elsewhere, who resumes it takes what is there.
    fn accept(&mut self, index: usize, frame: Frame, source: Source, now: Instant) -> Vec<Effect> {
        match frame {
            Frame::Open { key, .. } if self.stages[index].stage.decoding().takes_session(key, source) => {
                let others = self.stages.iter_mut().enumerate().filter(|(other, _)| *other != index);
                others.for_each(|(_, it)| it.stage.decoding_mut().forget_before(key));
                self.stages[index].stage.accept(frame, source, now)
            }
            Frame::Resume(resume) if self.stages[index].stage.decoding().takes_session(resume.key, source) => {
                let from = RouteKey { generation: resume.from, epoch: resume.from_epoch, ..resume.key };
                let old = self.find(resume.from).filter(|old| *old != index);
                let kept = old.and_then(|old| self.stages[old].stage.kept(from, resume.position));
                self.stages[index].stage.resume(resume, kept, now)
            }
            frame => self.stages[index].stage.accept(frame, source, now),
        }
    }

    /// The stages take turns, so that none waits for more than one step of each other. After one the phone rests, as its duty asks; who
    /// calls is heard all the same.
    fn step(&mut self) {
        let (n_stages, began) = (self.stages.len(), Instant::now());
        if self.conduct.duty.rests_until(began).is_some() {
            return;
        }
        for offset in 0..n_stages {
            let index = (self.turn + offset) % n_stages;
            let Some(work) = self.stages[index].stage.next_work(began) else { continue };
            self.turn = index + 1;
            let keys = match &work {
                Work::Decode { batch, .. } => batch.keys(),
                Work::Encoder(job) => vec![job.key],
            };
            let at_work = self.conduct.at_work.begin(Activity::Step, began);
            let done = match work {
                Work::Decode { batch, n_encoded } => self.run_batch(index, batch, &n_encoded, began),
                Work::Encoder(job) => self.run_encoder(index, job, began),
            };
            drop(at_work);
            match done {
                Ok(Done { effects, step }) => {
                    self.faults.step_succeeded();
                    self.deliver(index, effects);
                    let Conduct { duty, longest_rest, .. } = &self.conduct;
                    let rest = duty.rest_after(step.computing, *longest_rest, Instant::now());
                    self.note(&Step { computing: step.computing + rest, whole: began.elapsed() + rest, ..step });
                }
                Err(error) => {
                    tracing::error!(%error, "a step failed");
                    let effects = self.stages[index].stage.decoding_mut().fail(&keys, &error.to_string());
                    self.deliver(index, effects);
                    if let Some(why) = self.faults.step_failed(&error) {
                        self.broken.send_replace(Some(why));
                    }
                }
            }
            return;
        }
    }

    fn run_batch(
        &mut self,
        index: usize,
        batch: Batch,
        n_encoded: &[u32],
        began: Instant,
    ) -> Result<Done, SegmentError> {
        let it = &mut self.stages[index];
        let segment = &mut self.owned.segment;
        let is_decode = batch.is_decode();
        let Batch { parts, step: StepInput { rows, input, n_logits } } = batch;
        let output = segment.step_of(it.holds, &rows, n_encoded, input, n_logits)?;
        let computing = began.elapsed();
        it.entry.steps().note(if is_decode { StepKind::Decode } else { StepKind::Prefill }, computing);
        self.conduct.at_work.decoded(if is_decode { rows.len() } else { 0 });
        for Part { key, position, n_rows, sample } in &parts {
            tracing::debug!(session = %key.session, position, n_rows, sample, "computed");
        }
        let n_layers = segment.n_decoding_layers(it.holds);
        let step = Step { n_rows: rows.len(), n_logits, n_layers, is_decode, computing, whole: computing };
        Ok(Done { effects: it.stage.decoding_mut().complete(&parts, &output, Instant::now()), step })
    }

    fn run_encoder(&mut self, index: usize, job: EncoderJob, began: Instant) -> Result<Done, SegmentError> {
        let it = &mut self.stages[index];
        let EncoderJob { key, slot, n_rows, step } = job;
        let segment = self.owned.segment.with_encoder()?;
        let Some(stage) = it.stage.encoder_mut() else {
            return Err(SegmentError::InputKind { given: "a prompt for an encoder", wanted: "rows to decode" });
        };
        let (effects, n_layers) = match step {
            EncoderStep::Encode(input) => {
                let values = segment.encode_of(it.holds, n_rows, input)?;
                (stage.encoded(key, values), segment.n_encoding_layers(it.holds))
            }
            EncoderStep::TakeEncoded(values) => {
                segment.take_encoded_of(it.holds, slot, values)?;
                stage.taken(key);
                // Two products a layer are no pass through it.
                (Vec::new(), 0)
            }
        };
        let computing = began.elapsed();
        it.entry.steps().note(StepKind::Prefill, computing);
        let step = Step { n_rows, n_logits: 0, n_layers, is_decode: false, computing, whole: computing };
        Ok(Done { effects, step })
    }

    /// Times the segment before its first session comes.
    fn time_trial(&mut self) {
        let _at_work = self.conduct.at_work.begin(Activity::Other, Instant::now());
        match trial::run(&mut self.owned.segment) {
            Ok((shares, figures)) => self.pace = Pace::new(shares, figures.at_duty(self.conduct.duty.now())),
            Err(error) => {
                tracing::error!(%error, "a trial step failed");
                self.broken.send_replace(Some(Faults::trial_failed(&error)));
            }
        }
    }

    fn note(&mut self, step: &Step) {
        let now = Instant::now();
        self.figures_due = Some(now + FIGURES_AFTER);
        let figures = self.pace.note(step, now);
        self.publish(figures);
    }

    fn publish(&self, figures: Option<Figures>) {
        if let Some(figures) = figures {
            self.stages.iter().for_each(|it| it.entry.set_figures(figures));
        }
    }

    /// Carries out what a stage wants done. A link that does not take a frame ends the sessions, which is all the rest.
    fn deliver(&mut self, index: usize, effects: Vec<Effect>) {
        let it = &self.stages[index];
        let mut lost = None;
        for effect in effects {
            lost = lost.or(it.carry_out(effect, &self.host, &self.calls));
        }
        if let Some(Lost { phone, why }) = lost {
            let effects = self.stages[index].stage.decoding_mut().peer_lost(&phone, &why.to_string());
            if !effects.is_empty() {
                tracing::warn!(peer = %phone, %why, "sessions end, for a frame of theirs could not be sent");
            }
            let it = &self.stages[index];
            for effect in effects {
                // What cannot be told of an end over a broken link is told by the link's end.
                let _ = it.carry_out(effect, &self.host, &self.calls);
            }
        }
    }
}

#[cfg(test)]
mod tests;
