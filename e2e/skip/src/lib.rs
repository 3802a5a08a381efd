//! Skipping: how a test says that this machine cannot run it. Aloud always, and as a failure where everything has to run.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::Write;

/// Set where everything is there that any test needs: what skips there hides something.
pub const NO_SKIP: &str = "POLYPHONY_NO_SKIP";

/// Says why the test that calls this is skipped, past the harness, which keeps what tests that pass have printed. The test returns then.
///
/// # Panics
/// Where `POLYPHONY_NO_SKIP` is set.
pub fn skipped(why: impl Display) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let why = format!("{test}: {why}");
    assert!(may_skip(std::env::var_os(NO_SKIP).as_deref()), "{NO_SKIP} is set, and yet this cannot run: {why}");
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Says aloud what a test leaves out for the sake of what it runs on, such as somebody's phone. Never a failure: nothing is missing.
pub fn left_out(what: impl Display) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {what}");
}

/// By what the variable holds.
fn may_skip(no_skip: Option<&OsStr>) -> bool {
    no_skip.is_none_or(|value| value.is_empty() || value == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_skipped_where_the_variable_says_so() {
        for (value, expected) in [(None, true), (Some(""), true), (Some("0"), true), (Some("1"), false)] {
            assert_eq!(may_skip(value.map(OsStr::new)), expected, "{value:?}");
        }
    }
}
