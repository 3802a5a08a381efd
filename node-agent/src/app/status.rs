//! How the agent in an app is, for its notification and its screen.

use std::time::Instant;

use polyphony_protocol::hub::{SegmentPhase, WithdrawalReason};
use serde::Serialize;

use crate::board::Board;

/// As the app reads it; what is not known is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub state: State,
    /// Whether it has segments that others count on, or that their host has still to move away: the phone is to stay awake and on its network. One
    /// that failed is none.
    #[serde(skip_serializing_if = "is_no")]
    pub holds_segments: bool,
    /// Whether a host has taken it in since it was started.
    #[serde(skip_serializing_if = "is_no")]
    pub has_joined: bool,
    /// Steps of decoding a second since it was asked last: tokens, of one session at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
    /// More of it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "camelCase")]
pub enum State {
    Stopped,
    /// It was asked to end, and has not ended yet.
    Ending,
    /// On its way to the host.
    Joining,
    /// With its host, which has given it nothing.
    Idle,
    /// Getting what it was given, and the links that it needs.
    Loading,
    /// In a ring that says nothing.
    Ready,
    /// In a ring that says something.
    Serving,
    /// It takes no part, by its own limits: until these are kept again.
    Withdrawn,
    /// It takes no part, by its person's wish: until that is another.
    Paused,
}

/// How fast steps come.
#[derive(Clone, Debug, Default)]
pub(super) struct Tempo(Option<(Instant, u64)>);

// === impl Status ===

impl Status {
    pub(super) fn stopped(why: &str) -> Self {
        Self::new(State::Stopped, Some(why.to_owned()).filter(|why| !why.is_empty()))
    }

    fn new(state: State, message: Option<String>) -> Self {
        Self {
            state,
            holds_segments: false,
            has_joined: false,
            tokens_per_second: None,
            temperature_celsius: None,
            message,
        }
    }

    /// Of an agent that runs.
    pub(super) fn of(board: &Board, tempo: &mut Tempo, temperature_celsius: Option<f64>, now: Instant) -> Self {
        let tokens_per_second = tempo.since_last(board, now).filter(|tempo| *tempo > 0.0);
        let segments = board.segments();
        let loading = segments.iter().find(|segment| segment.phase != SegmentPhase::Ready);
        let holds_segments = segments.iter().any(|segment| segment.phase != SegmentPhase::Failed);
        let host = board.host();
        let status = if let Some(withdrawal) = board.withdrawal() {
            Self::new(State::without_part(withdrawal.reason), Some(withdrawal.message))
        } else if !host.is_there {
            Self::new(State::Joining, host.error)
        } else if segments.is_empty() {
            Self::new(State::Idle, None)
        } else if let Some(segment) = loading {
            let progress = || format!("{} of {} MiB", segment.bytes_loaded >> 20, segment.bytes_total >> 20);
            Self::new(State::Loading, Some(segment.message.clone().unwrap_or_else(progress)))
        } else if tokens_per_second.is_some() {
            Self::new(State::Serving, None)
        } else {
            Self::new(State::Ready, None)
        };
        Self { holds_segments, has_joined: host.has_joined, tokens_per_second, temperature_celsius, ..status }
    }
}

fn is_no(said: &bool) -> bool {
    !said
}

// === impl State ===

impl State {
    /// Of a phone that takes no part.
    fn without_part(why: WithdrawalReason) -> Self {
        match why {
            WithdrawalReason::Paused => Self::Paused,
            WithdrawalReason::Leaving => Self::Ending,
            WithdrawalReason::BatteryLow
            | WithdrawalReason::TooHot
            | WithdrawalReason::MemoryLow
            | WithdrawalReason::Other => Self::Withdrawn,
        }
    }
}

// === impl Tempo ===

impl Tempo {
    /// Steps of decoding a second since the last call; none at the first.
    fn since_last(&mut self, board: &Board, now: Instant) -> Option<f64> {
        let n_steps = board.entries().iter().map(|entry| entry.steps().n_decoded()).sum();
        let (before, n_before) = self.0.replace((now, n_steps))?;
        let seconds = now.duration_since(before).as_secs_f64();
        // Segments that have gone took their steps with them.
        (seconds > 0.0).then(|| n_steps.saturating_sub(n_before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use polyphony_protocol::hub::Withdrawal;

    use super::*;
    use crate::serve::links::Links;
    use crate::steps::StepKind;

    #[test]
    fn an_app_sees_how_its_agent_is() {
        let (board, mut tempo, begun) = (Board::default(), Tempo::default(), Instant::now());
        let mut at = |seconds| {
            let status = Status::of(&board, &mut tempo, Some(31.0), begun + Duration::from_secs(seconds));
            (status.state, status.tokens_per_second, status.message)
        };
        assert_eq!(at(0), (State::Joining, None, None));
        board.set_away(Some("nothing listens there".into()));
        assert_eq!(at(0), (State::Joining, None, Some("nothing listens there".into())));
        board.set_welcomed();
        assert_eq!(at(1), (State::Idle, None, None));
        let entry = board.add("default", "a");
        entry.set_progress(3 << 20, 9 << 20);
        assert_eq!(at(2), (State::Loading, None, Some("3 of 9 MiB".into())));
        entry.set_loaded(Links::of(0, 1, None));
        assert_eq!(at(3), (State::Ready, None, None));
        for _ in 0..8 {
            entry.steps().note(StepKind::Decode, Duration::from_millis(1));
        }
        assert_eq!(at(5), (State::Serving, Some(4.0), None));
        assert_eq!(at(6), (State::Ready, None, None));
        board.set_withdrawal(Some(Withdrawal { reason: WithdrawalReason::TooHot, message: "hot".into() }));
        assert_eq!(at(7), (State::Withdrawn, None, Some("hot".into())));
        board.set_withdrawal(None);
        board.remove("default", "a");
        assert_eq!(at(8), (State::Idle, None, None));
        board.set_away(None);
        assert_eq!(at(9), (State::Joining, None, None));
    }

    #[test]
    fn only_a_pause_of_its_person_s_is_one_and_segments_are_told_until_they_are_gone() {
        let (board, mut tempo) = (Board::default(), Tempo::default());
        board.set_welcomed();
        board.add("default", "a").set_loaded(Links::of(0, 1, None));
        let mut now = || {
            let status = Status::of(&board, &mut tempo, None, Instant::now());
            (status.state, status.holds_segments)
        };
        assert_eq!(now(), (State::Ready, true));
        for (reason, state) in [
            (WithdrawalReason::TooHot, State::Withdrawn),
            (WithdrawalReason::BatteryLow, State::Withdrawn),
            (WithdrawalReason::MemoryLow, State::Withdrawn),
            (WithdrawalReason::Other, State::Withdrawn),
            (WithdrawalReason::Paused, State::Paused),
            (WithdrawalReason::Leaving, State::Ending),
        ] {
            board.set_withdrawal(Some(Withdrawal { reason, message: String::new() }));
            assert_eq!(now(), (state, true), "{reason:?}: its host has not moved them yet");
        }
        board.remove("default", "a");
        assert_eq!(now(), (State::Ending, false));
        board.set_withdrawal(None);
        assert_eq!(now(), (State::Idle, false));
        let entry = board.add("default", "b");
        assert_eq!(now(), (State::Loading, true), "others wait for it");
        entry.set_failed("it does not fit".into());
        assert_eq!(now(), (State::Loading, false), "nobody counts on it");
    }

    #[test]
    fn who_has_joined_once_has_also_while_its_host_is_away() {
        let (board, mut tempo) = (Board::default(), Tempo::default());
        let mut has_joined = || Status::of(&board, &mut tempo, None, Instant::now()).has_joined;
        board.set_withdrawal(Some(Withdrawal { reason: WithdrawalReason::Paused, message: String::new() }));
        assert!(!has_joined());
        board.set_welcomed();
        assert!(has_joined(), "whatever it is given or not");
        board.set_away(Some("closed".into()));
        assert!(has_joined());
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let json = |status: &Status| serde_json::to_string(status).unwrap_or_default();
        assert_eq!(json(&Status::stopped("")), r#"{"state":"stopped"}"#);
        let serving = Status { tokens_per_second: Some(2.5), ..Status::new(State::Serving, None) };
        assert_eq!(json(&serving), r#"{"state":"serving","tokensPerSecond":2.5}"#);
    }
}
