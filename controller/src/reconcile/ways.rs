//! Ways: how each phone reaches another one, as far as they have said. Pure.
//!
//! A phone that cannot dial another one measures the way over the hub. One that nobody of the two has measured leads nowhere.

use std::collections::BTreeMap;

use polyphony_protocol::hub::{Heartbeat, LinkReport};

use super::failures;
use super::observe::Observed;

/// How one phone reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// It dials it, as far as is known.
    Direct,
    /// Over the hub; with the words of whoever could not dial the other.
    Relayed(&'a str),
    /// Not at all; with those words.
    Not(&'a str),
}

/// All that phones have said of each other.
pub struct Ways<'a> {
    observed: &'a Observed,
    down: BTreeMap<(&'a str, &'a str), &'a str>,
}

// === impl Ways ===

impl<'a> Ways<'a> {
    pub fn of(observed: &'a Observed) -> Self {
        Self { observed, down: failures::links_down(observed) }
    }

    pub fn between(&self, from: &str, to: &str) -> Reach<'a> {
        let Some(why) = self.down.get(&(from, to)) else { return Reach::Direct };
        let is_relayed = |link: &LinkReport| link.is_relayed;
        if !self.has_link(from, to, is_relayed) && !self.has_link(to, from, is_relayed) {
            return Reach::Not(why);
        }
        let is_down = self.heartbeat(from).is_some_and(|said| said.links_down.iter().any(|down| down.peer == to));
        match !is_down && self.has_link(from, to, |link| !link.is_relayed) {
            // The other one cannot dial it: one of the two is behind a NAT.
            true => Reach::Direct,
            false => Reach::Relayed(why),
        }
    }

    /// Pairs that do not reach each other at all, in both orders.
    pub fn none(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.down.keys().copied().filter(|(from, to)| matches!(self.between(from, to), Reach::Not(_)))
    }

    fn has_link(&self, from: &str, to: &str, is_it: impl Fn(&LinkReport) -> bool) -> bool {
        self.heartbeat(from).is_some_and(|said| said.links.iter().any(|link| link.peer == to && is_it(link)))
    }

    fn heartbeat(&self, phone: &str) -> Option<&'a Heartbeat> {
        self.observed.phones.get(phone)?.heartbeat.as_ref()
    }
}
