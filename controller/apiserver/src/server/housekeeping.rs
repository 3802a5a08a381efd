//! Housekeeping: what the server does unasked. Garbage goes when its owner went, events when they are old.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::form::last_seen;
use super::garbage::{self, Ownership, Step};
use super::kinds::Kinds;
use super::special::DEFINITIONS;
use crate::registry::Registry;
use crate::store::{Key, Reader, Writer};

/// How long an event is kept after it was last seen.
const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);
/// Events that are kept at all; the oldest go first.
const EVENT_LIMIT: usize = 10_000;
const EVENT_SWEEP: Duration = Duration::from_secs(30);
/// After a plan that could not be carried out.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps house until `closing`.
pub async fn run(reader: Reader, writer: Writer, kinds: Kinds, closing: CancellationToken) {
    let mut changed = reader.changed();
    let mut sweep = tokio::time::interval(EVENT_SWEEP);
    let mut collector = Collector::default();
    // What an earlier process left undone is in no history.
    changed.mark_changed();
    loop {
        // Only the waiting is given up for another reason to act: what is begun is done to its end.
        let has_changed = tokio::select! {
            () = closing.cancelled() => return,
            _ = sweep.tick() => false,
            outcome = changed.changed() => {
                if outcome.is_err() {
                    // The store is closed, and `closing` follows.
                    closing.cancelled().await;
                    return;
                }
                true
            }
        };
        let outcome = if has_changed {
            collector.collect(&reader, &writer, &kinds).await
        } else {
            expire_events(&reader, &writer, Timestamp::now()).await
        };
        if let Err(failure) = outcome {
            tracing::warn!(status = %failure.to_status(), "housekeeping could not write");
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
            collector = Collector::default();
            changed.mark_changed();
        }
    }
}

/// What is known of owners; nothing at first, and after a write that failed.
#[derive(Default)]
struct Collector {
    known: Option<Known>,
}

struct Known {
    ownership: Ownership,
    /// Up to which change.
    revision: u64,
    /// By which owner references were understood.
    registry: Arc<Registry>,
}

// === impl Collector ===

impl Collector {
    /// Collects garbage until none is left.
    async fn collect(&mut self, reader: &Reader, writer: &Writer, kinds: &Kinds) -> Result<(), Failure> {
        loop {
            let Known { ownership, registry, .. } = self.catch_up(reader, kinds);
            let doubtful = ownership.take_doubtful();
            let steps = garbage::plan(registry, ownership, &doubtful);
            if steps.is_empty() {
                return Ok(());
            }
            let defines =
                steps.iter().any(|step| matches!(step, Step::Release { key, .. } if key.resource == DEFINITIONS));
            let (registry, now) = (registry.clone(), Timestamp::now());
            // Whatever a step changes is the next turn's doubt; one that changes nothing waits for someone else.
            writer.transact(move |transaction| garbage::take(transaction, &registry, steps, now)).await?;
            if defines {
                kinds.reload(reader);
            }
        }
    }

    /// Follows the changes since the last time, or reads everything where they are no longer remembered.
    fn catch_up(&mut self, reader: &Reader, kinds: &Kinds) -> &mut Known {
        let registry = kinds.current();
        let events = self.known.as_ref().and_then(|known| reader.after(known.revision, usize::MAX).ok());
        let known = match (self.known.take(), events) {
            (Some(mut known), Some(events)) => {
                for event in &events {
                    known.ownership.follow(event);
                    known.revision = event.revision;
                }
                if !Arc::ptr_eq(&known.registry, &registry) {
                    // Kinds came or went, and what references to them mean with them.
                    known.ownership.doubt_everything();
                    known.registry = registry;
                }
                known
            }
            _ => {
                let everything = reader.everything();
                let revision = everything.revision;
                Known { ownership: Ownership::of(everything), revision, registry }
            }
        };
        self.known.insert(known)
    }
}

async fn expire_events(reader: &Reader, writer: &Writer, now: Timestamp) -> Result<(), Failure> {
    let events = reader.list("events", None).objects;
    let gone = expired(&events, now);
    if gone.is_empty() {
        return Ok(());
    }
    writer
        .transact(move |transaction| {
            for key in &gone {
                transaction.remove(key)?;
            }
            Ok::<(), Failure>(())
        })
        .await
}

fn expired(events: &[(Key, Arc<Value>)], now: Timestamp) -> Vec<Key> {
    let seen =
        |event: &Value| last_seen(event).and_then(|time| time.parse::<Timestamp>().ok()).unwrap_or(Timestamp::MIN);
    let mut by_age: Vec<_> = events.iter().map(|(key, event)| (seen(event), key)).collect();
    by_age.sort();
    let too_many = by_age.len().saturating_sub(EVENT_LIMIT);
    let gone = by_age.into_iter().enumerate();
    gone.filter(|(i, (seen, _))| *i < too_many || now.duration_since(*seen) > EVENT_TTL)
        .map(|(_, (_, key))| key.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn events_go_an_hour_after_they_were_last_seen() {
        let event = |name: &str, field: Value| (Key::new("events", "default", name), Arc::new(field));
        let events = [
            event("old", json!({"lastTimestamp": "2026-01-01T10:00:00Z"})),
            event(
                "repeated",
                json!({"lastTimestamp": "2026-01-01T10:00:00Z", "series": {"lastObservedTime": "2026-01-01T11:30:00.5Z"}}),
            ),
            event("new", json!({"eventTime": "2026-01-01T11:00:01Z"})),
        ];
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let gone: Vec<String> = expired(&events, now).into_iter().map(|key| key.name).collect();
        assert_eq!(gone, ["old"]);
    }
}
