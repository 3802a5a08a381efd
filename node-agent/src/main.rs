//! `polyphony-agent`: one process a phone.

use std::process::ExitCode;

use polyphony_agent::agent;
use polyphony_agent::invocation::{self, Invocation};
use polyphony_agent::join::{self, Patience};

fn main() -> ExitCode {
    quieten_drivers();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            eprintln!("error: the system gives no threads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Drivers of graphics complain where this folder is not set, as on a phone or over SSH; nothing is put there.
fn quieten_drivers() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the program has one thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}

async fn run() -> ExitCode {
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
