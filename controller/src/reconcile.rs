//! The reconcile loop: observe → decide → act, woken by watches, the hub, models, and once a second.
//!
//! Level-triggered: each round looks at everything and writes only what differs. Losing the process between two writes
//! loses nothing, because the next life decides from the same objects.

pub mod act;
pub mod decide;
pub mod generations;
pub mod observe;
pub mod power;
pub mod preview;
pub mod problem;
pub mod segments;
pub mod status;
pub mod stores;

mod planner;

use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_gateway::RouteTable;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::hub::assignments::{self, Assigned};
use crate::hub::neighbours::Neighbourhood;
use crate::metrics::Metrics;
use crate::routes;
use crate::secret::Secret;
use act::Actor;
use observe::{Observed, Settings, Sources};
use planner::RememberingPlanner;
use stores::{Stores, Written};

/// A round comes at least this often, for what time alone changes; and never sooner after the last one than the second.
const TICK: Duration = Duration::from_secs(1);
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// How long a round waits to see its own writes come back, and how often it looks.
const READ_BACK_DEADLINE: Duration = Duration::from_secs(2);
const READ_BACK_POLL: Duration = Duration::from_millis(5);

/// The loop and all it needs.
pub struct Reconciler {
    pub sources: Sources,
    pub actor: Actor,
    pub settings: Settings,
    /// The host's own: what phones know each other by is made of it.
    pub host_key: Secret,
    pub assigned: watch::Sender<Option<Arc<Assigned>>>,
    pub neighbourhood: watch::Sender<Arc<Neighbourhood>>,
    pub routes: watch::Sender<Arc<RouteTable>>,
    pub metrics: Arc<Metrics>,
}

// === impl Reconciler ===

impl Reconciler {
    /// Runs until `stop`. The stores have to be ready.
    pub async fn run(self, stop: CancellationToken) {
        let started = Instant::now();
        let planner = Arc::new(RememberingPlanner::new(self.metrics.clone()));
        let mut round: u64 = 0;
        let stores = self.sources.stores.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = stores.changed.notified() => {}
                () = self.sources.registry.changed.notified() => {}
                () = self.sources.models.changed.notified() => {}
                _ = tick.tick() => {}
            }
            round += 1;
            let span = tracing::info_span!("reconcile", round);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.round(started.elapsed(), &planner, &stores).instrument(span) => {}
            }
            tokio::time::sleep(MIN_PAUSE).await;
        }
    }

    /// One round.
    async fn round(&self, uptime: Duration, planner: &Arc<RememberingPlanner>, stores: &Stores) {
        let began = Instant::now();
        let observed = self.sources.observe(self.settings.clone(), uptime, began);
        self.metrics.see(&observed);
        self.publish(&observed);
        let deciding = {
            let (planner, span) = (planner.clone(), tracing::Span::current());
            tokio::task::spawn_blocking(move || {
                span.in_scope(|| decide::decide_with(&observed, &|strategy, problem| planner.plan(strategy, problem)))
            })
        };
        let actions = match deciding.await {
            Ok(actions) => actions,
            Err(error) => {
                tracing::error!(%error, "a decision failed; the next round tries again");
                Vec::new()
            }
        };
        let n_actions = actions.len();
        self.carry_out(actions, stores).await;
        let took = began.elapsed();
        self.metrics.note_round(took);
        tracing::debug!(n_actions, seconds = took.as_secs_f64(), "round over");
    }

    /// Tells phones what they are to hold, and the gateway where sessions can go.
    fn publish(&self, observed: &Observed) {
        let placements = observed.placements.values().map(AsRef::as_ref);
        let assigned = assignments::derive(placements, &observed.ring_addresses(), &self.host_key);
        self.assigned.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&assigned);
            if differs {
                *current = Some(Arc::new(assigned));
            }
            differs
        });
        let neighbourhood = Neighbourhood::new(observed.linked_addresses(), &self.host_key);
        self.neighbourhood.send_if_modified(|current| {
            let differs = **current != neighbourhood;
            if differs {
                *current = Arc::new(neighbourhood);
            }
            differs
        });
        let table = routes::table(observed);
        self.routes.send_if_modified(|current| {
            let differs = **current != table;
            if differs {
                *current = Arc::new(table);
            }
            differs
        });
    }

    /// Carries out all actions, then waits until the stores know of them, so that nothing is decided twice.
    async fn carry_out(&self, actions: Vec<decide::Action>, stores: &Stores) {
        let mut written: Vec<Written> = Vec::new();
        let mut all_written = true;
        for action in actions {
            // A story is told once what it tells is written; else it would be told again in every round.
            if !all_written && matches!(action, decide::Action::Tell(_)) {
                continue;
            }
            tracing::debug!(?action, "acting");
            match self.actor.carry_out(action.clone(), stores).await {
                Ok(one) => {
                    self.metrics.note_action(&action);
                    written.extend(one);
                }
                Err(error) => {
                    tracing::warn!(%error, "an action failed; it is decided upon again");
                    all_written = false;
                    // An API that refuses one object takes others; one that does not answer takes none.
                    if !matches!(error, kube::Error::Api(_)) {
                        break;
                    }
                }
            }
        }
        let seen_all = async {
            while !written.iter().all(|one| stores.has_seen(one)) {
                tokio::time::sleep(READ_BACK_POLL).await;
            }
        };
        if tokio::time::timeout(READ_BACK_DEADLINE, seen_all).await.is_err() {
            tracing::warn!(
                "the API's watches are slow: a write has not come back within {} s",
                READ_BACK_DEADLINE.as_secs()
            );
        }
    }
}
