//! The planner with a memory, beside the rounds: a problem that was solved before is not solved again, and nobody waits for long for one
//! that is hard. The answers are those of the planner.
//!
//! Each new problem gets a thread. A round waits for it for a moment, and goes on without it then: the problem is asked again in the
//! rounds that follow, until its answer is there, which wakes the next one. Figures may have changed by then, and faster than the
//! planner is: what is being solved is solved to its end, and its answer stands in for a while for that to the newer question, where it
//! holds by the newer figures.

mod memory;
mod near;
mod queue;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use polyphony_placement::{Infeasible, Plan, Problem, Strategy, plan_by};
use tokio::sync::Notify;

use super::panics::words_of;
use super::problem::{Question, Unplanned};
use crate::metrics::Metrics;
use memory::{Memory, Said, key};
use queue::Queue;

/// A round waits for a new problem this long, and for all of them together at most so long; what takes longer is for the next.
const PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE_OF_ROUND: Duration = Duration::from_secs(1);
/// Problems that are solved at a time, where the host has as many processors.
const MAX_AT_A_TIME: usize = 4;
/// An answer that came late stands in for so long, and for twice the time besides that it took: the next one would take as long.
const FRESH: Duration = Duration::from_secs(5);

type Solve = dyn Fn(Strategy, &Problem) -> Result<Plan, Infeasible> + Send + Sync;

pub struct RememberingPlanner {
    solve: Arc<Solve>,
    max_at_a_time: usize,
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
    /// What is being solved.
    at_work: Vec<Work>,
    /// Who waits for a thread.
    queue: Queue,
    /// Answers that no round waited for any more, the last one last.
    late: Vec<Late>,
    /// For how long this round may still wait.
    patience: Duration,
    /// What the round waits for.
    awaited: Option<u64>,
}

/// A problem that is being solved, by its key and number.
struct Work {
    key: u64,
    id: u64,
    since: Instant,
}

/// An answer that stands in for that to newer questions.
struct Late {
    key: u64,
    id: u64,
    until: Instant,
}

// === impl RememberingPlanner ===

impl RememberingPlanner {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let n_processors = thread::available_parallelism().map_or(1, usize::from);
        Self::solving_by(metrics, n_processors.min(MAX_AT_A_TIME), Arc::new(plan_by))
    }

    fn solving_by(metrics: Arc<Metrics>, max_at_a_time: usize, solve: Arc<Solve>) -> Self {
        Self { solve, max_at_a_time, metrics, desk: Arc::default() }
    }

    /// A round begins: what has not been asked for long is forgotten.
    pub fn begin_round(&self) {
        let mut state = self.desk.lock();
        state.memory.begin_round();
        state.queue.begin_round();
        state.patience = PATIENCE_OF_ROUND;
        let now = Instant::now();
        state.late.retain(|late| now < late.until);
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
    pub fn plan(&self, question: Question<'_>) -> Result<Plan, Unplanned> {
        let key = key(question);
        let mut state = self.desk.lock();
        let known = state.memory.recall(key, question);
        let (key, id, said) = match known {
            Some((id, said)) if said != Said::Nothing => (key, id, said),
            _ => match state.stand_in(question) {
                Some(late) => late,
                // It is at it, or at the same with older figures.
                None if known.is_some() || state.is_at_work(question) => return Err(Unplanned::Underway),
                None => {
                    let n_free = self.max_at_a_time.saturating_sub(state.at_work.len());
                    if !state.queue.admits(question.deployment, n_free) {
                        return Err(Unplanned::Underway);
                    }
                    let id = state.memory.put(key, question);
                    state.at_work.push(Work { key, id, since: Instant::now() });
                    if let Err(error) = self.begin(key, id, question) {
                        tracing::warn!(%error, "there is no thread for the planner: the round waits for it");
                        state.at_work.retain(|work| work.id != id);
                        state.memory.forget(key, id);
                        drop(state);
                        return Ok((self.solve)(question.rule, question.problem)?);
                    }
                    state = self.desk.wait(state, key, id);
                    let said = state.memory.said(key, id).cloned();
                    (key, id, said.unwrap_or(Said::Nothing))
                }
            },
        };
        match said {
            Said::Answer(answer) => Ok(answer?),
            Said::Broke(words) => {
                // Whoever asks again tries again.
                state.memory.forget(key, id);
                drop(state);
                resume_unwind(Box::new(words))
            }
            Said::Nothing => Err(Unplanned::Underway),
        }
    }

    /// Solves a problem on a thread of its own. No shutdown waits for it.
    fn begin(&self, key: u64, id: u64, question: Question<'_>) -> io::Result<()> {
        let (solve, metrics, desk) = (self.solve.clone(), self.metrics.clone(), self.desk.clone());
        let (strategy, problem) = (question.rule, question.problem.clone());
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

// === impl State ===

impl State {
    /// What an answer that came late says to a newer question, with the key and number of the older one.
    fn stand_in(&mut self, question: Question<'_>) -> Option<(u64, u64, Said)> {
        let memory = &mut self.memory;
        let said = |late: &Late| Some((late.key, late.id, memory.stand_in(late.key, late.id, question)?));
        self.late.iter().rev().find_map(said)
    }

    /// Whether the same is being solved, with other figures.
    fn is_at_work(&mut self, question: Question<'_>) -> bool {
        self.at_work.iter().any(|work| self.memory.is_of_the_same(work.key, work.id, question))
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
        let since = state.at_work.iter().find(|work| work.id == id).map(|work| work.since);
        state.at_work.retain(|work| work.id != id);
        if let Some(place) = state.memory.said(key, id) {
            *place = said;
        }
        if state.awaited == Some(id) {
            self.answered.notify_all();
        } else {
            let took = since.map_or(Duration::ZERO, |since| since.elapsed());
            state.late.push(Late { key, id, until: Instant::now() + FRESH + 2 * took });
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

    use super::memory::tests::{measured, problem};
    use super::*;

    fn planner(solve: impl Fn(&Problem) -> Result<Plan, Infeasible> + Send + Sync + 'static) -> RememberingPlanner {
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new(), []));
        let planner =
            RememberingPlanner::solving_by(metrics, MAX_AT_A_TIME, Arc::new(move |_, problem| solve(problem)));
        planner.begin_round();
        planner
    }

    fn ask(planner: &RememberingPlanner, n: u64) -> Result<Plan, Unplanned> {
        ask_for(planner, "default/d", &problem(n))
    }

    fn ask_for(planner: &RememberingPlanner, deployment: &str, problem: &Problem) -> Result<Plan, Unplanned> {
        planner.plan(Question { deployment, rule: Strategy::Optimal, problem })
    }

    fn is_underway(answer: &Result<Plan, Unplanned>) -> bool {
        *answer == Err(Unplanned::Underway)
    }

    /// Asks round after round until there is an answer.
    async fn answer(planner: &RememberingPlanner, n: u64) -> Result<Plan, Unplanned> {
        let asking = async {
            loop {
                planner.begin_round();
                match ask(planner, n) {
                    Err(Unplanned::Underway) => planner.news().await,
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

    #[tokio::test]
    async fn figures_that_change_faster_than_they_are_solved_have_an_answer_all_the_same() {
        let (solved, may_end) = mpsc::channel::<()>();
        let may_end = Mutex::new(may_end);
        let (began, begun) = mpsc::channel();
        let planner = planner(move |problem| {
            began.send(()).unwrap();
            may_end.lock().unwrap().recv().unwrap();
            plan_by(Strategy::Optimal, problem)
        });
        let of_layer = |milliseconds: f64| measured(&[("a", 1 << 20, milliseconds / 4e3)]);
        for round in 1..5 {
            planner.begin_round();
            let answer = ask_for(&planner, "default/d", &of_layer(f64::from(round)));
            assert!(is_underway(&answer), "{answer:?}");
        }
        begun.recv().unwrap();
        assert!(begun.try_recv().is_err(), "it is solved once, and to its end");
        solved.send(()).unwrap();
        planner.news().await;
        planner.begin_round();
        let plan = ask_for(&planner, "default/d", &of_layer(9.0)).unwrap();
        assert!((plan.predicted_inter_token_seconds - 0.009).abs() < 1e-9, "by today's figures: {plan:?}");
        // Neither where it does not hold by these, nor to anybody else, does it stand in.
        for (deployment, problem) in
            [("default/d", measured(&[("a", 1, 0.009), ("b", 1 << 20, 0.009)])), ("default/e", of_layer(9.5))]
        {
            assert!(is_underway(&ask_for(&planner, deployment, &problem)), "{deployment}");
            begun.recv().unwrap();
        }
    }

    #[tokio::test]
    async fn a_break_down_is_told_though_the_figures_have_changed_since() {
        let (solved, may_end) = mpsc::channel::<()>();
        let may_end = Mutex::new(may_end);
        let planner = planner(move |_| {
            may_end.lock().unwrap().recv().unwrap();
            panic!("poison")
        });
        let ask = |seconds: f64| ask_for(&planner, "default/d", &measured(&[("a", 1 << 20, seconds)]));
        assert!(is_underway(&ask(0.001)));
        solved.send(()).unwrap();
        planner.news().await;
        planner.begin_round();
        let asked = catch_unwind(AssertUnwindSafe(|| ask(0.002))).unwrap_err();
        assert_eq!(words_of(asked.as_ref()), "poison");
    }

    #[test]
    fn no_more_threads_solve_than_the_host_has_processors() {
        let planner = RememberingPlanner::new(Arc::new(Metrics::new(&prometheus::Registry::new(), [])));
        let n_processors = thread::available_parallelism().unwrap().get();
        assert!((1..=n_processors.min(4)).contains(&planner.max_at_a_time));
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
