//! Links: which stages of a ring dial which. Pure; opens no socket.
//!
//! Which those are [`polyphony_protocol::links`] says.

use polyphony_protocol::hub::{Assignment, EncoderStages};
use polyphony_protocol::links::{first_decoder, outgoing};

use super::event::Source;

/// The ring links of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    stage: u32,
    n_stages: u32,
    first_decoder: u32,
    /// Where hidden states go, or from the last stage tokens; none where that is this stage itself.
    pub next: Option<u32>,
    /// Where the encoder's output goes besides.
    pub skips: Vec<u32>,
    /// Who dials this stage.
    pub incoming: Vec<u32>,
}

// === impl Links ===

impl Links {
    pub fn of(stage: u32, n_stages: u32, encoder: Option<EncoderStages>) -> Self {
        let (next, skips) = outgoing(stage, n_stages, encoder);
        let dials_here = |from: &u32| {
            let (next, skips) = outgoing(*from, n_stages, encoder);
            next == Some(stage) || skips.contains(&stage)
        };
        let incoming = (0..n_stages).filter(dials_here).collect();
        Self { stage, n_stages, first_decoder: first_decoder(encoder), next, skips, incoming }
    }

    pub fn of_assignment(assignment: &Assignment) -> Self {
        let n_stages = u32::try_from(assignment.peers.len()).unwrap_or(u32::MAX);
        Self::of(assignment.stage, n_stages, assignment.encoder)
    }

    /// Whom this stage dials.
    pub fn outgoing(&self) -> impl Iterator<Item = u32> {
        self.next.into_iter().chain(self.skips.iter().copied())
    }

    /// What frames from a stage that dials this one are taken for.
    pub fn source(&self, from: u32) -> Source {
        if from.checked_add(1) == Some(self.stage) {
            Source::Previous
        } else if from.checked_add(1) == Some(self.n_stages) && self.stage == self.first_decoder {
            Source::Tail
        } else {
            Source::Encoder
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(last: u32, first_decoder: u32) -> Option<EncoderStages> {
        Some(EncoderStages { last, first_decoder })
    }

    #[test]
    fn every_stage_knows_whom_it_dials_and_who_dials_it() {
        type Row = (u32, Option<EncoderStages>, u32, Option<u32>, &'static [u32], &'static [u32]);
        let table: [Row; 20] = [
            (1, None, 0, None, &[], &[]),
            (2, None, 0, Some(1), &[], &[1]),
            (2, None, 1, Some(0), &[], &[0]),
            (3, None, 0, Some(1), &[], &[2]),
            (3, None, 2, Some(0), &[], &[1]),
            // All of it on one phone; the encoder on one and the decoder on the other.
            (1, encoder(0, 0), 0, None, &[], &[]),
            (2, encoder(0, 1), 0, Some(1), &[], &[]),
            (2, encoder(0, 1), 1, None, &[], &[0]),
            // The halves meet on the first stage, and on the last.
            (3, encoder(0, 0), 0, Some(1), &[2], &[2]),
            (3, encoder(0, 0), 1, Some(2), &[], &[0]),
            (3, encoder(0, 0), 2, Some(0), &[], &[0, 1]),
            (3, encoder(2, 2), 1, Some(2), &[], &[0]),
            (3, encoder(2, 2), 2, None, &[], &[1]),
            // Stages of either half alone.
            (5, encoder(1, 2), 0, Some(1), &[], &[]),
            (5, encoder(1, 2), 1, Some(2), &[3, 4], &[0]),
            (5, encoder(1, 2), 2, Some(3), &[], &[1, 4]),
            (5, encoder(1, 2), 3, Some(4), &[], &[1, 2]),
            (5, encoder(1, 2), 4, Some(2), &[], &[1, 3]),
            // Both halves in the midst.
            (4, encoder(1, 1), 1, Some(2), &[3], &[0, 3]),
            (4, encoder(1, 1), 3, Some(1), &[], &[1, 2]),
        ];
        for (n_stages, encoder, stage, next, skips, incoming) in table {
            let links = Links::of(stage, n_stages, encoder);
            let found = (links.next, &links.skips[..], &links.incoming[..]);
            assert_eq!(found, (next, skips, incoming), "stage {stage} of {n_stages}, {encoder:?}");
        }
    }

    #[test]
    fn a_link_says_what_its_frames_are_taken_for() {
        let sources = |links: Links| links.incoming.iter().map(|from| links.source(*from)).collect::<Vec<_>>();
        assert_eq!(sources(Links::of(0, 2, None)), [Source::Tail]);
        assert_eq!(sources(Links::of(1, 2, None)), [Source::Previous]);
        assert_eq!(sources(Links::of(2, 5, encoder(1, 2))), [Source::Previous, Source::Tail]);
        assert_eq!(sources(Links::of(4, 5, encoder(1, 2))), [Source::Encoder, Source::Previous]);
        assert_eq!(sources(Links::of(1, 2, encoder(0, 1))), [Source::Previous]);
    }
}
