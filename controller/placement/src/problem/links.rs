//! Links: the ways between phones, as far as they were measured, and what to believe of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{MAX_SECONDS, divide};

/// One direction between two phones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// One way: half of the measured round trip.
    pub latency_seconds: f64,
    pub bytes_per_second: f64,
}

/// A phone's own way to the others: its radio, its driver, its place in the house. What is believed of a way that nobody
/// has measured is made of the accesses at its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// Its part of the delay of any way, one way.
    pub delay_seconds: f64,
    pub bytes_per_second: f64,
}

/// The links between phones: what was measured, and what to believe where nothing was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Where not even the access of both ends is known.
    pub default: Link,
    /// By index into `Problem::phones`; a phone beyond its end has no known access.
    #[serde(default)]
    pub access: Vec<Option<Access>>,
    pub measured: Measured,
}

/// What was measured, by (from, to), indices into `Problem::phones`; both directions are listed if both are known.
///
/// Clones share it: problems of many deployments on the same phones differ in all else. As JSON it is a list of `[from, to, link]`, since
/// JSON has no pairs as keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(usize, usize, Link)>", into = "Vec<(usize, usize, Link)>")]
pub struct Measured(Arc<Vec<((usize, usize), Link)>>);

// === impl Link ===

impl Link {
    /// No way from one phone to the other.
    pub const UNREACHABLE: Link = Link { latency_seconds: f64::INFINITY, bytes_per_second: 0.0 };

    /// Seconds until the last of `bytes` has arrived; infinite when the figures make no sense or the link is
    /// slower than [`MAX_SECONDS`].
    pub fn transfer_seconds(&self, bytes: u64) -> f64 {
        believed(self.delay_seconds() + self.wire_seconds(bytes))
    }

    /// Seconds for which `bytes` keep the link busy: the part of a transfer that cannot overlap with the next.
    pub fn wire_seconds(&self, bytes: u64) -> f64 {
        believed(divide(bytes as f64, self.bytes_per_second))
    }

    /// Seconds on the way, whatever the size; infinite like the others.
    pub fn delay_seconds(&self) -> f64 {
        believed(self.latency_seconds)
    }
}

// === impl Links ===

impl Links {
    /// The same link between every two phones.
    pub fn uniform(default: Link) -> Self {
        Self { default, access: Vec::new(), measured: Measured::default() }
    }

    /// What was measured, else what both accesses make of it, else the default.
    pub fn between(&self, from: usize, to: usize) -> Link {
        self.measured.get(&(from, to)).copied().unwrap_or_else(|| self.estimated(from, to))
    }

    fn estimated(&self, from: usize, to: usize) -> Link {
        match (self.access_of(from), self.access_of(to)) {
            (Some(from), Some(to)) => Link {
                latency_seconds: from.delay_seconds + to.delay_seconds,
                bytes_per_second: from.bytes_per_second.min(to.bytes_per_second),
            },
            _ => self.default,
        }
    }

    pub fn access_of(&self, phone: usize) -> Option<Access> {
        self.access.get(phone).copied().flatten()
    }

    /// The links among `kept`, rising places of phones, by their new places.
    pub fn over(&self, kept: &[usize]) -> Self {
        let place = |&((from, to), link): &((usize, usize), Link)| {
            Some(((kept.binary_search(&from).ok()?, kept.binary_search(&to).ok()?), link))
        };
        Self {
            default: self.default,
            access: kept.iter().map(|&phone| self.access_of(phone)).collect(),
            measured: self.measured.iter().filter_map(place).collect(),
        }
    }
}

// === impl Measured ===

impl Measured {
    pub fn get(&self, way: &(usize, usize)) -> Option<&Link> {
        self.0.binary_search_by_key(way, |(way, _)| *way).ok().map(|at| &self.0[at].1)
    }

    /// By way, rising.
    pub fn iter(&self) -> impl Iterator<Item = &((usize, usize), Link)> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a link in place of what was known of that way, which is given back. To put many, collect them.
    pub fn insert(&mut self, way: (usize, usize), link: Link) -> Option<Link> {
        let all = Arc::make_mut(&mut self.0);
        match all.binary_search_by_key(&way, |(way, _)| *way) {
            Ok(at) => Some(std::mem::replace(&mut all[at].1, link)),
            Err(at) => {
                all.insert(at, (way, link));
                None
            }
        }
    }

    /// Whether both are one and the same, and not only alike.
    fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Measured {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

/// Of two links of one way the later one counts.
impl FromIterator<((usize, usize), Link)> for Measured {
    fn from_iter<I: IntoIterator<Item = ((usize, usize), Link)>>(links: I) -> Self {
        let all: Vec<_> = links.into_iter().collect();
        if all.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Self(Arc::new(all));
        }
        let sorted: BTreeMap<(usize, usize), Link> = all.into_iter().collect();
        Self(Arc::new(sorted.into_iter().collect()))
    }
}

impl From<Vec<(usize, usize, Link)>> for Measured {
    fn from(list: Vec<(usize, usize, Link)>) -> Self {
        list.into_iter().map(|(from, to, link)| ((from, to), link)).collect()
    }
}

impl From<Measured> for Vec<(usize, usize, Link)> {
    fn from(measured: Measured) -> Self {
        measured.iter().map(|&((from, to), link)| (from, to, link)).collect()
    }
}

fn believed(seconds: f64) -> f64 {
    if (0.0..=MAX_SECONDS).contains(&seconds) { seconds } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_links_are_found_by_their_way_however_they_came_in() {
        let link = |latency_seconds| Link { latency_seconds, bytes_per_second: 1e6 };
        let mut measured: Measured =
            [((2, 1), link(0.3)), ((0, 1), link(0.1)), ((2, 1), link(0.4))].into_iter().collect();
        assert_eq!(measured.insert((1, 0), link(0.2)), None);
        assert_eq!(measured.insert((0, 1), link(0.5)), Some(link(0.1)));
        let all: Vec<_> = measured.iter().copied().collect();
        assert_eq!(all, [((0, 1), link(0.5)), ((1, 0), link(0.2)), ((2, 1), link(0.4))]);
        assert_eq!((measured.get(&(1, 0)), measured.get(&(1, 2))), (Some(&link(0.2)), None));
        let list = Vec::from(measured.clone());
        assert_eq!(list[0], (0, 1, link(0.5)));
        assert_eq!(Measured::from(list), measured);
        let mut other = measured.clone();
        assert!(other.is_shared_with(&measured));
        other.insert((0, 2), link(0.6));
        assert_ne!(other, measured, "what is shared does not change for the other");
        assert_eq!(measured.len(), 3);
    }
}
