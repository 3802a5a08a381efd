//! Neighbours: whose links each phone measures. Pure.
//!
//! A plan may put any two phones beside each other; where there are many, each phone measures its links to some of them, so
//! that probes stay few.

use std::collections::BTreeMap;
use std::ops::Bound;

use polyphony_protocol::hub::{Neighbour, Neighbours};

use crate::secret::Secret;

/// The most phones that one phone measures its links to.
const MAX_NEIGHBOURS: usize = 16;

/// All phones that can be dialled, and the secret that they know each other by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbourhood {
    probe_secret: String,
    addresses: BTreeMap<String, String>,
}

// === impl Neighbourhood ===

impl Neighbourhood {
    pub fn new(addresses: BTreeMap<String, String>, host_key: &Secret) -> Self {
        Self { probe_secret: host_key.derive("probe"), addresses }
    }

    /// Those after `phone` by name, and from the start again: so everybody is somebody's neighbour.
    pub fn of(&self, phone: &str) -> Neighbours {
        let after = self.addresses.range::<str, _>((Bound::Excluded(phone), Bound::Unbounded));
        let before = self.addresses.range::<str, _>((Bound::Unbounded, Bound::Excluded(phone)));
        let neighbour =
            |(phone, address): (&String, &String)| Neighbour { phone: phone.clone(), ring_address: address.clone() };
        let phones = after.chain(before).take(MAX_NEIGHBOURS).map(neighbour).collect();
        Neighbours { probe_secret: self.probe_secret.clone(), phones }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_measures_its_links_to_others_up_to_a_bound() {
        let address = |n: u16| (format!("phone-{n:02}"), format!("10.0.0.{n}:1"));
        let token = Secret::new("t");
        let names = |of: &Neighbours| of.phones.iter().map(|one| one.phone.clone()).collect::<Vec<_>>();
        let few = Neighbourhood::new((0..3).map(address).collect(), &token);
        assert_eq!(names(&few.of("phone-01")), ["phone-02", "phone-00"]);
        assert_eq!(few.of("phone-01").probe_secret.len(), 64);
        assert_ne!(
            few.of("phone-01").probe_secret,
            Neighbourhood::new(BTreeMap::new(), &Secret::new("u")).probe_secret
        );
        let many = Neighbourhood::new((0..40).map(address).collect(), &token);
        let of_last = names(&many.of("phone-39"));
        assert_eq!((of_last.len(), of_last[0].as_str()), (MAX_NEIGHBOURS, "phone-00"));
    }
}
