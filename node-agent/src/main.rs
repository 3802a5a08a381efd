//! `polyphony-agent`: one process a phone.

use std::process::ExitCode;

use polyphony_agent::agent;
use polyphony_agent::invocation::{self, Invocation};
use polyphony_agent::join::{self, Patience};

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let ended = match invocation::parse(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Invocation::Run(flags) => agent::run(*flags, None).await,
        Invocation::Join(request) => join::run(request, Patience::Once).await,
        Invocation::Again(request) => join::run(request, Patience::ForEver).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
