//! The ledger: what is asked of each phone already, in bytes and in turns. Kept claim by claim; plans nothing.
//!
//! A phone that serves another deployment has less memory to give, and takes turns: it counts as so many times slower as it has
//! deployments. Generations of one ring share what the phone has loaded: a claim that lies within an earlier one of its ring
//! costs nothing. Agents go by the same rule.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::problem::{Demand, Energy, PhoneCosts};

/// One segment of one plan, as it weighs on its phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub phone: String,
    /// Whose it is: deployments that share a phone take turns on it.
    pub deployment: String,
    /// Whether that deployment shares its phones with others.
    pub shares_phones: bool,
    /// The replica's ring: its generations share what is loaded.
    pub ring: u64,
    /// Counts up with the plans of a ring.
    pub generation: u64,
    /// Weights, caches and activations, those of layers that stand by included.
    pub bytes: u64,
    pub loaded: Loaded,
}

/// What is in a phone's memory for a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What has to be equal for two claims to share weights and caches: model, context, sessions, arithmetic.
    pub kind: String,
    /// Those that stand by included.
    pub layers: Range<u32>,
    pub embedding: bool,
    pub head: bool,
}

/// All claims, by what the caller calls them.
#[derive(Clone, Debug)]
pub struct Ledger<Id> {
    claims: BTreeMap<String, BTreeMap<Id, Claim>>,
    phones: BTreeMap<Id, String>,
}

/// What is taken, with some claims left out or put in to see how it would be.
#[derive(Clone, Debug)]
pub struct Taken<'a, Id> {
    ledger: &'a Ledger<Id>,
    without: BTreeSet<Id>,
    with: Vec<Claim>,
}

// === impl Loaded ===

impl Loaded {
    /// Whether all that `other` needs is in memory for this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.layers.start <= other.layers.start
            && other.layers.end <= self.layers.end
            && (self.embedding || !other.embedding)
            && (self.head || !other.head)
    }
}

// === impl Ledger ===

impl<Id> Default for Ledger<Id> {
    fn default() -> Self {
        Self { claims: BTreeMap::new(), phones: BTreeMap::new() }
    }
}

impl<Id: Ord + Clone> Ledger<Id> {
    /// Notes a claim, in place of an earlier one of that name.
    pub fn add(&mut self, id: Id, claim: Claim) {
        self.remove(&id);
        self.phones.insert(id.clone(), claim.phone.clone());
        self.claims.entry(claim.phone.clone()).or_default().insert(id, claim);
    }

    pub fn remove(&mut self, id: &Id) {
        let Some(phone) = self.phones.remove(id) else { return };
        if let Some(of_phone) = self.claims.get_mut(&phone) {
            of_phone.remove(id);
            if of_phone.is_empty() {
                self.claims.remove(&phone);
            }
        }
    }

    pub fn all(&self) -> Taken<'_, Id> {
        self.without([])
    }

    pub fn without(&self, ids: impl IntoIterator<Item = Id>) -> Taken<'_, Id> {
        Taken { ledger: self, without: ids.into_iter().collect(), with: Vec::new() }
    }
}

// === impl Taken ===

impl<'a, Id: Ord> Taken<'a, Id> {
    /// And these claims besides.
    pub fn and(mut self, claims: impl IntoIterator<Item = Claim>) -> Self {
        self.with.extend(claims);
        self
    }

    fn on<'b>(&'b self, phone: &'b str) -> impl Iterator<Item = &'b Claim> + use<'a, 'b, Id> {
        let noted = self.ledger.claims.get(phone).into_iter().flatten();
        let staying = noted.filter(|(id, _)| !self.without.contains(id)).map(|(_, claim)| claim);
        staying.chain(self.with.iter().filter(move |claim| claim.phone == phone))
    }

    /// Bytes that are taken of a phone.
    pub fn bytes(&self, phone: &str) -> u64 {
        let mut claims: Vec<&Claim> = self.on(phone).collect();
        claims.sort_by_key(|claim| (claim.ring, claim.generation));
        let is_loaded = |at: usize, claim: &Claim| {
            claims[..at].iter().any(|earlier| earlier.ring == claim.ring && earlier.loaded.covers(&claim.loaded))
        };
        let costly = claims.iter().enumerate().filter(|(at, claim)| !is_loaded(*at, claim));
        costly.fold(0, |bytes, (_, claim)| bytes.saturating_add(claim.bytes))
    }

    /// Whether a deployment may use the phone: it is nobody's, or its own, or shared by all.
    pub fn admits(&self, phone: &str, deployment: &str, shares_phones: bool) -> bool {
        let mut others = self.on(phone).filter(|claim| claim.deployment != deployment);
        others.all(|other| shares_phones && other.shares_phones)
    }

    /// How many deployments take turns on the phone when this one is there too; 1 when it is alone.
    pub fn turns(&self, phone: &str, deployment: &str) -> u32 {
        let others: BTreeSet<&str> = self.on(phone).map(|claim| claim.deployment.as_str()).collect();
        let n_others = others.into_iter().filter(|other| *other != deployment).count();
        u32::try_from(n_others).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// What a phone of so many allocatable bytes has left to allocate.
    pub fn bytes_left(&self, phone: &str, allocatable_bytes: u64, demand: &Demand) -> u64 {
        // The fraction is taken of the whole phone, and what others use comes off what is left.
        let used = self.bytes(phone) as f64 * demand.generations_in_memory / demand.memory_fraction;
        (allocatable_bytes as f64 - used.ceil()).max(0.0) as u64
    }
}

// === impl PhoneCosts ===

impl PhoneCosts {
    /// The phone as it is to one of `turns` deployments that take turns on it.
    pub fn in_turns(self, turns: u32) -> Self {
        let turns = f64::from(turns.max(1));
        let energy = Energy { busy_share: self.energy.busy_share / turns, ..self.energy };
        Self { energy, ..self }.slower(turns)
    }

    /// The phone as if it took so many times as long for all that it does.
    pub fn slower(self, times: f64) -> Self {
        Self {
            seconds_per_layer: self.seconds_per_layer * times,
            seconds_per_layer_per_further_row: self.seconds_per_layer_per_further_row.map(|seconds| seconds * times),
            seconds_per_step: self.seconds_per_step * times,
            seconds_embedding: self.seconds_embedding * times,
            seconds_head: self.seconds_head * times,
            seconds_head_per_further_row: self.seconds_head_per_further_row.map(|seconds| seconds * times),
            prefill_seconds_per_layer_per_token: self.prefill_seconds_per_layer_per_token * times,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(phone: &str, deployment: &str, generation: u64, layers: Range<u32>, bytes: u64) -> Claim {
        let ring = deployment.len() as u64;
        let loaded = Loaded { kind: "m".into(), layers, embedding: true, head: false };
        let (phone, deployment) = (phone.to_owned(), deployment.to_owned());
        Claim { phone, deployment, shares_phones: true, ring, generation, bytes, loaded }
    }

    #[test]
    fn what_lies_within_an_earlier_generation_costs_nothing() {
        let mut ledger = Ledger::default();
        ledger.add(1, claim("a", "d", 1, 0..8, 80));
        ledger.add(2, claim("a", "d", 2, 0..6, 60));
        assert_eq!(ledger.all().bytes("a"), 80);
        assert_eq!(ledger.without([1]).bytes("a"), 60, "the first goes, and the second has to pay");
        ledger.add(3, claim("a", "d", 3, 4..12, 80));
        assert_eq!(ledger.all().bytes("a"), 160, "half of it is new, so it is loaded beside");
        ledger.add(4, claim("a", "other", 1, 0..8, 80));
        assert_eq!(ledger.all().bytes("a"), 240, "another ring shares nothing");
        assert_eq!(ledger.all().and([claim("a", "d", 4, 1..2, 10)]).bytes("a"), 240);
        ledger.remove(&4);
        assert_eq!((ledger.all().bytes("a"), ledger.all().bytes("b")), (160, 0));
    }

    #[test]
    fn deployments_take_turns_where_all_of_them_share() {
        let mut ledger = Ledger::default();
        ledger.add(1, claim("a", "d", 1, 0..8, 80));
        ledger.add(2, claim("a", "d", 2, 0..8, 80));
        ledger.add(3, claim("a", "e", 1, 0..8, 80));
        ledger.add(4, Claim { shares_phones: false, ..claim("b", "e", 1, 0..8, 80) });
        let all = ledger.all();
        assert_eq!((all.turns("a", "d"), all.turns("a", "f"), all.turns("c", "f")), (2, 3, 1));
        assert_eq!(ledger.without([3]).turns("a", "d"), 1);
        let admits = [("a", "f", true), ("a", "f", false), ("b", "f", true), ("b", "e", false), ("c", "f", false)];
        let expected = [true, false, false, true, true];
        for ((phone, deployment, shares), expected) in admits.into_iter().zip(expected) {
            assert_eq!(all.admits(phone, deployment, shares), expected, "{deployment} on {phone}");
        }
    }
}
