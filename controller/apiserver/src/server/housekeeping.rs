//! Housekeeping: what the server does unasked. Garbage goes when its owner went, events when they are old.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::form::last_seen;
use super::garbage::{self, Step};
use super::kinds::Kinds;
use super::special::DEFINITIONS;
use super::write::is_leaving;
use crate::store::{Change, Key, Reader, Writer};

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
    // What an earlier process left undone is in no history.
    let mut seen = 0;
    changed.mark_changed();
    loop {
        let outcome = tokio::select! {
            () = closing.cancelled() => return,
            _ = sweep.tick() => expire_events(&reader, &writer, Timestamp::now()).await,
            outcome = async {
                if changed.changed().await.is_err() {
                    // The store is closed, and `closing` follows.
                    std::future::pending::<()>().await;
                }
                let from = std::mem::replace(&mut seen, reader.revision());
                if matters(&reader, from) { collect(&reader, &writer, &kinds).await } else { Ok(()) }
            } => outcome,
        };
        if let Err(failure) = outcome {
            tracing::warn!(status = %failure.to_status(), "housekeeping could not write");
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
            seen = 0;
            changed.mark_changed();
        }
    }
}

/// Whether a change after `revision` can have made garbage.
fn matters(reader: &Reader, revision: u64) -> bool {
    let Ok(events) = reader.after(revision, usize::MAX) else {
        return true;
    };
    events.iter().any(|event| {
        let owned = event.object["metadata"].get("ownerReferences").is_some();
        match event.change {
            Change::Deleted => true,
            Change::Added => owned,
            Change::Modified => owned || is_leaving(&event.object),
        }
    })
}

/// Collects garbage until none is left.
pub async fn collect(reader: &Reader, writer: &Writer, kinds: &Kinds) -> Result<(), Failure> {
    loop {
        let registry = kinds.current();
        let before = reader.everything();
        let steps = garbage::plan(&registry, &before.objects);
        if steps.is_empty() {
            return Ok(());
        }
        let defines = steps.iter().any(|step| matches!(step, Step::Release { key, .. } if key.resource == DEFINITIONS));
        let now = Timestamp::now();
        writer.transact(move |transaction| garbage::take(transaction, &registry, steps, now)).await?;
        if defines {
            kinds.reload(reader);
        }
        if reader.revision() == before.revision {
            // Nothing moved: what is planned waits for someone else.
            return Ok(());
        }
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
