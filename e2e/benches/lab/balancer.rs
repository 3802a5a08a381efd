//! The balancer: one phone drops to a third of its speed in the middle of answers; with the balancer, without, and with the
//! published one.
//!
//! Clients ask one after the other without a break, each for an answer of some length: the published balancer acts between
//! answers, and would look worse than it is if one answer took all the time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use polyphony_e2e::bench::answer::{changed_tokens, longest_pause};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::LabReport;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::ratios;
use polyphony_e2e::stream::Gateway;
use tokio::task::JoinHandle;

use crate::deployments::{Balancer, Wanted};
use crate::question::{PROMPT_TOKENS, ask, ask_together, stream};
use crate::workbench::{Running, Workbench, lab_file};
use crate::{Extent, progress};

/// The share of each phone, and a third of it.
const SHARE: &str = "0.5";
const THIRD: &str = "0.167";
/// So many that every stage has work: the slowest then decides.
const SESSIONS: usize = 4;
/// Tokens of each client's first answer before the phone drops.
const WARM_TOKENS: usize = 8;
/// Of one answer.
const ANSWER_TOKENS: u32 = 48;
/// So many that what a phone's segments report is of its full speed again.
const REMEASURED_TOKENS: u32 = 48;
/// How long the sessions may take to get going.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who moves layers, in the order of one round; the next round goes the other way.
const BALANCERS: [Balancer; 3] = [Balancer::Ours, Balancer::Off, Balancer::Published];

/// What has come of each answer of one client so far, and when.
type Arrivals = Arc<Mutex<Vec<Coming>>>;

/// An answer that comes.
#[derive(Default)]
struct Coming {
    tokens: Vec<(Instant, u64)>,
    /// Its stream has ended, and without an error.
    is_over: bool,
}

/// What came of an answer.
struct Came {
    tokens: Vec<u64>,
    is_over: bool,
}

/// Answers in whose middle the phone dropped.
#[derive(Default)]
struct Dropped {
    tokens_per_second: f64,
    /// Within one answer, from the drop to the end.
    longest_pause_seconds: f64,
    answers: Vec<Came>,
}

/// What was measured of one balancer, an entry a round.
#[derive(Default)]
struct Taken {
    tokens_per_second: Vec<f64>,
    pauses: Vec<f64>,
}

pub async fn measure(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    progress("one phone drops: starting");
    let running = bench.start(&lab_file("rows/one-drops")).await?;
    let mut taken = BALANCERS.map(|_| Taken::default());
    let mut changed = 0_usize;
    let still = undisturbed(&running).await?;
    for round in 0..extent.pairs {
        if extent.is_over() {
            report.left_out.push(format!("the balancer after round {round}: the time was over"));
            break;
        }
        let mut order = [0, 1, 2];
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let balancer = BALANCERS[at];
            let dropped = drop_once(&running, extent, balancer).await?;
            progress(&format!(
                "one phone drops: round {} of {}, {balancer:?}: {:.2} tokens/s, longest pause {:.2} s",
                round + 1,
                extent.pairs,
                dropped.tokens_per_second,
                dropped.longest_pause_seconds,
            ));
            for answer in &dropped.answers {
                changed += changed_tokens(&answer.tokens, &still, answer.is_over);
            }
            taken[at].tokens_per_second.push(dropped.tokens_per_second);
            taken[at].pauses.push(dropped.longest_pause_seconds);
        }
    }
    let [ours, off, published] = taken;
    let window = extent.window.as_secs();
    let row = |what: &str, unit, samples: Vec<f64>| Row::of(what, "cpu", Some(3), unit, samples);
    let gain = |over: &str, theirs: &Taken, goal| {
        let what = format!("{window} s after one phone drops to a third, balancer on over {over}");
        row(&what, "times", ratios(&ours.tokens_per_second, &theirs.tokens_per_second))
            .map(|row| row.with_goal(Goal::AtLeast(goal), None))
    };
    report.rows.extend(
        [
            gain("off", &off, 1.5),
            gain("the published one", &published, 1.2),
            row("longest pause of any stream of a round, balancer on", "s", ours.pauses.clone())
                .map(|row| row.with_goal(Goal::AtMost(1.0), None)),
            row(
                "tokens changed, missing or too many, all rounds and balancers together",
                "tokens",
                vec![changed as f64],
            )
            .map(|row| row.with_goal(Goal::AtMost(0.0), None)),
            row("after the drop, balancer on", "tokens/s", ours.tokens_per_second.clone()),
            row("after the drop, balancer off", "tokens/s", off.tokens_per_second.clone()),
            row("after the drop, published balancer", "tokens/s", published.tokens_per_second.clone()),
        ]
        .into_iter()
        .flatten(),
    );
    Ok(())
}

fn wanted(balancer: Balancer) -> Wanted {
    Wanted {
        balancer,
        objective: "Throughput",
        max_sessions: SESSIONS as u32,
        phones: Some(3),
        context_length: PROMPT_TOKENS + ANSWER_TOKENS + 24,
        ..Wanted::new("drops", "Optimal")
    }
}

/// What every answer is to say, whatever happens to it.
async fn undisturbed(running: &Running) -> Result<Vec<u64>> {
    let one = wanted(Balancer::Off);
    one.deploy(&running.shelf, &running.lab).await?;
    let answered = ask(&running.gateway, &one.name, PROMPT_TOKENS, ANSWER_TOKENS).await?;
    one.delete(&running.shelf)?;
    Ok(answered.tokens)
}

/// A fresh deployment, answers, and its busiest phone slower from their middle on; then all is as it was.
async fn drop_once(running: &Running, extent: &Extent, balancer: Balancer) -> Result<Dropped> {
    let equal = remeasure(running).await?;
    let one = wanted(balancer);
    one.deploy(&running.shelf, &running.lab).await?;
    // Now, and not before: a plan goes by what segments report, and without any by what is remembered of them.
    equal.delete(&running.shelf)?;
    Wanted::leave_alone(&running.shelf, &running.lab)?;
    let before = one.plan(&running.shelf)?;
    // The phones are alike, and which has which part is chance. All arms lose the same: the phone with the most layers.
    let phone = one.busiest_phone(&running.shelf)?;
    let slow = || running.shelf.set(&phone, &["--cpu", THIRD]);
    let dropped = answers(&running.gateway, &one.name, extent.window, slow).await;
    progress(&format!("one phone drops: {balancer:?}: from {before} to {}", one.plan(&running.shelf)?));
    running.shelf.set(&phone, &["--cpu", SHARE])?;
    one.delete(&running.shelf)?;
    dropped
}

/// Measures all phones at their full speed with as many layers each: the next plan would else go by what one was when it was slow,
/// which a plan that had taken its layers away does not unsay. What measured them is to be deleted once that plan is made.
async fn remeasure(running: &Running) -> Result<Wanted> {
    let equal = Wanted { name: "equal".to_owned(), strategy: "EqualSplit", ..wanted(Balancer::Off) };
    equal.deploy(&running.shelf, &running.lab).await?;
    ask_together(&running.gateway, &equal.name, SESSIONS, REMEASURED_TOKENS).await?;
    Ok(equal)
}

/// One client: an answer after the other, until it is stopped.
fn client(gateway: &Gateway, deployment: &str) -> (Arrivals, JoinHandle<Result<()>>) {
    let arrivals = Arrivals::default();
    let (gateway, deployment, into) = (gateway.clone(), deployment.to_owned(), Arc::clone(&arrivals));
    let asking = tokio::spawn(async move {
        loop {
            locked(&into).push(Coming::default());
            let last = |change: &dyn Fn(&mut Coming)| locked(&into).last_mut().into_iter().for_each(change);
            let note = |token| last(&|coming| coming.tokens.push((Instant::now(), token)));
            stream(&gateway, &deployment, PROMPT_TOKENS, ANSWER_TOKENS, note).await?;
            last(&|coming| coming.is_over = true);
        }
    });
    (arrivals, asking)
}

async fn answers(
    gateway: &Gateway,
    deployment: &str,
    window: Duration,
    slow: impl Fn() -> Result<()>,
) -> Result<Dropped> {
    let mut clients: Vec<_> = (0..SESSIONS).map(|_| client(gateway, deployment)).collect();
    let began = Instant::now();
    let is_warm = |arrivals: &Arrivals| locked(arrivals).iter().map(|it| it.tokens.len()).sum::<usize>() >= WARM_TOKENS;
    while !clients.iter().all(|(arrivals, _)| is_warm(arrivals)) {
        if let Some((_, ended)) = clients.iter_mut().find(|(_, asking)| asking.is_finished()) {
            ended.await??;
        }
        if began.elapsed() > PATIENCE {
            bail!("{deployment} does not get going");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow()?;
    let dropped_at = Instant::now();
    tokio::time::sleep(window).await;
    let looked_until = Instant::now();
    let mut dropped = Dropped::default();
    let mut n_after = 0;
    for (arrivals, mut asking) in clients {
        // One that has stopped asking was told of an error.
        if asking.is_finished() {
            (&mut asking).await?.with_context(|| deployment.to_owned())?;
        }
        asking.abort();
        for answer in locked(&arrivals).iter() {
            n_after += answer.tokens.iter().filter(|(at, _)| (dropped_at..=looked_until).contains(at)).count();
            let seconds = |at: &Instant| at.duration_since(began).as_secs_f64();
            let arrived: Vec<f64> = answer.tokens.iter().map(|(at, _)| seconds(at)).collect();
            let until = (!answer.is_over).then(|| seconds(&looked_until));
            let pause = longest_pause(&arrived, seconds(&dropped_at), until);
            dropped.longest_pause_seconds = dropped.longest_pause_seconds.max(pause);
            let tokens = answer.tokens.iter().map(|(_, token)| *token).collect();
            dropped.answers.push(Came { tokens, is_over: answer.is_over });
        }
    }
    dropped.tokens_per_second = n_after as f64 / window.as_secs_f64();
    Ok(dropped)
}

fn locked(arrivals: &Arrivals) -> std::sync::MutexGuard<'_, Vec<Coming>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}
