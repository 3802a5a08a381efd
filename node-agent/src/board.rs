//! The board: what the agent knows of its segments and links, for heartbeats and `/metrics`. One entry a segment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_protocol::hub::{LinkDown, LinkReport, SegmentPhase, SegmentReport};
use polyphony_wire::LinkError;
use tokio::sync::Notify;

use crate::metrics::Steps;
use crate::pace::Figures;
use crate::serve::links::Links;

/// Peers whose links are remembered; beyond that the one measured longest ago is forgotten.
const MAX_PEERS: usize = 64;
/// Measurements of a link that a median is taken of.
const LINK_SAMPLES: usize = 5;

/// A peer that cannot be reached for this long is told of, and forgotten when nobody has tried for the second.
const DOWN_AFTER: Duration = Duration::from_secs(3);
const DOWN_FORGOTTEN: Duration = Duration::from_secs(60);

/// A time of a layer that differs by more than this part from the one told last is news.
const NEWS_PART: f64 = 0.2;

/// All entries; tells whoever waits when one changes.
#[derive(Default)]
pub struct Board {
    entries: Mutex<BTreeMap<(String, String), Arc<Entry>>>,
    links: Mutex<BTreeMap<String, Measured>>,
    unreachable: Mutex<BTreeMap<String, Unreachable>>,
    changed: Arc<Notify>,
}

/// What was measured of the link to a peer.
struct Measured {
    /// The last round trips, oldest first.
    round_trips: VecDeque<f64>,
    /// The last bandwidths, oldest first.
    bytes_per_second: VecDeque<f64>,
    at: Instant,
}

/// A peer that was tried in vain.
struct Unreachable {
    since: Instant,
    tried_at: Instant,
    why: String,
}

/// What is known of one segment.
pub struct Entry {
    state: Mutex<State>,
    steps: Steps,
    changed: Arc<Notify>,
}

/// What is known of one segment at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub report: SegmentReport,
    /// Layers that it runs, and sessions that it has room for; 0 until it is loaded.
    pub n_layers: u32,
    pub n_slots: u32,
}

struct State {
    report: SegmentReport,
    n_layers: u32,
    n_slots: u32,
    /// The links that it needs, once it is loaded.
    links: Option<Links>,
    /// Stages whose links to this one are up, and those that this one has a link to.
    incoming: BTreeSet<u32>,
    outgoing: BTreeSet<u32>,
    /// The time of a layer that somebody was woken for last.
    told_seconds_per_layer: Option<f64>,
}

// === impl Board ===

impl Board {
    /// A new entry, in phase loading; it takes the place of one of the same name.
    pub fn add(&self, namespace: &str, name: &str) -> Arc<Entry> {
        let report = SegmentReport {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            phase: SegmentPhase::Loading,
            bytes_loaded: 0,
            bytes_total: 0,
            seconds_per_layer: None,
            prefill_seconds_per_layer_per_token: None,
            seconds_besides_layers: None,
            layers_timed: 0,
            queued_rows: 0,
            sessions: 0,
            message: None,
        };
        let state = State {
            report,
            n_layers: 0,
            n_slots: 0,
            links: None,
            incoming: BTreeSet::new(),
            outgoing: BTreeSet::new(),
            told_seconds_per_layer: None,
        };
        let steps = Steps::new(&placement_of(namespace, name));
        let entry = Arc::new(Entry { state: Mutex::new(state), steps, changed: self.changed.clone() });
        lock(&self.entries).insert((namespace.to_owned(), name.to_owned()), entry.clone());
        self.changed.notify_one();
        entry
    }

    pub fn remove(&self, namespace: &str, name: &str) {
        lock(&self.entries).remove(&(namespace.to_owned(), name.to_owned()));
        self.changed.notify_one();
    }

    /// Notes the round trip to a ring neighbour.
    pub fn note_link(&self, peer: &str, round_trip_seconds: f64) {
        self.note_reachable(peer);
        let mut links = lock(&self.links);
        let at = Instant::now();
        let new = || Measured { round_trips: VecDeque::new(), bytes_per_second: VecDeque::new(), at };
        let link = links.entry(peer.to_owned()).or_insert_with(new);
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

    /// A connection to a peer ended, or did not come about. Only some ways of that say that there is no way to it.
    pub fn note_end(&self, peer: &str, end: &LinkError) {
        match end {
            LinkError::Silent(_) | LinkError::Io(_) | LinkError::SlowWrite(_) => {
                self.note_unreachable(peer, end.to_string());
            }
            _ => {}
        }
    }

    /// A peer did not answer. What was measured of the link to it holds no longer, and from now on it can be tried anew: silence before
    /// that may have been the connection's alone.
    fn note_unreachable(&self, peer: &str, why: String) {
        let now = Instant::now();
        lock(&self.links).remove(peer);
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

    /// A peer answered, if only to refuse.
    pub fn note_reachable(&self, peer: &str) {
        lock(&self.unreachable).remove(peer);
    }

    /// Peers that could not be reached for some seconds.
    pub fn links_down(&self) -> Vec<LinkDown> {
        let mut unreachable = lock(&self.unreachable);
        unreachable.retain(|_, one| one.tried_at.elapsed() < DOWN_FORGOTTEN);
        let down = unreachable.iter().filter(|(_, one)| one.since.elapsed() >= DOWN_AFTER);
        down.map(|(peer, one)| LinkDown { peer: peer.clone(), reason: one.why.clone() }).collect()
    }

    /// Every segment's entry, by namespace and name.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    pub fn segments(&self) -> Vec<SegmentReport> {
        lock(&self.entries).values().map(|entry| lock(&entry.state).report.clone()).collect()
    }

    pub fn links(&self) -> Vec<LinkReport> {
        let links = lock(&self.links);
        let report = |(peer, link): (&String, &Measured)| LinkReport {
            peer: peer.clone(),
            round_trip_seconds: median(&link.round_trips).unwrap_or_default(),
            bytes_per_second: median(&link.bytes_per_second),
        };
        links.iter().map(report).collect()
    }

    /// The round trips in seconds that were measured at most `within` ago, by peer.
    pub fn fresh_links(&self, within: Duration) -> Vec<(String, f64)> {
        let links = lock(&self.links);
        let fresh = links.iter().filter(|(_, link)| link.at.elapsed() <= within);
        fresh.filter_map(|(peer, link)| Some((peer.clone(), median(&link.round_trips)?))).collect()
    }

    /// Waits until a phase changes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

// === impl Entry ===

impl Entry {
    /// How much of how much is here.
    pub fn set_progress(&self, bytes_loaded: u64, bytes_total: u64) {
        let mut state = lock(&self.state);
        state.report.bytes_loaded = bytes_loaded;
        state.report.bytes_total = bytes_total;
    }

    /// The segment could not be loaded; `message` says cause, place and remedy.
    pub fn set_failed(&self, message: String) {
        self.change(|state| {
            state.links = None;
            state.report.phase = SegmentPhase::Failed;
            state.report.message = Some(message);
        });
    }

    /// Loading begins, perhaps again.
    pub fn set_loading(&self) {
        self.change(|state| {
            state.report.phase = SegmentPhase::Loading;
            state.report.message = None;
        });
    }

    /// Loading cannot go on yet; `message` says for what it waits.
    pub fn set_waiting(&self, message: String) {
        self.change(|state| state.report.message = Some(message));
    }

    /// The segment is in memory, and ready when all of `links` are up; one that has failed since stays so.
    pub fn set_loaded(&self, links: Links) {
        self.change(|state| {
            if state.report.phase == SegmentPhase::Failed {
                return;
            }
            state.links = Some(links);
            state.settle();
        });
    }

    /// The link that `stage` dials is up or down.
    pub fn set_incoming(&self, stage: u32, is_up: bool) {
        self.change(|state| {
            let _ = if is_up { state.incoming.insert(stage) } else { state.incoming.remove(&stage) };
            state.settle();
        });
    }

    /// The link to `stage` is up, or down and why.
    pub fn set_outgoing(&self, stage: u32, link: Result<(), String>) {
        self.change(|state| {
            let _ = if link.is_ok() { state.outgoing.insert(stage) } else { state.outgoing.remove(&stage) };
            state.settle();
            if let Err(why) = link
                && state.links.is_some()
            {
                state.report.message = Some(why);
            }
        });
    }

    pub fn set_sessions(&self, sessions: usize) {
        lock(&self.state).report.sessions = sessions as u32;
    }

    pub fn set_queued_rows(&self, n_rows: usize) {
        lock(&self.state).report.queued_rows = u32::try_from(n_rows).unwrap_or(u32::MAX);
    }

    /// How long steps take now. A layer that takes much longer or shorter than was told last is told at once.
    pub fn set_figures(&self, figures: Figures) {
        let mut state = lock(&self.state);
        state.report.seconds_per_layer = figures.seconds_per_layer;
        state.report.layers_timed = figures.layers_timed;
        state.report.prefill_seconds_per_layer_per_token = figures.prefill_seconds_per_layer_per_token;
        state.report.seconds_besides_layers = figures.seconds_besides_layers;
        let is_news = match (state.told_seconds_per_layer, figures.seconds_per_layer) {
            (Some(told), Some(now)) => (now - told).abs() > NEWS_PART * told,
            (told, now) => told.is_some() != now.is_some(),
        };
        if is_news {
            state.told_seconds_per_layer = figures.seconds_per_layer;
            self.changed.notify_one();
        }
    }

    /// What the loaded segment runs and has room for.
    pub fn set_room(&self, n_layers: usize, n_slots: usize) {
        let mut state = lock(&self.state);
        state.n_layers = u32::try_from(n_layers).unwrap_or(u32::MAX);
        state.n_slots = u32::try_from(n_slots).unwrap_or(u32::MAX);
    }

    /// Step times; adding to them takes no lock.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = lock(&self.state);
        Snapshot { report: state.report.clone(), n_layers: state.n_layers, n_slots: state.n_slots }
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        let before = (state.report.phase, state.report.message.clone());
        f(&mut state);
        if before != (state.report.phase, state.report.message.clone()) {
            self.changed.notify_one();
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The label of its metrics.
    pub fn placement(&self) -> String {
        placement_of(&self.report.namespace, &self.report.name)
    }
}

/// A placement in metrics: its name, or `namespace/name` outside `default`.
fn placement_of(namespace: &str, name: &str) -> String {
    match namespace {
        "default" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    }
}

// === impl State ===

impl State {
    fn settle(&mut self) {
        let Some(links) = &self.links else { return };
        let has_incoming = links.incoming.iter().all(|stage| self.incoming.contains(stage));
        let has_outgoing = links.outgoing().all(|stage| self.outgoing.contains(&stage));
        let (phase, message) = match (has_incoming, has_outgoing) {
            (true, true) => (SegmentPhase::Ready, None),
            (false, _) => (SegmentPhase::Connecting, Some("waiting for the previous stage to connect".to_owned())),
            (true, false) => (SegmentPhase::Connecting, Some("connecting to the next stage".to_owned())),
        };
        self.report.phase = phase;
        self.report.message = message;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyphony_protocol::hub::EncoderStages;

    #[test]
    fn links_are_remembered_up_to_a_bound_and_the_oldest_is_forgotten_first() {
        let board = Board::default();
        for n in 0..=MAX_PEERS {
            board.note_link(&format!("phone-{n}"), n as f64);
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
        board.note_link("b", 0.001);
        board.note_end("b", &LinkError::Silent(2 * DOWN_AFTER));
        assert_eq!(peers(), [] as [&str; 0], "not before it was tried anew");
        assert_eq!(board.links(), [], "an old rate is none");
        board.note_unreachable("c", "silent".into());
        lock(&board.unreachable).entry("c".into()).and_modify(|unreachable| unreachable.since -= DOWN_AFTER);
        assert_eq!(peers(), ["c"]);
        board.note_unreachable("c", "still silent".into());
        assert_eq!(board.links_down()[0].reason, "still silent");
        board.note_link("c", 0.001);
        assert_eq!(peers(), [] as [&str; 0]);
    }

    #[test]
    fn a_link_that_was_given_up_here_says_nothing_of_its_peer() {
        let board = Board::default();
        board.note_link("b", 0.001);
        board.note_end("b", &LinkError::Overrun);
        assert_eq!((board.links().len(), lock(&board.unreachable).len()), (1, 0));
    }

    #[test]
    fn a_segment_is_ready_when_it_is_loaded_and_all_its_links_are_up() {
        let board = Board::default();
        let entry = board.add("default", "a");
        let phase = || board.segments()[0].phase;
        // It dials the stages 2, 3 and 4, and stage 0 dials it.
        let links = Links::of(1, 5, Some(EncoderStages { last: 1, first_decoder: 2 }));
        entry.set_incoming(0, true);
        assert_eq!(phase(), SegmentPhase::Loading);
        entry.set_loaded(links);
        assert_eq!(phase(), SegmentPhase::Connecting);
        for stage in [2, 3] {
            entry.set_outgoing(stage, Ok(()));
        }
        assert_eq!(phase(), SegmentPhase::Connecting);
        entry.set_outgoing(4, Ok(()));
        assert_eq!(phase(), SegmentPhase::Ready);
        entry.set_outgoing(3, Err("gone".into()));
        assert_eq!(phase(), SegmentPhase::Connecting);
        assert_eq!(board.segments()[0].message.as_deref(), Some("gone"));
    }

    #[test]
    fn a_segment_that_failed_is_not_ready_before_it_is_loaded_anew() {
        let board = Board::default();
        let entry = board.add("default", "a");
        let loaded = || {
            entry.set_loaded(Links::of(0, 1, None));
            board.segments()[0].phase
        };
        entry.set_failed("the device is lost".into());
        assert_eq!(loaded(), SegmentPhase::Failed);
        entry.set_loading();
        assert_eq!(loaded(), SegmentPhase::Ready);
    }

    #[test]
    fn a_segment_that_is_a_ring_by_itself_is_ready_when_it_is_loaded() {
        let board = Board::default();
        board.add("default", "a").set_loaded(Links::of(0, 1, None));
        assert_eq!(board.segments()[0].phase, SegmentPhase::Ready);
    }
}
