//! Books: what a day adds up to, step by step.

use std::collections::BTreeMap;

use polyphony_api::SegmentPlacement;

use crate::parameters::PhoneLimits;
use crate::phone::Phone;
use crate::report::{PhoneRow, Report};
use crate::traffic::Tally;

pub struct Books {
    limits: PhoneLimits,
    rows: Vec<PhoneRow>,
    was: Vec<Was>,
    /// Which phone has each layer, by replica.
    layers: BTreeMap<u32, Vec<String>>,
    first_answer_seconds: Option<f64>,
    seconds: f64,
    answering_seconds: f64,
    gap_seconds: f64,
    longest_gap_seconds: f64,
    told: BTreeMap<String, u32>,
}

/// A phone, a step before.
#[derive(Clone, Copy, Default)]
struct Was {
    is_withdrawn: bool,
    is_off: bool,
    in_ring: bool,
}

// === impl Books ===

impl Books {
    pub fn new(limits: PhoneLimits, phones: &[Phone]) -> Self {
        Self {
            limits,
            rows: phones.iter().map(|phone| PhoneRow::new(&phone.name)).collect(),
            was: vec![Was::default(); phones.len()],
            layers: BTreeMap::new(),
            first_answer_seconds: None,
            seconds: 0.0,
            answering_seconds: 0.0,
            gap_seconds: 0.0,
            longest_gap_seconds: 0.0,
            told: BTreeMap::new(),
        }
    }

    /// What a phone was like for some seconds; `in_ring` is whether it held a segment of a ring that answers, or computed.
    pub fn note_phone(&mut self, at: usize, phone: &Phone, in_ring: bool, computed_seconds: f64, seconds: f64) {
        let (percent, celsius) = (phone.body.percent(), phone.body.shell_celsius);
        let row = &mut self.rows[at];
        row.least_percent = row.least_percent.min(percent);
        row.hottest_celsius = row.hottest_celsius.max(celsius);
        if in_ring {
            row.ring_seconds += seconds;
            row.least_percent_in_rings = row.least_percent_in_rings.min(percent);
            row.hottest_celsius_in_rings = row.hottest_celsius_in_rings.max(celsius);
            // On a charger that keeps up, work takes nothing from the battery.
            let is_below = percent < f64::from(self.limits.min_battery_percent) && phone.body.is_draining();
            row.seconds_under_minimum += if is_below { seconds } else { 0.0 };
            let is_above = celsius >= self.limits.max_temperature_celsius;
            row.seconds_over_limit += if is_above { seconds } else { 0.0 };
            row.least_duty = row.least_duty.min(phone.duty());
        }
        row.joules += phone.computing_joules(computed_seconds) + phone.ring_joules(seconds);
        let is = Was { is_withdrawn: phone.withdrawal().is_some(), is_off: !phone.is_on(), in_ring };
        row.withdrawals += u32::from(is.is_withdrawn && !self.was[at].is_withdrawn);
        let is_emptied = is.is_off && !self.was[at].is_off;
        row.times_empty += u32::from(is_emptied);
        row.times_empty_in_rings += u32::from(is_emptied && self.was[at].in_ring);
        self.was[at] = is;
    }

    /// A plan of a replica was written: whose layers move?
    pub fn note_plan(&mut self, created: &[SegmentPlacement]) {
        let mut by_replica: BTreeMap<u32, Vec<&SegmentPlacement>> = BTreeMap::new();
        created.iter().for_each(|one| by_replica.entry(one.spec.replica).or_default().push(one));
        for (replica, placements) in by_replica {
            let newest = placements.iter().map(|one| one.spec.plan_generation).max();
            let of_newest = placements.into_iter().filter(|one| Some(one.spec.plan_generation) == newest);
            let mut layers: Vec<(u32, String)> = of_newest
                .flat_map(|one| (one.spec.holds.from..one.spec.holds.to).map(|layer| (layer, one.spec.phone.clone())))
                .collect();
            layers.sort();
            let now: Vec<String> = layers.into_iter().map(|(_, phone)| phone).collect();
            let before = self.layers.insert(replica, now.clone()).unwrap_or_default();
            for (from, _) in before.iter().zip(&now).filter(|(from, to)| from != to) {
                let row = self.rows.iter_mut().find(|row| row.name == *from);
                row.into_iter().for_each(|row| row.layers_moved += 1);
            }
        }
    }

    pub fn note_told(&mut self, reasons: Vec<String>) {
        reasons.into_iter().for_each(|reason| *self.told.entry(reason).or_default() += 1);
    }

    /// Whether who asks in these seconds is answered. What comes before the first answer is the start, and is not counted.
    pub fn note_answering(&mut self, at: f64, seconds: f64, is_answered: bool) {
        if is_answered {
            self.first_answer_seconds.get_or_insert(at);
        }
        if self.first_answer_seconds.is_none() {
            return;
        }
        self.seconds += seconds;
        if is_answered {
            self.answering_seconds += seconds;
            self.gap_seconds = 0.0;
        } else {
            self.gap_seconds += seconds;
            self.longest_gap_seconds = self.longest_gap_seconds.max(self.gap_seconds);
        }
    }

    pub fn close(self, tally: Tally) -> Report {
        let told = |reason: &str| self.told.get(reason).copied().unwrap_or(0);
        Report {
            availability: if self.seconds > 0.0 { self.answering_seconds / self.seconds } else { 0.0 },
            start_seconds: self.first_answer_seconds.unwrap_or(f64::INFINITY),
            longest_gap_seconds: self.longest_gap_seconds,
            replanned: told("Replanned"),
            rebalanced: told("Rebalanced"),
            tally,
            phones: self.rows,
        }
    }
}
