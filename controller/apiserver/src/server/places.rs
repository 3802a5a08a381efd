//! Places: how many watches are open at a time, in all and of one user. Who takes all of theirs keeps nobody else out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guard::{Role, User};

const MAX_IN_ALL: usize = 1024;
const MAX_OF_USER: usize = 256;

/// All places. Clones are the same.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<BTreeMap<String, usize>>>);

/// One that is taken, until it is dropped.
pub struct Place {
    places: Places,
    user: String,
}

// === impl Places ===

impl Places {
    /// A place for a watch of `user`; none where there is none. Programs of the control plane always have theirs: what they learn others are let in by.
    pub fn take(&self, user: &User) -> Option<Place> {
        let mut taken = self.lock();
        let (in_all, own) = (taken.values().sum::<usize>(), taken.get(&user.name).copied().unwrap_or(0));
        if user.role != Role::Program && (in_all >= MAX_IN_ALL || own >= MAX_OF_USER) {
            return None;
        }
        *taken.entry(user.name.clone()).or_default() += 1;
        Some(Place { places: self.clone(), user: user.name.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        // Nobody panics while half of it is written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_takes_all_of_theirs_keeps_nobody_else_out() {
        let user = |name: &str, role| User { name: name.into(), role };
        let places = Places::default();
        let all = |user: &User| std::iter::from_fn(|| places.take(user)).collect::<Vec<_>>();
        let mut held: Vec<_> = (0..3).map(|idx| all(&user(&format!("viewer-{idx}"), Role::Viewer))).collect();
        assert!(held.iter().all(|held| held.len() == MAX_OF_USER));
        held.push(all(&user("admin", Role::Admin)));
        assert_eq!(held[3].len(), MAX_OF_USER);
        // Now there is none for anybody, but for who keeps the house.
        assert!(places.take(&user("other", Role::Admin)).is_none());
        let own = places.take(&user("controller", Role::Program)).unwrap();
        held[0].pop();
        assert!(places.take(&user("other", Role::Admin)).is_none(), "the controller has taken it");
        held[0].pop();
        assert!(places.take(&user("other", Role::Admin)).is_some());
        drop((own, held));
        assert!(places.lock().is_empty());
    }
}
