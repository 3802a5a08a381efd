//! kubectl-polyphony: polyctl as a plugin, so that `kubectl polyphony get phones` works.

use std::process::ExitCode;

fn main() -> ExitCode {
    polyctl::run(std::env::args_os())
}
