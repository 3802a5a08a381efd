//! Panics in the journal, of programs whose stderr nobody reads: an app's goes nowhere.

use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

/// From now on each panic is a line of the journal, and is told besides to whoever was told before.
pub(crate) fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            note(panic);
            before(panic);
        }));
    });
}

fn note(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = panic.location().map_or_else(|| "?".to_owned(), ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("?");
    // Of one that is not asked for by RUST_BACKTRACE nothing is kept.
    let backtrace = Backtrace::capture();
    tracing::error!(thread = thread.name().unwrap_or("?"), %place, %backtrace, "panicked: {message}");
}
