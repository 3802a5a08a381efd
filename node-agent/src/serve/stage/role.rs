//! Roles: what a stage is in its ring, and what belongs to that alone. Pure.

use polyphony_protocol::RouteKey;
use polyphony_protocol::session::SessionOptions;

use super::arrivals::Arrivals;
use super::draws::Draws;
use super::head::Head;
use super::shape::StageShape;

/// What a stage is among those that decode.
pub(super) enum Role {
    /// It has layers of an encoder alone: what the gateway sends is passed on to where decoding begins.
    Relay,
    /// Tokens come in, hidden states go out.
    Head(Head),
    /// Hidden states come in and go out.
    Middle(Arrivals),
    /// Hidden states come in, tokens go out.
    Tail(Tail),
    /// A ring by itself: tokens come in and go out.
    Alone(Alone),
}

pub(super) struct Tail {
    pub(super) arrivals: Arrivals,
    pub(super) draws: Draws,
}

pub(super) struct Alone {
    pub(super) head: Head,
    pub(super) draws: Draws,
}

// === impl Role ===

impl Role {
    pub(super) fn of(shape: &StageShape) -> Self {
        let head = || Head::new(shape);
        let arrivals = || Arrivals::new(shape);
        match (shape.stage.cmp(&shape.first_decoder()), shape.is_last()) {
            (std::cmp::Ordering::Less, _) => Self::Relay,
            (std::cmp::Ordering::Equal, false) => Self::Head(head()),
            (std::cmp::Ordering::Equal, true) => Self::Alone(Alone { head: head(), draws: Draws::default() }),
            (std::cmp::Ordering::Greater, false) => Self::Middle(arrivals()),
            (std::cmp::Ordering::Greater, true) => Self::Tail(Tail { arrivals: arrivals(), draws: Draws::default() }),
        }
    }

    /// Where decoding begins: the gateway's tokens, and those of the tail, come to this stage.
    pub(super) fn head(&mut self) -> Option<&mut Head> {
        match self {
            Self::Head(head) | Self::Alone(Alone { head, .. }) => Some(head),
            Self::Relay | Self::Middle(_) | Self::Tail(_) => None,
        }
    }

    pub(super) fn arrivals(&mut self) -> Option<&mut Arrivals> {
        match self {
            Self::Middle(arrivals) | Self::Tail(Tail { arrivals, .. }) => Some(arrivals),
            Self::Relay | Self::Head(_) | Self::Alone(_) => None,
        }
    }

    pub(super) fn draws(&mut self) -> Option<&mut Draws> {
        match self {
            Self::Tail(Tail { draws, .. }) | Self::Alone(Alone { draws, .. }) => Some(draws),
            Self::Relay | Self::Head(_) | Self::Middle(_) => None,
        }
    }

    /// Whether what is computed here ends as tokens.
    pub(super) fn is_tail(&self) -> bool {
        matches!(self, Self::Tail(_) | Self::Alone(_))
    }

    pub(super) fn n_queued_rows(&self) -> usize {
        match self {
            Self::Relay => 0,
            Self::Head(head) | Self::Alone(Alone { head, .. }) => head.n_pending(),
            Self::Middle(arrivals) | Self::Tail(Tail { arrivals, .. }) => arrivals.n_rows(),
        }
    }

    /// A session begins here.
    pub(super) fn begin(&mut self, key: RouteKey, options: &SessionOptions) {
        if let Some(head) = self.head() {
            head.begin(key.session);
        }
        if let Some(draws) = self.draws() {
            draws.begin(key.session, options);
        }
    }

    /// It has ended here.
    pub(super) fn forget(&mut self, key: RouteKey) {
        if let Some(head) = self.head() {
            head.forget(key.session);
        }
        if let Some(arrivals) = self.arrivals() {
            arrivals.forget(key.session);
        }
        if let Some(draws) = self.draws() {
            draws.forget(key.session);
        }
    }
}
