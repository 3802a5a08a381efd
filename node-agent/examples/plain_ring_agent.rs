//! An agent whose links to other phones are not sealed. `make bench` holds it against the real one, which shows what TLS costs.

use std::process::ExitCode;

use clap::Parser;
use polyphony_agent::agent;
use polyphony_agent::flags::Flags;

#[tokio::main]
async fn main() -> ExitCode {
    polyphony_journal::begin("info", None);
    match agent::run_with_plain_ring(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            polyphony_journal::tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
