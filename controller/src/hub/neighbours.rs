//! Neighbours: whose links each phone measures. Pure.
//!
//! A plan may put any two phones beside each other; where there are many, each phone measures its links to some of them, so
//! that probes stay few. Half of those are drawn once and stay, the others are drawn anew now and then, so that in time each link
//! is measured. What is drawn is a matter of the two names alone: each of a pair has been told of the other, and lets it measure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use polyphony_protocol::hub::{Neighbour, Neighbours, Way};

/// The most phones that each measures its links to all others of.
const FEW: usize = 16;
/// Of more, about so many are drawn to stay for each, and as many for a turn.
const DRAWN: u64 = 8;
/// How long the others do.
const TURN_SECONDS: i64 = 600;

/// All phones that can be dialled, and where and by which key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbourhood {
    addresses: BTreeMap<String, String>,
    keys: BTreeMap<String, String>,
    /// Counts up with each drawing.
    turn: i64,
}

// === impl Neighbourhood ===

impl Neighbourhood {
    /// At `now`, in seconds since whenever.
    pub fn new(mut addresses: BTreeMap<String, String>, keys: &BTreeMap<String, String>, now: i64) -> Self {
        // Who is known by no key is nobody's neighbour.
        addresses.retain(|phone, _| keys.contains_key(phone));
        let keys = keys.iter().filter(|(phone, _)| addresses.contains_key(*phone));
        let keys = keys.map(|(phone, key)| (phone.clone(), key.clone())).collect();
        // Where all are neighbours nothing is drawn.
        let turn = if addresses.len() > FEW + 1 { now.div_euclid(TURN_SECONDS) } else { 0 };
        Self { addresses, keys, turn }
    }

    /// All others while they are few; else those whose lots were drawn.
    pub fn of(&self, phone: &str) -> Neighbours {
        let n_phones = self.addresses.len();
        // Of the next power of two: who comes or goes seldom changes whose lots win.
        let wins = (u64::MAX / n_phones.next_power_of_two() as u64).saturating_mul(DRAWN);
        let is_drawn = |other: &str| {
            n_phones <= FEW + 1 || lot(phone, other, None) < wins || lot(phone, other, Some(self.turn)) < wins
        };
        let others = self.addresses.iter().filter(|(other, _)| *other != phone && is_drawn(other));
        let neighbour = |(phone, address): (&String, &String)| Neighbour {
            phone: phone.clone(),
            ways: vec![Way::direct(address), Way::Relayed],
            key: self.keys.get(phone).cloned().unwrap_or_default(),
        };
        Neighbours { phones: others.map(neighbour).collect() }
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

    fn of(n_phones: u16, now: i64) -> Neighbourhood {
        let address = |n: u16| (format!("phone-{n:03}"), format!("10.0.0.{n}:1"));
        let key = |n: u16| (format!("phone-{n:03}"), format!("key-{n}"));
        Neighbourhood::new((0..n_phones).map(address).collect(), &(0..n_phones).map(key).collect(), now)
    }

    fn names(neighbours: &Neighbours) -> BTreeSet<String> {
        neighbours.phones.iter().map(|one| one.phone.clone()).collect()
    }

    #[test]
    fn few_phones_measure_all_links_and_who_has_no_key_is_nobodys_neighbour() {
        let few = of(3, 0);
        assert_eq!(names(&few.of("phone-001")), ["phone-000", "phone-002"].map(String::from).into());
        assert_eq!(few.of("phone-001").phones[0].key, "key-0");
        assert_eq!(few, of(3, 5000), "nothing is drawn of so few");
        let nobody = Neighbourhood::new(BTreeMap::from([("a".into(), "10.0.0.1:1".into())]), &BTreeMap::new(), 0);
        assert_eq!(nobody.of("b").phones, []);
    }

    #[test]
    fn of_many_phones_each_measures_some_links_and_lets_the_same_phones_measure_it() {
        for n_phones in [80, 300] {
            let at = |now| of(n_phones, now);
            let (first, mut met, mut most) = (names(&at(0).of("phone-007")), BTreeSet::new(), 0);
            assert_eq!(first, names(&at(TURN_SECONDS - 1).of("phone-007")), "they stay for a while");
            for turn in 0..1500 {
                let neighbourhood = at(turn * TURN_SECONDS);
                let now = names(&neighbourhood.of("phone-007"));
                for other in now.iter().filter(|_| turn % 50 == 0) {
                    assert!(names(&neighbourhood.of(other)).contains("phone-007"), "{other} is told of it too");
                }
                most = most.max(now.len());
                met.extend(now);
            }
            assert!(most <= 4 * DRAWN as usize, "{most} are drawn of {n_phones}");
            assert_eq!(met.len(), usize::from(n_phones) - 1, "in time each other phone is measured");
        }
        let (all, fewer) = (names(&of(80, 0).of("phone-007")), names(&of(79, 0).of("phone-007")));
        assert!(all.difference(&fewer).count() <= 1, "one phone less changes little");
    }
}
