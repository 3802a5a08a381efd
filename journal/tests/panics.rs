//! Panics of a part of a program that is another's: a program of its own, since a program has one journal.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_panic_is_in_the_journal_once_and_whoever_was_told_before_is_told_still() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|_| {
        TOLD.fetch_add(1, Ordering::Relaxed);
    }));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.log");
    polyphony_journal::begin_within("info", &file);
    polyphony_journal::begin_within("info", &file);
    let name = "computes".to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(|| panic!("seven of {} bits", 8)).unwrap();
    thread.join().unwrap_err();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("panicked: seven of 8 bits")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    let names_all = ["ERROR", "thread=\"computes\"", "tests/panics.rs:"].iter().all(|word| lines[0].contains(word));
    assert!(names_all, "{text}");
    assert_eq!(TOLD.load(Ordering::Relaxed), 1);
}
