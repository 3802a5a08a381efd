//! Draws: the tokens that a tail takes from logits, and when an answer is at its end. Pure.

use std::collections::HashMap;

use polyphony_protocol::SessionId;
use polyphony_protocol::frame::{Finish, Token};
use polyphony_protocol::session::SessionOptions;

use crate::sample::{self, NonFinite};
use crate::serve::batch::Part;

/// What the sessions of a tail are sampled by. Their histories are counted on here, and on no other stage.
#[derive(Default)]
pub(super) struct Draws {
    options: HashMap<SessionId, SessionOptions>,
}

// === impl Draws ===

impl Draws {
    pub(super) fn begin(&mut self, id: SessionId, options: &SessionOptions) {
        self.options.insert(id, options.clone());
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        self.options.remove(&id);
    }

    /// The token after the last row of `part`; `None` for a session that is not here any more.
    ///
    /// # Errors
    /// When the logits are no finite numbers.
    pub(super) fn draw(&mut self, part: &Part, logits: &[f32]) -> Result<Option<Token>, NonFinite> {
        let Some(options) = self.options.get_mut(&part.key.session) else { return Ok(None) };
        let position = part.end();
        let drawn = sample::draw(logits, options, position)?;
        if options.sampling.minds_output() {
            options.history.push(drawn.token);
        }
        let finish = if options.end_tokens.contains(&drawn.token) {
            Some(Finish::Stop)
        } else if position + 1 >= options.end_position {
            Some(Finish::Length)
        } else {
            None
        };
        let (key, token) = (part.key, drawn.token);
        Ok(Some(Token { key, position, token, finish, logprob: drawn.logprob, top: drawn.top }))
    }
}
