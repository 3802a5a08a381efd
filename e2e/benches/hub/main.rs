//! `make bench-hub`: what the door costs. What a sealed hop takes, direct and over the hub, and a sealed ring; and a thousand phones on one hub: what a link takes of its
//! memory and its processor while nothing happens, and how soon all are back when it was killed.
//!
//! The hub is the real controller; the phones are links of this process, each with a key, a certificate and TLS of its own. They say what agents say,
//! as often. `BENCH_PHONES=50` makes a short run that shows that everything works. Nothing here asserts a figure.

mod controller;
mod hop;
mod phone;
mod ring;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use polyphony_e2e::shelf::real_model;
use tokio::sync::watch;

use controller::Controller;
use phone::{Phone, Shelf};

/// Phones that enrol at a time, and that join by one token.
const ENROL_AT_ONCE: usize = 16;
const OF_A_TOKEN: usize = 100;
/// What was stirred up has settled by then.
const SETTLE: Duration = Duration::from_secs(20);
/// How long the hub is watched at rest.
const REST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    // `cargo bench` says so; `cargo test --all-targets` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("skipped: this measures a hub of a thousand phones; `make bench-hub` runs it");
        return Ok(());
    }
    // On one thread: nobody waits for another one to wake.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(hop::measure())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let Some(model) = real_model() else { bail!("the model is missing: `make setup` fetches it") };
    runtime.block_on(ring::measure(&model))?;
    runtime.block_on(many_phones())
}

async fn many_phones() -> Result<()> {
    let n_phones: usize = std::env::var("BENCH_PHONES").ok().map_or(Ok(1000), |text| text.parse())?;
    ensure!(n_phones > 0, "BENCH_PHONES is the number of phones");
    let folder = tempfile::tempdir()?;
    let mut hub = Controller::start(folder.path())?;
    let empty = hub.memory_bytes()?;

    let began = Instant::now();
    let phones = enrol(&hub, n_phones).await?;
    let enrolled = began.elapsed();
    let shelf = Shelf::new(hub.address());
    let began = Instant::now();
    for phone in phones {
        tokio::spawn(phone.keep_link(shelf.clone()));
    }
    until_linked(&shelf, n_phones).await?;
    let joined = began.elapsed();
    println!(
        "{n_phones} phones enrolled in {:.1} s, all linked {:.1} s later",
        enrolled.as_secs_f64(),
        joined.as_secs_f64()
    );
    tokio::time::sleep(SETTLE).await;
    let full = hub.memory_bytes()?;
    println!(
        "memory of the hub: {} MiB before them, {} MiB with them: {} KiB a phone, its object included",
        empty >> 20,
        full >> 20,
        (full.saturating_sub(empty) / n_phones as u64) >> 10
    );
    println!("processor time at rest: {:.3} s a second", at_rest(&hub).await?);

    // Killed, not stopped. Memory of objects is there again before the first phone is.
    shelf.hold(true);
    hub.kill()?;
    until_linked(&shelf, 0).await?;
    let began = Instant::now();
    hub = hub.again()?;
    let started = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let objects = hub.memory_bytes()?;
    let began = Instant::now();
    shelf.hold(false);
    until_linked(&shelf, n_phones).await?;
    let back = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let full = hub.memory_bytes()?;
    println!(
        "memory after a restart: {} MiB with the objects alone, {} MiB with their links: {} KiB a link",
        objects >> 20,
        full >> 20,
        (full.saturating_sub(objects) / n_phones as u64) >> 10
    );
    println!(
        "it was up after {:.1} s; all at once, phones were back after {:.1} s",
        started.as_secs_f64(),
        back.as_secs_f64()
    );

    // And as it is: phones dial on while it is away.
    let began = Instant::now();
    hub.kill()?;
    until_linked(&shelf, 0).await?;
    let _hub = hub.again()?;
    until_linked(&shelf, n_phones).await?;
    println!("killed under them, it had all back {:.1} s after it was killed", began.elapsed().as_secs_f64());
    Ok(())
}

async fn enrol(hub: &Controller, n_phones: usize) -> Result<Vec<Phone>> {
    let names: Vec<String> = (0..n_phones).map(|n| format!("phone-{n:04}")).collect();
    let mut tokens = Vec::new();
    for _ in 0..n_phones.div_ceil(OF_A_TOKEN) {
        tokens.push(hub.token(OF_A_TOKEN)?);
    }
    let tokens = Arc::new(tokens);
    let enrolling = names.into_iter().enumerate().map(|(n, name)| {
        let (tokens, address, hash) = (tokens.clone(), hub.address(), hub.ca_hash());
        // One after another by each token: it is written at each use.
        async move { Phone::enrol(&address, hash, &tokens[n % tokens.len()], name).await }
    });
    stream::iter(enrolling).buffer_unordered(ENROL_AT_ONCE).try_collect().await
}

/// Seconds of its processor time in a second in which nothing happens.
async fn at_rest(hub: &Controller) -> Result<f64> {
    let (before, began) = (hub.processor_seconds()?, Instant::now());
    tokio::time::sleep(REST).await;
    Ok((hub.processor_seconds()? - before) / began.elapsed().as_secs_f64())
}

async fn until_linked(shelf: &Shelf, n: usize) -> Result<()> {
    let mut linked: watch::Receiver<usize> = shelf.linked();
    let all = linked.wait_for(|linked| *linked == n);
    let waited = tokio::time::timeout(PATIENCE, all).await;
    let is = *shelf.linked().borrow();
    waited.with_context(|| format!("{is} phones are linked after {PATIENCE:?}, and not {n}"))??;
    Ok(())
}
