//! `polyphony-agent`: one process a phone.

use std::process::ExitCode;

use polyphony_agent::agent;
use polyphony_agent::discretion;
use polyphony_agent::invocation::{self, Invocation};
use polyphony_agent::join::{self, Patience};
use polyphony_journal::tell;

fn main() -> ExitCode {
    discretion::take_token_off_the_command_line();
    quieten_drivers();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            tell!("error: the system gives no threads: {error}");
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
    let invocation = invocation::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    polyphony_journal::begin("info", invocation.log_file());
    let ended = match invocation {
        Invocation::Run(flags) => agent::run(*flags, None).await,
        Invocation::Join(request) => join::run(request, Patience::Once).await,
        Invocation::Again(request) => join::run(request, Patience::ForEver).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
