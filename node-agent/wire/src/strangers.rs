//! Strangers: connections that have not shown yet who they are. They are few, and one of those makes room for the next: so however many come, none takes
//! the place of a phone. It is the oldest one of the address that most of them are from, so that a crowd from one place shows out itself.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Those that are there.
pub struct Strangers {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    /// In the order in which they came.
    leave: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// One of them, until it is dropped.
pub struct Stranger {
    strangers: Arc<Strangers>,
    id: u64,
    leave: CancellationToken,
}

// === impl Strangers ===

impl Strangers {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, waiting: Mutex::default() })
    }

    /// Lets one more in, from that address; another one has to leave when there are too many.
    pub fn let_in(self: &Arc<Self>, from: IpAddr) -> Stranger {
        let mut waiting = self.lock();
        while waiting.leave.len() >= self.most.max(1) {
            let Some(id) = waiting.who_leaves() else { break };
            if let Some((_, leave)) = waiting.leave.remove(&id) {
                leave.cancel();
            }
        }
        let (id, leave) = (waiting.next_id, CancellationToken::new());
        waiting.next_id += 1;
        waiting.leave.insert(id, (network(from), leave.clone()));
        drop(waiting);
        Stranger { strangers: self.clone(), id, leave }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No holder of the lock leaves an entry half-written.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    /// The oldest of those from where most are; of several such places, the oldest of all.
    fn who_leaves(&self) -> Option<u64> {
        let mut n_from: HashMap<IpAddr, usize> = HashMap::new();
        self.leave.values().for_each(|(from, _)| *n_from.entry(*from).or_default() += 1);
        let most = n_from.values().copied().max()?;
        self.leave.iter().find(|(_, (from, _))| n_from[from] == most).map(|(id, _)| *id)
    }
}

/// What one machine can have many addresses of: it is given 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets.into()
        }
        address => address.to_canonical(),
    }
}

// === impl Stranger ===

impl Stranger {
    /// Waits until it has to make room.
    pub async fn displaced(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.lock().leave.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_oldest_makes_room_and_who_has_joined_is_no_stranger() {
        let strangers = Strangers::new(2);
        let (first, joined) = (strangers.let_in(address(1)), strangers.let_in(address(1)));
        drop(joined);
        let second = strangers.let_in(address(1));
        assert!(!first.leave.is_cancelled(), "one has joined, so there was room");
        let third = strangers.let_in(address(1));
        let is_gone = [&first, &second, &third].map(|one| one.leave.is_cancelled());
        assert_eq!(is_gone, [true, false, false]);
    }

    #[test]
    fn a_crowd_from_one_place_shows_out_itself_and_nobody_else() {
        let strangers = Strangers::new(8);
        let few = [strangers.let_in(address(1)), strangers.let_in(address(2))];
        let crowd: Vec<_> = (0..100).map(|_| strangers.let_in(address(3))).collect();
        assert!(few.iter().all(|one| !one.leave.is_cancelled()));
        assert_eq!(crowd.iter().filter(|one| !one.leave.is_cancelled()).count(), 6);
        let of_v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(of_v6("2001:db8::1"), of_v6("2001:db8::2"), "a machine has a whole network");
        assert_ne!(of_v6("2001:db8::1"), of_v6("2001:db8:0:1::1"));
        assert_eq!(of_v6("::ffff:10.0.0.1"), address(1));
    }
}
