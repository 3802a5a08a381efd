//! Neighbours: whose links each phone measures. Pure.
//!
//! A plan may put any two phones beside each other; where there are many, each phone measures its links to some of them, so
//! that probes stay few. Half of those are drawn once and stay, the others are drawn anew now and then, so that in time each link
//! is measured; what is drawn is a matter of the names alone.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use polyphony_protocol::hub::{Neighbour, Neighbours};

use crate::secret::Secret;

/// The most phones that one phone measures its links to.
const MAX_NEIGHBOURS: usize = 16;
/// Those of them that stay.
const LASTING_NEIGHBOURS: usize = 8;
/// How long the others do.
const TURN_SECONDS: i64 = 600;

/// All phones that can be dialled, and the secret that they know each other by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbourhood {
    probe_secret: String,
    addresses: BTreeMap<String, String>,
    /// Counts up with each drawing.
    turn: i64,
}

// === impl Neighbourhood ===

impl Neighbourhood {
    /// At `now`, in seconds since whenever.
    pub fn new(addresses: BTreeMap<String, String>, host_key: &Secret, now: i64) -> Self {
        // Where all are neighbours nothing is drawn.
        let turn = if addresses.len() > MAX_NEIGHBOURS { now.div_euclid(TURN_SECONDS) } else { 0 };
        Self { probe_secret: host_key.derive("probe"), addresses, turn }
    }

    /// All others while they are few; else the lots that were drawn.
    pub fn of(&self, phone: &str) -> Neighbours {
        let mut others: Vec<(&String, &String)> = self.addresses.iter().filter(|(other, _)| *other != phone).collect();
        if others.len() > MAX_NEIGHBOURS {
            others.sort_by_cached_key(|(other, _)| lot(phone, other, None));
            others[LASTING_NEIGHBOURS..].sort_by_cached_key(|(other, _)| lot(phone, other, Some(self.turn)));
            others.truncate(MAX_NEIGHBOURS);
            others.sort();
        }
        let neighbour =
            |(phone, address): (&String, &String)| Neighbour { phone: phone.clone(), ring_address: address.clone() };
        let phones = others.into_iter().map(neighbour).collect();
        Neighbours { probe_secret: self.probe_secret.clone(), phones }
    }
}

/// The lot of a pair, whichever of the two asks. Who comes or goes changes the lots of nobody else.
fn lot(phone: &str, other: &str, turn: Option<i64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (phone.min(other), phone.max(other), turn).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_phone_measures_its_links_to_others_up_to_a_bound() {
        let address = |n: u16| (format!("phone-{n:02}"), format!("10.0.0.{n}:1"));
        let key = Secret::new("t");
        let names = |of: &Neighbours| of.phones.iter().map(|one| one.phone.clone()).collect::<BTreeSet<_>>();
        let few = Neighbourhood::new((0..3).map(address).collect(), &key, 0);
        assert_eq!(names(&few.of("phone-01")), ["phone-00", "phone-02"].map(String::from).into());
        assert_eq!(few.of("phone-01").probe_secret.len(), 64);
        assert_ne!(
            few.of("phone-01").probe_secret,
            Neighbourhood::new(BTreeMap::new(), &Secret::new("u"), 0).probe_secret
        );
        assert_eq!(few, Neighbourhood::new((0..3).map(address).collect(), &key, 5000), "nothing is drawn of so few");

        let at = |now| Neighbourhood::new((0..80).map(address).collect(), &key, now);
        let (first, mut met) = (names(&at(0).of("phone-07")), BTreeSet::new());
        assert!(first.len() == MAX_NEIGHBOURS && !first.contains("phone-07"), "{first:?}");
        assert_eq!(first, names(&at(TURN_SECONDS - 1).of("phone-07")), "they stay for a while");
        for turn in 0..80 {
            let now = names(&at(turn * TURN_SECONDS).of("phone-07"));
            assert!(now.len() == MAX_NEIGHBOURS && now.intersection(&first).count() >= LASTING_NEIGHBOURS);
            met.extend(now);
        }
        assert_eq!(met.len(), 79, "in time each other phone is measured");
        let fewer = Neighbourhood::new((0..79).map(address).collect(), &key, 0);
        let kept = names(&fewer.of("phone-07")).intersection(&first).count();
        assert!(kept >= MAX_NEIGHBOURS - 1, "one phone less changes little: {kept}");
    }
}
