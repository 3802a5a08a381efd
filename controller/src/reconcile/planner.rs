//! The planner with a memory, beside the rounds: a problem that was solved before is not solved again, and nobody waits for long for one
//! that is hard. The answers are those of the planner.
//!
//! Each new problem gets a thread. A round waits for it for a moment, and goes on without it then: the problem is asked again in the
//! rounds that follow, until its answer is there, which wakes the next one.

mod memory;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use polyphony_placement::{Infeasible, Plan, Problem, Strategy, plan_by};
use tokio::sync::Notify;

use super::panics::words_of;
use super::problem::Unplanned;
use crate::metrics::Metrics;
use memory::{Memory, Said, key};

/// A round waits for a new problem this long, and for all of them together at most so long; what is not begun by then is for the next.
const PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE_OF_ROUND: Duration = Duration::from_secs(1);
/// Nobody who matters less is held up for longer by a problem.
const LONG: Duration = Duration::from_secs(5);
/// Problems that are solved at a time.
const MAX_AT_A_TIME: usize = 8;

type Solve = dyn Fn(Strategy, &Problem) -> Result<Plan, Infeasible> + Send + Sync;

pub struct RememberingPlanner {
    solve: Arc<Solve>,
    metrics: Arc<Metrics>,
    desk: Arc<Desk>,
}

/// What rounds and solving threads share.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    /// Woken by each answer, for the round that waits.
    answered: Condvar,
    /// Woken by each answer that no round waits for any more.
    news: Notify,
}

#[derive(Default)]
struct State {
    memory: Memory,
    /// What is being solved, and since when.
    at_work: Vec<(u64, Instant)>,
    /// For how long this round may still wait.
    patience: Duration,
    /// What the round waits for.
    awaited: Option<u64>,
}

// === impl RememberingPlanner ===

impl RememberingPlanner {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::solving_by(metrics, Arc::new(plan_by))
    }

    fn solving_by(metrics: Arc<Metrics>, solve: Arc<Solve>) -> Self {
        Self { solve, metrics, desk: Arc::default() }
    }

    /// A round begins: what has not been asked for long is forgotten.
    pub fn begin_round(&self) {
        let mut state = self.desk.lock();
        state.memory.begin_round();
        state.patience = PATIENCE_OF_ROUND;
    }

    /// Waits until there is an answer that an earlier round did not wait for.
    pub async fn news(&self) {
        self.desk.news.notified().await;
    }

    /// The plan, when it is known or found soon.
    ///
    /// # Errors
    /// [`Unplanned::Underway`] when it is not: it is asked for again in a later round.
    ///
    /// # Panics
    /// With the words of the planner, where that has broken down over the problem.
    pub fn plan(&self, strategy: Strategy, problem: &Problem) -> Result<Plan, Unplanned> {
        let key = key(strategy, problem);
        let mut state = self.desk.lock();
        let (id, said) = match state.memory.recall(key, strategy, problem) {
            Some(known) => known,
            None => {
                if state.patience.is_zero() {
                    // The next round has its own, and need not be waited for.
                    self.desk.news.notify_one();
                    return Err(Unplanned::Underway { is_long: false });
                }
                if state.at_work.len() >= MAX_AT_A_TIME {
                    return Err(Unplanned::Underway { is_long: false });
                }
                let id = state.memory.put(key, strategy, problem);
                state.at_work.push((id, Instant::now()));
                if let Err(error) = self.begin(key, id, strategy, problem) {
                    tracing::warn!(%error, "there is no thread for the planner: the round waits for it");
                    state.at_work.retain(|(other, _)| *other != id);
                    state.memory.forget(key, id);
                    drop(state);
                    return Ok((self.solve)(strategy, problem)?);
                }
                state = self.desk.wait(state, key, id);
                (id, state.memory.said(key, id).cloned().unwrap_or(Said::Nothing))
            }
        };
        match said {
            Said::Answer(answer) => Ok(answer?),
            Said::Broke(words) => {
                // Whoever asks again tries again.
                state.memory.forget(key, id);
                drop(state);
                resume_unwind(Box::new(words))
            }
            Said::Nothing => {
                let since = state.at_work.iter().find(|(other, _)| *other == id).map(|(_, since)| *since);
                Err(Unplanned::Underway { is_long: since.is_some_and(|since| since.elapsed() >= LONG) })
            }
        }
    }

    /// Solves a problem on a thread of its own. No shutdown waits for it.
    fn begin(&self, key: u64, id: u64, strategy: Strategy, problem: &Problem) -> io::Result<()> {
        let (solve, metrics, desk) = (self.solve.clone(), self.metrics.clone(), self.desk.clone());
        let problem = problem.clone();
        let work = move || {
            let began = Instant::now();
            let said = match catch_unwind(AssertUnwindSafe(|| solve(strategy, &problem))) {
                Ok(answer) => {
                    metrics.note_plan(answer.is_ok(), began.elapsed());
                    if let Err(fault @ Infeasible::Rejected { .. }) = &answer {
                        tracing::error!(%strategy, "{fault}");
                    }
                    Said::Answer(answer)
                }
                Err(panic) => Said::Broke(words_of(panic.as_ref())),
            };
            desk.answer(key, id, said);
        };
        thread::Builder::new().name("planner".to_owned()).spawn(work).map(drop)
    }
}

// === impl Desk ===

impl Desk {
    /// Waits for an answer for as long as the round may.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, key: u64, id: u64) -> MutexGuard<'a, State> {
        let began = Instant::now();
        let patience = state.patience.min(PATIENCE);
        state.awaited = Some(id);
        let is_unanswered = |state: &mut State| state.memory.said(key, id).is_some_and(|said| *said == Said::Nothing);
        let (mut state, _) =
            self.answered.wait_timeout_while(state, patience, is_unanswered).unwrap_or_else(PoisonError::into_inner);
        state.awaited = None;
        state.patience = state.patience.saturating_sub(began.elapsed());
        state
    }

    fn answer(&self, key: u64, id: u64, said: Said) {
        let mut state = self.lock();
        state.at_work.retain(|(other, _)| *other != id);
        if let Some(place) = state.memory.said(key, id) {
            *place = said;
        }
        if state.awaited == Some(id) {
            self.answered.notify_all();
        } else {
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock leaves an answer half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::memory::tests::problem;
    use super::*;

    fn planner(solve: impl Fn(&Problem) -> Result<Plan, Infeasible> + Send + Sync + 'static) -> RememberingPlanner {
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()));
        let planner = RememberingPlanner::solving_by(metrics, Arc::new(move |_, problem| solve(problem)));
        planner.begin_round();
        planner
    }

    fn ask(planner: &RememberingPlanner, n: u64) -> Result<Plan, Unplanned> {
        planner.plan(Strategy::Optimal, &problem(n))
    }

    fn is_underway(answer: &Result<Plan, Unplanned>) -> bool {
        matches!(answer, Err(Unplanned::Underway { .. }))
    }

    /// Asks round after round until there is an answer.
    async fn answer(planner: &RememberingPlanner, n: u64) -> Result<Plan, Unplanned> {
        let asking = async {
            loop {
                planner.begin_round();
                match ask(planner, n) {
                    Err(Unplanned::Underway { .. }) => planner.news().await,
                    answer => return answer,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap()
    }

    #[tokio::test]
    async fn a_hard_problem_holds_up_no_other_and_its_answer_wakes_the_next_round() {
        let (solved, may_end) = mpsc::channel::<()>();
        let may_end = Mutex::new(may_end);
        let planner = planner(move |problem| {
            if problem.model.layer_bytes == [1] {
                may_end.lock().unwrap().recv().unwrap();
            }
            Err(Infeasible::NoPhones)
        });
        let none = Err(Unplanned::Infeasible(Infeasible::NoPhones));
        assert!(is_underway(&ask(&planner, 1)));
        assert_eq!(answer(&planner, 2).await, none, "another one is solved meanwhile");
        assert!(is_underway(&ask(&planner, 1)), "and it is begun once");
        solved.send(()).unwrap();
        assert_eq!(answer(&planner, 1).await, none);
        // A second run of it would wait for ever.
        assert_eq!(ask(&planner, 1), none);
    }

    #[tokio::test]
    async fn a_round_waits_for_a_bounded_time_and_what_it_did_not_begin_is_for_the_next() {
        let (solved, may_end) = mpsc::channel::<()>();
        let may_end = Mutex::new(may_end);
        let planner = planner(move |_| {
            may_end.lock().unwrap().recv().unwrap();
            Err(Infeasible::NoPhones)
        });
        for n in 0..20 {
            assert!(is_underway(&ask(&planner, n)), "{n}");
        }
        assert!(planner.desk.lock().at_work.len() <= MAX_AT_A_TIME, "and no more are solved at a time than may be");
        for _ in 0..20 {
            solved.send(()).unwrap();
        }
        for n in 0..20 {
            assert_eq!(answer(&planner, n).await, Err(Unplanned::Infeasible(Infeasible::NoPhones)), "{n}");
        }
    }

    #[test]
    fn what_breaks_down_over_a_problem_breaks_the_decision_that_asked_for_it() {
        let planner = planner(|_| panic!("poison"));
        let asked = loop {
            match catch_unwind(AssertUnwindSafe(|| ask(&planner, 1))) {
                Ok(_underway) => planner.begin_round(),
                Err(panic) => break panic,
            }
        };
        assert_eq!(words_of(asked.as_ref()), "poison");
    }
}
