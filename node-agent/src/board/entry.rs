//! Entries: what is known of one segment: how far it is, its links, and what its steps take.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use polyphony_protocol::hub::{SegmentPhase, SegmentReport};
use tokio::sync::Notify;

use super::lock;
use crate::pace::Figures;
use crate::serve::links::Links;
use crate::steps::Steps;

/// A time of a layer that differs by more than this part from the one told last is news.
const NEWS_PART: f64 = 0.2;

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

// === impl Entry ===

impl Entry {
    /// In phase loading; `changed` is woken by what whoever reads the board should hear of at once.
    pub(super) fn new(namespace: &str, name: &str, changed: Arc<Notify>) -> Self {
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
        Self { state: Mutex::new(state), steps, changed }
    }

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

#[cfg(test)]
mod tests {
    use polyphony_protocol::hub::EncoderStages;

    use super::*;
    use crate::board::Board;

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
