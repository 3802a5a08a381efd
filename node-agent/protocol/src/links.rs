//! Links: which stages of a ring dial which, as phones and hub both have to know. Pure.
//!
//! Each stage dials the next, and the last one dials that at which decoding begins. Where a model has an encoder, the stage with its last layer
//! dials every other stage that decodes, however far: what the encoder puts out travels there straight.

use crate::hub::{Assignment, EncoderStages};

/// The stages that the one of this assignment dials.
pub fn dialled(assignment: &Assignment) -> impl Iterator<Item = u32> {
    let n_stages = u32::try_from(assignment.peers.len()).unwrap_or(u32::MAX);
    let (next, skips) = outgoing(assignment.stage, n_stages, assignment.encoder);
    next.into_iter().chain(skips)
}

/// The stage at which decoding begins.
pub fn first_decoder(encoder: Option<EncoderStages>) -> u32 {
    encoder.map_or(0, |encoder| encoder.first_decoder)
}

/// The stage that one of a ring sends hidden states to, or as the last one tokens, and those that it sends the encoder's output to besides.
pub fn outgoing(stage: u32, n_stages: u32, encoder: Option<EncoderStages>) -> (Option<u32>, Vec<u32>) {
    let next = if stage + 1 < n_stages { stage + 1 } else { first_decoder(encoder) };
    let next = Some(next).filter(|next| *next != stage);
    let skips = match encoder {
        Some(encoder) if encoder.last == stage => {
            (encoder.first_decoder..n_stages).filter(|to| *to != stage && Some(*to) != next).collect()
        }
        _ => Vec::new(),
    };
    (next, skips)
}
