//! Pace: how long a layer takes on this phone now, and what a step costs besides. Pure: times come in as arguments.
//!
//! A step is timed as a whole; what of it are layers follows from shares that were measured once, when the segment was
//! loaded. The median of a short window shows a slowdown within a second or two, and no single hiccup.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples older than this say nothing of now.
const WINDOW: Duration = Duration::from_millis(1500);
/// The most samples that a median is taken of.
const SAMPLES: usize = 64;
/// Figures are made anew at most this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

/// What parts of a step cost, in layers: measured when nothing else ran on the segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Output norm, output matrix: as long as so many layers of one row. 0 where there is no head.
    pub head_in_layers: f64,
    /// A further row in the same decode step, as a part of the first.
    pub further_row: f64,
}

/// One step that was run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub n_rows: usize,
    /// Rows that gave logits.
    pub n_logits: usize,
    pub n_layers: usize,
    /// One row a session.
    pub is_decode: bool,
    /// On the engine, and at rest after it.
    pub computing: Duration,
    /// From the rows' choice to the last frame's way out, and that rest.
    pub whole: Duration,
}

/// What is published of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// One row through one layer, in decode.
    pub seconds_per_layer: Option<f64>,
    /// Layers of the steps that this was measured by.
    pub layers_timed: u32,
    /// One layer of a prefill chunk, divided by its rows.
    pub prefill_seconds_per_layer_per_token: Option<f64>,
    /// What a decode step costs besides its layers.
    pub seconds_besides_layers: Option<f64>,
}

/// The last steps of one segment.
#[derive(Debug)]
pub struct Pace {
    shares: Shares,
    layer: Window,
    besides: Window,
    prefill: Window,
    figures: Figures,
    published_at: Option<Instant>,
    /// Layers of the last decode step.
    n_layers: u32,
    /// Whether steps were noted after the figures were made.
    is_behind: bool,
}

#[derive(Debug, Default)]
struct Window {
    samples: VecDeque<(Instant, f64)>,
}

// === impl Figures ===

impl Figures {
    /// What they are of a phone that computes in this part of its time.
    pub fn at_duty(self, duty: f64) -> Self {
        let slower = |seconds: Option<f64>| seconds.map(|seconds| seconds / duty);
        Self {
            seconds_per_layer: slower(self.seconds_per_layer),
            layers_timed: self.layers_timed,
            prefill_seconds_per_layer_per_token: slower(self.prefill_seconds_per_layer_per_token),
            seconds_besides_layers: slower(self.seconds_besides_layers),
        }
    }
}

// === impl Shares ===

impl Default for Shares {
    /// A segment without a head, on which a further row costs as much as the first.
    fn default() -> Self {
        Self { head_in_layers: 0.0, further_row: 1.0 }
    }
}

impl Shares {
    /// Layers of one row that a decode step is as long as.
    fn layers_of(&self, step: &Step) -> f64 {
        let rows = |n: usize| if n == 0 { 0.0 } else { 1.0 + self.further_row * (n - 1) as f64 };
        step.n_layers as f64 * rows(step.n_rows) + self.head_in_layers * rows(step.n_logits)
    }
}

// === impl Pace ===

impl Pace {
    /// With what was measured before the first step, if anything.
    pub fn new(shares: Shares, figures: Figures) -> Self {
        Self {
            shares,
            layer: Window::default(),
            besides: Window::default(),
            prefill: Window::default(),
            figures,
            published_at: None,
            n_layers: figures.layers_timed,
            is_behind: false,
        }
    }

    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Takes a step in; gives new figures when it is time for some.
    pub fn note(&mut self, step: &Step, now: Instant) -> Option<Figures> {
        if step.n_rows == 0 || step.n_layers == 0 {
            return None;
        }
        let computing = step.computing.as_secs_f64();
        if step.is_decode {
            self.n_layers = step.n_layers as u32;
            let layer = computing / self.shares.layers_of(step);
            self.layer.add(layer, now);
            if step.n_rows == 1 {
                self.besides.add((step.whole.as_secs_f64() - layer * step.n_layers as f64).max(0.0), now);
            }
        } else if step.n_logits == 0 {
            // A chunk without logits is layers alone.
            self.prefill.add(computing / (step.n_layers * step.n_rows) as f64, now);
        }
        self.is_behind = true;
        if self.published_at.is_some_and(|at| now.duration_since(at) < PUBLISH_EVERY) {
            return None;
        }
        self.catch_up(now)
    }

    /// The figures of all steps so far, where they are new: for when no further step comes, so that the last ones count.
    pub fn catch_up(&mut self, now: Instant) -> Option<Figures> {
        if !self.is_behind {
            return None;
        }
        self.is_behind = false;
        self.published_at = Some(now);
        // What was not measured of late is as it was.
        let figures = Figures {
            seconds_per_layer: self.layer.median(now).or(self.figures.seconds_per_layer),
            layers_timed: self.n_layers,
            prefill_seconds_per_layer_per_token: self
                .prefill
                .median(now)
                .or(self.figures.prefill_seconds_per_layer_per_token),
            seconds_besides_layers: self.besides.median(now).or(self.figures.seconds_besides_layers),
        };
        let is_new = figures != self.figures;
        self.figures = figures;
        is_new.then_some(figures)
    }
}

// === impl Window ===

impl Window {
    fn add(&mut self, seconds: f64, now: Instant) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, seconds));
    }

    /// Of the samples of the window; where there are fewer than three, of the last three.
    fn median(&mut self, now: Instant) -> Option<f64> {
        while self.samples.len() > 3 && self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        let mut sorted: Vec<f64> = self.samples.iter().map(|(_, seconds)| *seconds).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn decode(n_rows: usize, computing: Duration) -> Step {
        Step { n_rows, n_logits: n_rows, n_layers: 10, is_decode: true, computing, whole: computing + MS }
    }

    #[test]
    fn the_heads_share_is_no_layers() {
        let shares = Shares { head_in_layers: 5.0, further_row: 0.5 };
        let mut pace = Pace::new(shares, Figures::default());
        let figures = pace.note(&decode(1, 30 * MS), Instant::now()).unwrap();
        assert!((figures.seconds_per_layer.unwrap() - 0.002).abs() < 1e-9, "30 ms are 10 layers and a head of 5");
        assert!((figures.seconds_besides_layers.unwrap() - 0.011).abs() < 1e-9, "the head, and 1 ms of frames");
    }

    #[test]
    fn a_step_of_many_rows_tells_the_time_of_one() {
        let mut pace = Pace::new(Shares { head_in_layers: 0.0, further_row: 0.5 }, Figures::default());
        let figures = pace.note(&decode(3, 40 * MS), Instant::now()).unwrap();
        assert!((figures.seconds_per_layer.unwrap() - 0.002).abs() < 1e-9);
        assert_eq!(figures.seconds_besides_layers, None, "of one row alone");
    }

    #[test]
    fn a_slowdown_shows_within_the_window_and_a_hiccup_does_not() {
        let mut pace = Pace::new(Shares::default(), Figures::default());
        let mut now = Instant::now();
        let mut run = |pace: &mut Pace, n: usize, computing: Duration| {
            for _ in 0..n {
                now += 50 * MS;
                pace.note(&decode(1, computing), now);
            }
            pace.figures().seconds_per_layer.unwrap()
        };
        assert_eq!(run(&mut pace, 100, 20 * MS), 0.002);
        assert_eq!(run(&mut pace, 1, 500 * MS), 0.002);
        assert_eq!(run(&mut pace, 5, 20 * MS), 0.002);
        assert_eq!(run(&mut pace, 30, 60 * MS), 0.006, "1.5 s later");
    }

    #[test]
    fn the_steps_after_the_last_figures_count_when_no_more_come() {
        let mut pace = Pace::new(Shares::default(), Figures::default());
        let now = Instant::now();
        assert!(pace.note(&decode(1, 50 * MS), now).is_some(), "the first step, cold");
        for n in 1..9 {
            assert_eq!(pace.note(&decode(1, 20 * MS), now + n * 20 * MS), None);
        }
        let figures = pace.catch_up(now + 200 * MS).unwrap();
        assert_eq!((figures.seconds_per_layer, figures.layers_timed), (Some(0.002), 10));
        assert_eq!(pace.catch_up(now + 400 * MS), None);
    }

    #[test]
    fn a_prefill_chunk_tells_of_prefill_alone() {
        let measured = Figures { seconds_per_layer: Some(0.5), ..Figures::default() };
        let mut pace = Pace::new(Shares::default(), measured);
        let chunk =
            Step { n_rows: 32, n_logits: 0, n_layers: 10, is_decode: false, computing: 320 * MS, whole: 320 * MS };
        let figures = pace.note(&chunk, Instant::now()).unwrap();
        assert_eq!(figures.prefill_seconds_per_layer_per_token, Some(0.001));
        assert_eq!(figures.seconds_per_layer, Some(0.5), "as it was measured before");
    }
}
