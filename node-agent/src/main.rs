//! `polyphony-agent`: one process a phone.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use polyphony_agent::agent::{self, Terms};
use polyphony_agent::backend::{Sabotage, apart};
use polyphony_agent::doctor::{self, Finding};
use polyphony_agent::enrolment::Enrolment;
use polyphony_agent::invocation::{self, Invocation, Request};
use polyphony_agent::join::{self, Patience};
use polyphony_journal::tell;

/// What still works when the agent has ended is over by then, or is cut short.
const LAST_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    quieten_drivers();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let ended = runtime.block_on(run());
            // A driver may hold a thread for ever.
            runtime.shutdown_timeout(LAST_WORK);
            ended
        }
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

/// Says what was found; a failure where something of it is wrong.
fn doctor(request: &Request) -> ExitCode {
    let found = join::flags_alone(request).and_then(|flags| doctor::examine(&flags));
    match found {
        Ok(Finding { text, is_well }) => {
            // Who reads no further has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> ExitCode {
    let invocation = invocation::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    polyphony_journal::begin("info", invocation.log_file());
    if let Err(error) = polyphony_doorway::raise_descriptors() {
        tracing::warn!(%error, "the system gives no more descriptors: there are fewer connections");
    }
    let terms = match agent::ended_by_signal() {
        // Who runs it in another program cannot measure apart.
        Ok(shutdown) => Terms { program: std::env::current_exe().ok(), ..Terms::until(shutdown) },
        Err(error) => {
            tell!("error: the system takes no handler of signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = match invocation {
        Invocation::Measure { data_dir, memory_bytes, sabotage_file } => {
            let sabotage = sabotage_file.as_deref().map(Sabotage::new);
            apart::answer(&data_dir, memory_bytes, sabotage).map_err(Into::into)
        }
        Invocation::Run(flags) => match Enrolment::given(&flags) {
            Ok(enrolment) => agent::run(*flags, Terms { enrolment, ..terms }).await,
            Err(error) => Err(error.into()),
        },
        Invocation::Join(request) => join::run(request, Patience::Once, terms).await,
        Invocation::Doctor(request) => return doctor(&request),
        Invocation::Again(request) => join::run(request, Patience::ForEver, terms).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
