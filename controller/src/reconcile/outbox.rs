//! The outbox: stories on their way to the API as Events, until they are there. No round waits for it, and no failed write loses one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::act::MANAGER;
use super::decide::{Severity, Story};

/// Who reports.
const REPORTER: &str = "polyphony.dev/controller";
/// Stories that wait; beyond that the oldest is lost, and that is said.
const MAX_WAITING: usize = 1024;
/// The longest note of an event, and what its name begins with at most.
const MAX_NOTE: usize = 1024;
const MAX_STEM: usize = 200;
/// A write has to be answered within this.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pauses after a write that failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An event that is answered so often, and not taken, lets others pass.
const MAX_TRIES: u32 = 3;
/// At the end there is so much time for what still waits.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Events that are not written yet, oldest first.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<VecDeque<Waiting>>,
    filled: Notify,
    /// Tells apart events of the same nanosecond.
    n_events: AtomicU64,
}

#[derive(Clone)]
struct Waiting {
    event: Event,
    /// How often the API has answered, and not taken it.
    n_tries: u32,
}

/// What became of one write.
enum Sent {
    Written,
    /// The API takes this one never.
    Refused(kube::Error),
    /// It answers, and may take it later.
    Postponed(String),
    /// It does not answer.
    Unanswered(String),
}

// === impl Outbox ===

impl Outbox {
    /// Puts a story in; it is told with the time of now.
    pub fn put(&self, story: Story) {
        let event = self.event(story);
        let mut waiting = self.lock();
        if waiting.len() == MAX_WAITING
            && let Some(lost) = waiting.pop_front()
        {
            tracing::warn!(event = ?lost.event.note, "{MAX_WAITING} events wait for the API; the oldest is lost");
        }
        waiting.push_back(Waiting { event, n_tries: 0 });
        drop(waiting);
        self.filled.notify_one();
    }

    /// Writes what waits until `stop`, and for a moment longer.
    pub async fn run(&self, client: Client, stop: CancellationToken) {
        let send = |event: Event| {
            let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
            let api = Api::<Event>::namespaced(client.clone(), namespace);
            let by_us = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            async move { api.create(&by_us, &event).await.map(|_| ()) }
        };
        self.empty_into(send, stop).await;
    }

    async fn empty_into<F>(&self, send: impl Fn(Event) -> F, stop: CancellationToken)
    where
        F: Future<Output = Result<(), kube::Error>>,
    {
        let forever = async {
            let mut pause = FIRST_PAUSE;
            loop {
                if self.send_all(&send).await {
                    pause = FIRST_PAUSE;
                    self.filled.notified().await;
                } else {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = forever => {}
        }
        if tokio::time::timeout(LAST_WORDS, self.send_all(&send)).await.is_err() {
            tracing::warn!(
                n_events = self.lock().len(),
                "the API does not answer; events are lost with the end of this process"
            );
        }
    }

    /// Whether nothing is left.
    async fn send_all<F>(&self, send: &impl Fn(Event) -> F) -> bool
    where
        F: Future<Output = Result<(), kube::Error>>,
    {
        let mut n_put_back = 0;
        loop {
            let first = {
                let waiting = self.lock();
                waiting.front().filter(|_| waiting.len() > n_put_back).cloned()
            };
            let Some(Waiting { event, n_tries }) = first else { return n_put_back == 0 };
            let mut is_put_back = false;
            match sent(tokio::time::timeout(DEADLINE, send(event.clone())).await) {
                Sent::Written => {}
                Sent::Refused(error) => tracing::warn!(%error, event = ?event.note, "the API refuses an event"),
                Sent::Postponed(why) if n_tries + 1 >= MAX_TRIES => {
                    tracing::debug!(%why, event = ?event.note, "an event is still not taken; it lets others pass");
                    is_put_back = true;
                    n_put_back += 1;
                }
                Sent::Postponed(why) => {
                    tracing::debug!(%why, "an event is not taken yet; it is tried again");
                    let mut waiting = self.lock();
                    let first = waiting.front_mut();
                    if let Some(first) = first.filter(|first| first.event.metadata.name == event.metadata.name) {
                        first.n_tries += 1;
                    }
                    return false;
                }
                Sent::Unanswered(why) => {
                    tracing::debug!(%why, "an event is not written; it is tried again");
                    return false;
                }
            }
            let mut waiting = self.lock();
            // A full box may have lost it meanwhile.
            if waiting.front().is_some_and(|first| first.event.metadata.name == event.metadata.name) {
                waiting.pop_front();
                if is_put_back {
                    waiting.push_back(Waiting { event, n_tries });
                }
            }
        }
    }

    fn event(&self, story: Story) -> Event {
        let now = Timestamp::now();
        let namespace = story.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = story.about.name.clone().unwrap_or_default();
        let count = self.n_events.fetch_add(1, Ordering::Relaxed);
        tracing::info!(about = %format!("{} {name}", story.about.kind.as_deref().unwrap_or("")), reason = %story.reason, "{}", story.note);
        let stem: String = name.chars().take(MAX_STEM).collect();
        let stem = stem.trim_end_matches(['-', '.']);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{stem}.{:x}{count:x}", now.as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(MANAGER.to_owned()),
            action: Some("Reconcile".to_owned()),
            reason: Some(story.reason),
            note: Some(cut_to(story.note, MAX_NOTE)),
            regarding: Some(story.about),
            type_: Some(match story.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            ..Event::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Nobody panics while he holds it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sent(answer: Result<Result<(), kube::Error>, tokio::time::error::Elapsed>) -> Sent {
    match answer {
        Ok(Ok(())) => Sent::Written,
        // Its name is its own: a write of before has arrived after all.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Sent::Written,
        Ok(Err(error)) => match &error {
            kube::Error::Api(status)
                if (400..500).contains(&status.code) && !matches!(status.code, 401 | 408 | 429) =>
            {
                Sent::Refused(error)
            }
            kube::Error::Api(_) => Sent::Postponed(error.to_string()),
            _ => Sent::Unanswered(error.to_string()),
        },
        Err(elapsed) => Sent::Unanswered(elapsed.to_string()),
    }
}

/// At most `limit` bytes, cut between characters.
fn cut_to(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn story(name: &str, note: &str) -> Story {
        let about = ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() };
        Story { about, severity: Severity::Normal, reason: "Planned".into(), note: note.into() }
    }

    fn failure(code: u16) -> kube::Error {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        kube::Error::Api(Box::new(status))
    }

    #[tokio::test]
    async fn an_event_is_written_after_failed_writes_and_in_order_and_a_refused_one_stops_no_other() {
        let outbox = Outbox::default();
        let written = Mutex::new(Vec::new());
        let tries = AtomicU64::new(0);
        let send = |event: Event| {
            let note = event.note.unwrap();
            std::future::ready(match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(failure(500)),
                1 => Err(failure(429)),
                _ if note == "refused" => Err(failure(403)),
                // It was written by the call before, whose answer was lost.
                _ if note == "there" => Err(failure(409)),
                _ => {
                    written.lock().unwrap().push(note);
                    Ok(())
                }
            })
        };
        for note in ["first", "refused", "there", "last"] {
            outbox.put(story("chat", note));
        }
        assert!(!outbox.send_all(&send).await, "the first write fails");
        assert_eq!(outbox.lock().len(), 4, "and nothing is lost by it");
        assert!(!outbox.send_all(&send).await);
        assert!(outbox.send_all(&send).await);
        assert_eq!(*written.lock().unwrap(), ["first", "last"]);
    }

    #[tokio::test]
    async fn an_event_that_is_never_taken_lets_others_pass() {
        let outbox = Outbox::default();
        let written = Mutex::new(Vec::new());
        let send = |event: Event| {
            let note = event.note.unwrap();
            let is_poison = note == "poison";
            if !is_poison {
                written.lock().unwrap().push(note);
            }
            std::future::ready(if is_poison { Err(failure(500)) } else { Ok(()) })
        };
        outbox.put(story("chat", "poison"));
        outbox.put(story("chat", "second"));
        for _ in 0..MAX_TRIES {
            assert!(!outbox.send_all(&send).await);
        }
        assert_eq!(*written.lock().unwrap(), ["second"]);
        outbox.put(story("chat", "third"));
        assert!(!outbox.send_all(&send).await, "one is left");
        assert_eq!(*written.lock().unwrap(), ["second", "third"]);
        assert_eq!(outbox.lock().len(), 1);
    }

    #[test]
    fn names_of_events_are_names_and_the_box_has_a_bound() {
        let outbox = Outbox::default();
        for n in 0..=MAX_WAITING {
            outbox.put(story(&"x".repeat(253), &n.to_string()));
        }
        let waiting = outbox.lock();
        assert_eq!((waiting.len(), waiting[0].event.note.as_deref()), (MAX_WAITING, Some("1")));
        assert!(waiting.iter().all(|one| one.event.metadata.name.as_ref().unwrap().len() <= 253));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let cut = cut_to("ä".repeat(1000), MAX_NOTE);
        assert!(cut.len() <= MAX_NOTE && cut.ends_with('…'));
        assert_eq!(cut_to("short".into(), MAX_NOTE), "short");
    }
}
