//! The controller process: embedded API, reconcile loop, hub and gateway in one.

use std::process::ExitCode;

use clap::Parser;
use polyphony_controller::{Flags, Process};
use polyphony_journal::tell;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    polyphony_journal::begin("info,kube=warn", flags.log_file.as_deref());
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        on_signal.cancel();
    });
    Process::start(flags, stop).await?.run().await
}
