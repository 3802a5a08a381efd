//! The command line of Polyphony: kubectl's verbs, flags and words for the resources of `polyphony.dev`, and the few
//! verbs that kubectl cannot have (`up`, `down`, `chat`, `logs`).
//!
//! It talks to any Kubernetes API by a kubeconfig, learns kinds by discovery and columns from the server, and therefore
//! knows the four kinds by name only where it tells their story: in `describe`, `wait`'s bars, `logs` and `chat`.

mod options;
mod usage;

pub mod verbs;

pub mod connection;
pub mod discovery;
pub mod doctor;
pub mod failure;
pub mod filters;
pub mod selection;
pub mod server;

pub mod describe;
pub mod duration;
pub mod explain;
pub mod manifest;
pub mod merge_patch;
pub mod numbers;
pub mod phones;
pub mod plan;
pub mod printing;
pub mod progress;
pub mod records;
pub mod schema;
pub mod shell;
pub mod table;
pub mod terminal;
pub mod top;
pub mod wait_for;
pub mod yaml;

pub mod openai;
pub mod processes;

use std::ffi::OsString;
use std::process::ExitCode;

use polyphony_journal::tell;

/// Runs one command line and says how it went: 0, or 1 as kubectl does for every failure, usage included.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match verbs::completion::answer(&arguments) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            tell!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let program = options::program_of(arguments.first());
    let options = match options::parse(arguments, program) {
        Ok(options) => options,
        Err(error) => {
            if let Some(text) = usage::describe(&error, program) {
                tell!("{text}");
                return ExitCode::FAILURE;
            }
            let failed = error.use_stderr();
            // A closed stream leaves nobody to tell.
            let _ = error.print();
            return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("error: the asynchronous runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(options.run()) {
        Ok(code) => code,
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("{}", failure::describe(&error));
            ExitCode::FAILURE
        }
    }
}
