//! Peers: what was measured of the ways to other phones, and which of these cannot be reached.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use polyphony_protocol::hub::{LinkDown, LinkReport, Way};
use polyphony_wire::LinkError;

use super::{Board, lock};

/// Peers whose links are remembered; beyond that the one measured longest ago is forgotten.
const MAX_PEERS: usize = 64;
/// Measurements of a link that a median is taken of.
const LINK_SAMPLES: usize = 5;

/// A peer that cannot be reached for this long is told of, and forgotten when nobody has tried for the second.
const DOWN_AFTER: Duration = Duration::from_secs(3);
const DOWN_FORGOTTEN: Duration = Duration::from_secs(60);

/// What was measured by dialling longer ago says nothing of whether that would lead there now; who may be dialled is, once a minute.
const DIALLED_LATELY: Duration = Duration::from_secs(150);

/// What was measured of the link to a peer.
pub(super) struct Measured {
    /// The last round trips, oldest first.
    round_trips: VecDeque<f64>,
    /// The last bandwidths, oldest first.
    bytes_per_second: VecDeque<f64>,
    is_relayed: bool,
    at: Instant,
}

/// A peer that was dialled in vain.
pub(super) struct Unreachable {
    since: Instant,
    tried_at: Instant,
    why: String,
}

// === impl Board ===

impl Board {
    /// Notes the round trip to a peer by that way; what was measured by another one does not count with it. A ring may be led over the hub to a
    /// peer that can be dialled: until that is in vain, dialling is the way to it.
    pub fn note_link(&self, peer: &str, way: &Way, round_trip_seconds: f64) {
        self.note_reachable(peer, way);
        let mut links = lock(&self.links);
        let (at, is_relayed) = (Instant::now(), *way == Way::Relayed);
        if is_relayed && links.get(peer).is_some_and(|link| !link.is_relayed && link.at.elapsed() < DIALLED_LATELY) {
            return;
        }
        let new = || Measured { round_trips: VecDeque::new(), bytes_per_second: VecDeque::new(), is_relayed, at };
        let link = links.entry(peer.to_owned()).or_insert_with(new);
        if link.is_relayed != is_relayed {
            *link = new();
        }
        link.at = at;
        keep(&mut link.round_trips, round_trip_seconds);
        if links.len() > MAX_PEERS
            && let Some(oldest) = links.iter().min_by_key(|(_, link)| link.at).map(|(peer, _)| peer.clone())
        {
            links.remove(&oldest);
        }
    }

    /// Notes what a link carried; one whose round trip nobody has measured is not known.
    pub fn note_bandwidth(&self, peer: &str, bytes_per_second: f64) {
        if let Some(link) = lock(&self.links).get_mut(peer) {
            keep(&mut link.bytes_per_second, bytes_per_second);
        }
    }

    /// A connection to a peer by that way ended, or did not come about. Only some ends say that the way does not lead there.
    pub fn note_end(&self, peer: &str, way: &Way, end: &LinkError) {
        match way {
            _ if !end.leads_nowhere() => {}
            Way::Direct { .. } => self.note_unreachable(peer, end.to_string()),
            Way::Relayed => self.forget_link(peer, true),
        }
    }

    /// Whether a peer cannot be dialled, and no other way to it is known.
    pub fn seeks_way(&self, peer: &str) -> bool {
        lock(&self.unreachable).contains_key(peer) && !lock(&self.links).contains_key(peer)
    }

    /// What was measured by a way holds no longer.
    fn forget_link(&self, peer: &str, is_relayed: bool) {
        let mut links = lock(&self.links);
        if links.get(peer).is_some_and(|link| link.is_relayed == is_relayed) {
            links.remove(peer);
        }
    }

    /// A peer did not answer where it listens. What was measured of the link to it holds no longer, and from now on it can be tried anew: silence before
    /// that may have been the connection's alone.
    fn note_unreachable(&self, peer: &str, why: String) {
        let now = Instant::now();
        self.forget_link(peer, false);
        let mut unreachable = lock(&self.unreachable);
        let is_full = unreachable.len() >= MAX_PEERS && !unreachable.contains_key(peer);
        if is_full
            && let Some(oldest) = unreachable.iter().min_by_key(|(_, one)| one.tried_at).map(|(peer, _)| peer.clone())
        {
            unreachable.remove(&oldest);
        }
        let known = unreachable.entry(peer.to_owned()).or_insert_with(|| Unreachable {
            since: now,
            tried_at: now,
            why: String::new(),
        });
        (known.tried_at, known.why) = (now, why);
        drop(unreachable);
        self.changed.notify_one();
    }

    /// A peer answered by that way, if only to refuse.
    pub fn note_reachable(&self, peer: &str, way: &Way) {
        if *way != Way::Relayed {
            lock(&self.unreachable).remove(peer);
        }
    }

    /// Peers that could not be dialled for some seconds, whether another way leads to them or not.
    pub fn links_down(&self) -> Vec<LinkDown> {
        let mut unreachable = lock(&self.unreachable);
        // Whom another way leads to is dialled seldom.
        let links = lock(&self.links);
        let is_led = |peer: &String| links.get(peer).is_some_and(|link| link.is_relayed);
        unreachable.retain(|peer, one| one.tried_at.elapsed() < DOWN_FORGOTTEN || is_led(peer));
        let down = unreachable.iter().filter(|(_, one)| one.since.elapsed() >= DOWN_AFTER);
        down.map(|(peer, one)| LinkDown { peer: peer.clone(), reason: one.why.clone() }).collect()
    }

    pub fn links(&self) -> Vec<LinkReport> {
        let links = lock(&self.links);
        let report = |(peer, link): (&String, &Measured)| LinkReport {
            peer: peer.clone(),
            round_trip_seconds: median(&link.round_trips).unwrap_or_default(),
            bytes_per_second: median(&link.bytes_per_second),
            is_relayed: link.is_relayed,
        };
        links.iter().map(report).collect()
    }

    /// The round trips in seconds that were measured at most `within` ago, by peer.
    pub fn fresh_links(&self, within: Duration) -> Vec<(String, f64)> {
        let links = lock(&self.links);
        let fresh = links.iter().filter(|(_, link)| link.at.elapsed() <= within);
        fresh.filter_map(|(peer, link)| Some((peer.clone(), median(&link.round_trips)?))).collect()
    }
}

/// Adds a measurement of a link; the oldest goes.
fn keep(samples: &mut VecDeque<f64>, sample: f64) {
    if samples.len() == LINK_SAMPLES {
        samples.pop_front();
    }
    samples.push_back(sample);
}

fn median(samples: &VecDeque<f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_remembered_up_to_a_bound_and_the_oldest_is_forgotten_first() {
        let board = Board::default();
        for n in 0..=MAX_PEERS {
            board.note_link(&format!("phone-{n}"), &direct(), n as f64);
        }
        let links = board.links();
        assert_eq!(links.len(), MAX_PEERS);
        assert!(links.iter().all(|link| link.peer != "phone-0"));
        assert_eq!(board.fresh_links(Duration::from_secs(60)).len(), MAX_PEERS);
        assert_eq!(board.fresh_links(Duration::ZERO), []);
    }

    #[test]
    fn a_peer_that_stays_silent_is_told_of_until_it_answers() {
        let board = Board::default();
        let peers = || board.links_down().into_iter().map(|down| down.peer).collect::<Vec<_>>();
        board.note_link("b", &direct(), 0.001);
        board.note_end("b", &direct(), &LinkError::Silent(2 * DOWN_AFTER));
        assert_eq!(peers(), [] as [&str; 0], "not before it was tried anew");
        assert_eq!(board.links(), [], "an old rate is none");
        board.note_unreachable("c", "silent".into());
        lock(&board.unreachable).entry("c".into()).and_modify(|unreachable| unreachable.since -= DOWN_AFTER);
        assert_eq!(peers(), ["c"]);
        board.note_unreachable("c", "still silent".into());
        assert_eq!(board.links_down()[0].reason, "still silent");
        board.note_link("c", &direct(), 0.001);
        assert_eq!(peers(), [] as [&str; 0]);
    }

    #[test]
    fn a_link_that_was_given_up_here_says_nothing_of_its_peer() {
        let board = Board::default();
        board.note_link("b", &direct(), 0.001);
        board.note_end("b", &direct(), &LinkError::Overrun);
        assert_eq!((board.links().len(), lock(&board.unreachable).len()), (1, 0));
    }

    #[test]
    fn a_peer_that_the_hub_leads_to_stays_one_that_cannot_be_dialled() {
        let board = Board::default();
        let is_relayed = || board.links().iter().map(|link| link.is_relayed).collect::<Vec<_>>();
        board.note_link("b", &direct(), 0.001);
        board.note_unreachable("b", "silent".into());
        assert!(board.seeks_way("b") && is_relayed().is_empty());
        board.note_link("b", &Way::Relayed, 0.009);
        assert!(!board.seeks_way("b"), "one is known");
        let long_ago = DOWN_FORGOTTEN + DOWN_AFTER;
        lock(&board.unreachable)
            .entry("b".into())
            .and_modify(|one| (one.since, one.tried_at) = (one.since - long_ago, one.tried_at - long_ago));
        assert_eq!(board.links_down().len(), 1, "it is told of for as long as that way is needed");
        board.note_unreachable("b", "silent".into());
        assert_eq!(is_relayed(), [true], "dialling in vain says nothing of it");
        board.note_link("b", &direct(), 0.001);
        assert_eq!((is_relayed(), board.links_down().len()), (vec![false], 0));
        assert_eq!(board.links()[0].round_trip_seconds, 0.001, "the other way's do not count with it");
        board.note_link("b", &Way::Relayed, 0.009);
        assert_eq!(is_relayed(), [false], "a ring may be led to whoever can be dialled");
        assert_eq!(board.links()[0].round_trip_seconds, 0.001);
        lock(&board.links).entry("b".into()).and_modify(|link| link.at -= DIALLED_LATELY);
        board.note_link("b", &Way::Relayed, 0.009);
        assert_eq!(is_relayed(), [true], "nobody has dialled it for long");
        board.note_link("b", &direct(), 0.001);
        board.note_unreachable("b", "silent".into());
        board.note_link("b", &Way::Relayed, 0.009);
        assert_eq!(is_relayed(), [true]);
        board.note_end("b", &Way::Relayed, &LinkError::NoWay("it has no link".into()));
        assert!(is_relayed().is_empty());
    }

    fn direct() -> Way {
        Way::direct("10.0.0.2:1")
    }
}
