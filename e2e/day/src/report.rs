//! The report of a day, and its table.

use std::fmt;

use crate::traffic::Tally;

/// What a day came to. Equal for equal seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The part of the time since the first answer in which a ring answers who asks.
    pub availability: f64,
    /// From midnight to the first answer: everything is fetched for the first time.
    pub start_seconds: f64,
    pub longest_gap_seconds: f64,
    /// Plans made because a phone had to be left.
    pub replanned: u32,
    /// Plans made because another is faster.
    pub rebalanced: u32,
    pub tally: Tally,
    pub phones: Vec<PhoneRow>,
}

/// One phone's day.
#[derive(Clone, Debug, PartialEq)]
pub struct PhoneRow {
    pub name: String,
    /// Of the whole day, its person's use included.
    pub least_percent: f64,
    pub hottest_celsius: f64,
    /// While it held a segment of a ring that answers, or computed.
    pub ring_seconds: f64,
    pub least_percent_in_rings: f64,
    pub hottest_celsius_in_rings: f64,
    pub least_duty: f64,
    /// In rings while its battery drains below its minimum, and at its limit of heat or above.
    pub seconds_under_minimum: f64,
    pub seconds_over_limit: f64,
    pub withdrawals: u32,
    /// Its person may empty it, too, who is in no ring.
    pub times_empty: u32,
    pub times_empty_in_rings: u32,
    /// Away from it, from plan to plan.
    pub layers_moved: u32,
    /// Of computing, and of being awake for a ring: above what the phone takes anyway.
    pub joules: f64,
}

// === impl Report ===

impl Report {
    pub fn seconds_under_minimum(&self) -> f64 {
        self.phones.iter().map(|row| row.seconds_under_minimum).sum()
    }

    pub fn seconds_over_limit(&self) -> f64 {
        self.phones.iter().map(|row| row.seconds_over_limit).sum()
    }

    pub fn withdrawals(&self) -> u32 {
        self.phones.iter().map(|row| row.withdrawals).sum()
    }

    pub fn times_empty(&self) -> u32 {
        self.phones.iter().map(|row| row.times_empty).sum()
    }

    pub fn times_empty_in_rings(&self) -> u32 {
        self.phones.iter().map(|row| row.times_empty_in_rings).sum()
    }

    pub fn layers_moved(&self) -> u32 {
        self.phones.iter().map(|row| row.layers_moved).sum()
    }

    /// Of all phones together, by the tokens of answers: reading prompts is in it.
    pub fn joules_a_token(&self) -> f64 {
        self.phones.iter().map(|row| row.joules).sum::<f64>() / self.tally.tokens
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} {:>7} {:>7} {:>6} {:>8} {:>8} {:>5} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6}",
            "phone",
            "least",
            "hottest",
            "ring",
            "least",
            "hottest",
            "least",
            "under",
            "over",
            "with-",
            "empty",
            "layers",
            "kJ"
        )?;
        writeln!(
            f,
            "{:<18} {:>7} {:>7} {:>6} {:>8} {:>8} {:>5} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6}",
            "", "%", "°C", "h", "% ring", "°C ring", "duty", "min", "min", "drawn", "", "moved", ""
        )?;
        for row in &self.phones {
            let in_ring = |value: f64| if row.ring_seconds > 0.0 { format!("{value:.1}") } else { "–".to_owned() };
            writeln!(
                f,
                "{:<18} {:>7.1} {:>7.1} {:>6.1} {:>8} {:>8} {:>5} {:>7.1} {:>7.1} {:>6} {:>6} {:>6} {:>6.1}",
                row.name,
                row.least_percent,
                row.hottest_celsius,
                row.ring_seconds / 3600.0,
                in_ring(row.least_percent_in_rings),
                in_ring(row.hottest_celsius_in_rings),
                in_ring(row.least_duty),
                row.seconds_under_minimum / 60.0,
                row.seconds_over_limit / 60.0,
                row.withdrawals,
                row.times_empty,
                row.layers_moved,
                row.joules / 1e3,
            )?;
        }
        let tally = &self.tally;
        if !self.start_seconds.is_finite() {
            return writeln!(f, "nobody was answered");
        }
        writeln!(
            f,
            "availability {:.4} % (longest gap {:.0} s; first answer after {:.0} s)",
            self.availability * 100.0,
            self.longest_gap_seconds,
            self.start_seconds
        )?;
        writeln!(
            f,
            "{} of {} requests answered, {} asked in vain; {:.0} tokens, {:.2} J a token",
            tally.answered,
            tally.asked,
            tally.asked_in_vain,
            tally.tokens,
            self.joules_a_token()
        )?;
        writeln!(
            f,
            "{} plans for phones that had to be left, {} for speed; {} layers moved, {} sessions handed over, {} begun anew; {} withdrawals",
            self.replanned,
            self.rebalanced,
            self.layers_moved(),
            tally.handed_over,
            tally.replayed,
            self.withdrawals()
        )?;
        writeln!(
            f,
            "in rings under their minimum {:.1} min, over their limit {:.1} min; {} batteries emptied in rings, and {} by people",
            self.seconds_under_minimum() / 60.0,
            self.seconds_over_limit() / 60.0,
            self.times_empty_in_rings(),
            self.times_empty() - self.times_empty_in_rings()
        )
    }
}

// === impl PhoneRow ===

impl PhoneRow {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            least_percent: 100.0,
            hottest_celsius: f64::NEG_INFINITY,
            ring_seconds: 0.0,
            least_percent_in_rings: 100.0,
            hottest_celsius_in_rings: f64::NEG_INFINITY,
            least_duty: 1.0,
            seconds_under_minimum: 0.0,
            seconds_over_limit: 0.0,
            withdrawals: 0,
            times_empty: 0,
            times_empty_in_rings: 0,
            layers_moved: 0,
            joules: 0.0,
        }
    }
}
