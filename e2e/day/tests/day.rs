//! A simulated day of 20 phones: what the product decides keeps each within its limits, and answers. `make day` prints such days.
#![allow(clippy::unwrap_used)]

use polyphony_day::{Parameters, Regard, Report, run};

const SEEDS: [u64; 3] = [1, 2, 3];

/// The same seeds, a thread each.
fn days(regard: Regard) -> Vec<(u64, Report)> {
    let of = Parameters::of_the_file().unwrap();
    assert_eq!(of.phones.len(), 20);
    std::thread::scope(|scope| {
        let of = &of;
        let begun = SEEDS.map(|seed| (seed, scope.spawn(move || run(of, seed, regard).unwrap())));
        begun.into_iter().map(|(seed, day)| (seed, day.join().unwrap())).collect()
    })
}

#[test]
fn on_a_day_of_twenty_phones_none_is_beyond_its_limits_and_who_asks_is_answered() {
    for (seed, report) in days(Regard::Limits) {
        for row in &report.phones {
            let beyond = (row.seconds_under_minimum, row.seconds_over_limit);
            assert_eq!(beyond, (0.0, 0.0), "{} on the day of seed {seed}\n{report}", row.name);
            assert_eq!(row.times_empty_in_rings, 0, "{} on the day of seed {seed}\n{report}", row.name);
        }
        assert!(report.availability >= 0.999, "the day of seed {seed}\n{report}");
        // It was no day on which nothing happened.
        assert!(report.withdrawals() > 0 && report.layers_moved() > 0 && report.replanned > 0, "{report}");
        assert!(report.tally.answered > 1000 && report.joules_a_token() > 0.0, "{report}");
    }
}

#[test]
fn the_same_days_break_the_limits_of_who_is_blind_to_battery_and_heat() {
    let (mut under, mut over) = (0.0, 0.0);
    for (seed, report) in days(Regard::Blind) {
        let of_this = (report.seconds_under_minimum(), report.seconds_over_limit());
        // A day on which nobody were beyond a limit would be too easy.
        assert!(of_this.0 + of_this.1 > 600.0, "the day of seed {seed}\n{report}");
        (under, over) = (under + of_this.0, over + of_this.1);
    }
    assert!(under > 600.0 && over > 600.0, "{under} s under a minimum, {over} s over a limit, in all");
}

#[test]
fn a_day_is_the_same_for_the_same_seed_and_another_for_another() {
    let of = Parameters { hours: 3.0, ..Parameters::of_the_file().unwrap() };
    let day = |seed| run(&of, seed, Regard::Limits).unwrap();
    assert_eq!(day(1), day(1));
    assert_ne!(day(1), day(2));
}
