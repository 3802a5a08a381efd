//! The reconcile loop: observe → decide → act, woken by watches, the hub, models, and once a second.
//!
//! Level-triggered: each round looks at everything and writes only what differs. Losing the process between two writes
//! loses nothing, because the next life decides from the same objects. Beside it the [`herald`] tells phones and gateway what is known,
//! and the [`outbox`] what happened; neither waits for a round.

pub mod act;
pub mod class;
pub mod commitment;
pub mod decide;
pub mod draft;
pub mod elapsed;
pub mod facts;
pub mod failures;
pub mod generations;
pub mod herald;
pub mod ledger;
pub mod object_key;
pub mod observe;
pub mod outbox;
pub mod planner;
pub mod power;
pub mod preview;
pub mod problem;
pub mod reach;
pub mod segments;
pub mod setbacks;
pub mod stores;
pub mod ways;
pub mod written;

mod memory;
mod panics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::metrics::Metrics;
use act::{ActError, Actor};
use decide::{Action, Course, Decision, Subject};
use draft::Draft;
use herald::Herald;
use memory::Memory;
use observe::{ObjectKey, Observed, Settings, Sources};
use outbox::Outbox;
use planner::RememberingPlanner;
use reach::Reach;
use setbacks::Cause;
use written::Written;

/// A round comes at least this often, for what time alone changes; and never sooner after the last one than the second.
const TICK: Duration = Duration::from_secs(1);
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// How long a round waits to see its own writes come back, and how often it looks.
const READ_BACK_DEADLINE: Duration = Duration::from_secs(2);
const READ_BACK_POLL: Duration = Duration::from_millis(5);
/// Courses that are followed at a time.
const COURSES_AT_A_TIME: usize = 16;

/// The loop and all it needs.
pub struct Reconciler {
    pub sources: Arc<Sources>,
    pub actor: Actor,
    pub herald: Herald,
    pub outbox: Arc<Outbox>,
    pub reach: Arc<Reach>,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
}

/// How far a course came.
struct Followed {
    subject: Subject,
    written: Vec<Written>,
    /// Whether it came to its end.
    is_done: bool,
    /// What was not done, and why.
    failed: Option<(Action, ActError)>,
}

// === impl Reconciler ===

impl Reconciler {
    /// Runs until `stop`. The stores have to be ready.
    pub async fn run(self, stop: CancellationToken) {
        let started = Instant::now();
        let looked = Arc::new(Notify::new());
        let Self { sources, actor, herald, outbox, reach, settings, metrics } = self;
        let telling = outbox.run(actor.client.clone(), stop.clone());
        let heralding = herald.run(started, looked.clone(), stop.clone());
        let rounds = Rounds { sources, actor, outbox: outbox.clone(), reach, settings, metrics, started };
        tokio::join!(telling, heralding, rounds.run(looked, stop.clone()));
    }
}

/// What a round needs.
struct Rounds {
    sources: Arc<Sources>,
    actor: Actor,
    outbox: Arc<Outbox>,
    reach: Arc<Reach>,
    settings: Settings,
    metrics: Arc<Metrics>,
    started: Instant,
}

// === impl Rounds ===

impl Rounds {
    async fn run(self, looked: Arc<Notify>, stop: CancellationToken) {
        let planner = Arc::new(RememberingPlanner::new(self.metrics.clone()));
        let mut memory = Memory::default();
        let mut round: u64 = 0;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = looked.notified() => {}
                () = planner.news() => {}
                _ = tick.tick() => {}
            }
            round += 1;
            let span = tracing::info_span!("reconcile", round);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.round(&planner, &mut memory).instrument(span) => {}
            }
            tokio::time::sleep(MIN_PAUSE).await;
        }
    }

    /// One round.
    async fn round(&self, planner: &Arc<RememberingPlanner>, memory: &mut Memory) {
        let began = Instant::now();
        let uptime = self.started.elapsed();
        let mut observed = self.sources.observe(self.settings.clone(), uptime, began);
        memory.recall(&mut observed, &self.sources.stores);
        self.metrics.see(&observed);
        planner.begin_round();
        let observed = Arc::new(observed);
        let deciding = {
            let (planner, observed, span) = (planner.clone(), observed.clone(), tracing::Span::current());
            tokio::task::spawn_blocking(move || {
                span.in_scope(|| decide::decide_with(&observed, &|question| planner.plan(question)))
            })
        };
        let decision = deciding.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a decision broke down as a whole; the next round tries again");
            Decision::default()
        });
        for (subject, words) in &decision.failed {
            tracing::error!(%subject, %words, "a decision broke down; the next ones are not touched by it");
            self.metrics.note_failed_decision(subject);
            memory.set_back(&observed, subject, None, Cause::DecisionFailed, words.clone(), None);
        }
        memory.forgive(&observed, &decision);
        memory.note_waiting(&observed, &decision);
        let n_courses = decision.courses.len();
        let drafts = decision.drafts;
        let followed = self.follow_all(decision.courses, &observed).await;
        self.learn(memory, &observed, &followed, &drafts);
        self.read_back(memory, uptime, followed.into_iter().flat_map(|one| one.written)).await;
        memory.setbacks().clone_into(&mut self.sources.setbacks());
        let took = began.elapsed();
        self.metrics.note_round(took);
        self.reach.note_round(Instant::now());
        tracing::debug!(n_courses, seconds = took.as_secs_f64(), "round over");
    }

    /// Follows courses of different subjects side by side. An API that does not answer one call is not asked on.
    async fn follow_all(&self, courses: Vec<Course>, observed: &Observed) -> Vec<Followed> {
        let is_silent = AtomicBool::new(false);
        // Two courses of one subject are one, in their order.
        let mut by_subject: BTreeMap<Subject, Vec<Action>> = BTreeMap::new();
        for course in courses {
            by_subject.entry(course.subject).or_default().extend(course.actions);
        }
        let following = by_subject
            .into_iter()
            .map(|(subject, actions)| self.follow(Course { subject, actions }, observed, &is_silent));
        futures::stream::iter(following).buffer_unordered(COURSES_AT_A_TIME).collect().await
    }

    async fn follow(&self, course: Course, observed: &Observed, is_silent: &AtomicBool) -> Followed {
        let mut followed = Followed { subject: course.subject, written: Vec::new(), is_done: false, failed: None };
        for action in course.actions {
            // A story is told once what it tells is written; else it would be told again in every round.
            if let Action::Tell(story) = action {
                self.metrics.note_story(&story);
                self.outbox.put(story);
                continue;
            }
            if is_silent.load(Ordering::Relaxed) {
                return followed;
            }
            tracing::debug!(?action, "acting");
            match self.actor.carry_out(action.clone(), observed).await {
                Ok(one) => {
                    self.reach.note_answer();
                    self.metrics.note_action(&action);
                    followed.written.extend(one);
                }
                Err(error) => {
                    match error {
                        ActError::Unanswered(_) => {
                            is_silent.store(true, Ordering::Relaxed);
                            self.reach.note_silence(Instant::now(), error.to_string());
                            followed.failed = Some((action, error));
                            return followed;
                        }
                        ActError::Stale => {}
                        ActError::Refused(_) | ActError::Taken => self.reach.note_answer(),
                    }
                    let is_end = !matches!(action, Action::DeletePlacement { .. } | Action::ReleasePlacement { .. });
                    followed.failed = Some((action, error));
                    // What a deletion leaves behind stops no plan; after all else that fails, the rest would be untrue.
                    if is_end {
                        return followed;
                    }
                }
            }
        }
        followed.is_done = true;
        followed
    }

    /// Remembers what went wrong, and what went well again.
    fn learn(
        &self,
        memory: &mut Memory,
        observed: &Observed,
        followed: &[Followed],
        drafts: &BTreeMap<ObjectKey, Arc<Draft>>,
    ) {
        for one in followed {
            if !one.written.is_empty() {
                memory.note_written(&one.subject, observed.uptime);
            }
            // The plan that it writes: placements, and the status that commits them.
            let draft = match &one.subject {
                Subject::Deployment(key) => drafts.get(key),
                _ => None,
            };
            if let Some(draft) = draft.filter(|_| one.is_done) {
                memory.note_plan(&one.subject, draft.replica());
            }
            let Some((action, error)) = &one.failed else { continue };
            match error {
                ActError::Stale => {
                    tracing::debug!(subject = %one.subject, "somebody else wrote it meanwhile; it is decided upon again")
                }
                _ => {
                    tracing::warn!(subject = %one.subject, action = action.kind(), %error, "an action failed; it is decided upon again")
                }
            }
            // Placements without the status that commits them are no plan: what nobody refused is written on, all else goes.
            let is_of_plan = matches!(action, Action::CreatePlacement(_) | Action::SetDeploymentStatus { .. });
            if let Some(draft) = draft.filter(|_| is_of_plan) {
                let (replica, cause) = (Some(draft.replica()), error.cause());
                let kept = (cause == Cause::PlanUnwritten).then(|| draft.clone());
                memory.set_back(observed, &one.subject, replica, cause, error.to_string(), kept);
            }
        }
    }

    /// Waits until the stores know of what was written, so that nothing is decided twice. What they do not know in time counts as the API
    /// answered it.
    async fn read_back(&self, memory: &mut Memory, uptime: Duration, written: impl Iterator<Item = Written>) {
        written.for_each(|one| memory.await_one(one, uptime));
        let (memory, stores) = (&*memory, &self.sources.stores);
        let seen_all = async {
            while memory.n_unseen(stores, uptime) > 0 {
                tokio::time::sleep(READ_BACK_POLL).await;
            }
        };
        if tokio::time::timeout(READ_BACK_DEADLINE, seen_all).await.is_err() {
            let (n_writes, seconds) = (memory.n_unseen(stores, uptime), READ_BACK_DEADLINE.as_secs());
            tracing::warn!(n_writes, "the API's watches are slow: writes have not come back within {seconds} s");
        }
    }
}
