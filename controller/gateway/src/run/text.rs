//! Text: what an answer's tokens say, and what is held back of it until it is known what that is. Pure.

use polyphony_protocol::frame::{Finish, Token};

use crate::answer::{End, FinishReason, Piece};
use crate::model_text::AnswerText;

/// `None` once its end has been read.
pub(super) struct Text(Option<AnswerText>);

// === impl Text ===

impl Text {
    pub(super) fn new(text: AnswerText) -> Self {
        Self(Some(text))
    }

    /// What a token brings, and the end if it is the last.
    pub(super) fn read(&mut self, token: Token, finish: Option<Finish>) -> (Piece, Option<End>) {
        // An end token is no text.
        let text = self.0.as_mut().filter(|_| finish != Some(Finish::Stop));
        let mut passed = text.map(|text| text.push(token.token)).unwrap_or_default();
        let end = match passed.stopped_by.take() {
            Some(stop) => {
                self.forget();
                Some(End::stopped_by(stop))
            }
            // The token brings what was held back, too.
            None => finish.map(|finish| {
                let end = self.end(finish);
                passed.text.push_str(&end.text);
                End { text: String::new(), ..end }
            }),
        };
        let Token { token, logprob, top, .. } = token;
        (Piece { token, text: passed.text, logprob, top }, end)
    }

    /// How the answer ends where no further token comes, with what was held back for the rest of a character or of a stop string.
    pub(super) fn end(&mut self, finish: Finish) -> End {
        let rest = self.0.take().map(AnswerText::finish).unwrap_or_default();
        let end = match (rest.stopped_by, finish) {
            (Some(stop), _) => End::stopped_by(stop),
            (None, Finish::Stop) => End::new(FinishReason::Stop),
            (None, Finish::Length) => End::new(FinishReason::Length),
        };
        End { text: rest.text, ..end }
    }

    /// What was held back of an answer that breaks off: nobody can tell any more that it is no text.
    pub(super) fn rest(&mut self) -> Option<String> {
        let rest = self.0.take()?.finish().text;
        (!rest.is_empty()).then_some(rest)
    }

    /// What was held back goes with what it belonged to.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}
