//! polyctl: Polyphony's command line. All of it lives in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    polyctl::run(std::env::args_os())
}
