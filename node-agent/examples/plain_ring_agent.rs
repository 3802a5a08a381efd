//! An agent whose links to other phones are not sealed. `make bench` holds it against the real one, which shows what TLS costs.

use std::process::ExitCode;

use clap::Parser;
use polyphony_agent::agent::{self, Terms};
use polyphony_agent::enrolment::Enrolment;
use polyphony_agent::flags::Flags;
use polyphony_wire::Security;

async fn run(flags: Flags) -> anyhow::Result<()> {
    let enrolment = Enrolment::given(&flags)?;
    let terms = Terms {
        enrolment,
        program: std::env::current_exe().ok(),
        between_phones: Some(Security::Plain),
        ..Terms::until(agent::ended_by_signal()?)
    };
    agent::run(flags, terms).await
}

#[tokio::main]
async fn main() -> ExitCode {
    polyphony_journal::begin("info", None);
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            polyphony_journal::tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
