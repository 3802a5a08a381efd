//! Events: what happened to an object, oldest first, as `kubectl describe` tells it.

use serde_json::Value;

use super::layout::{Layout, one_line};
use crate::duration;

/// One event, which may stand for several of the same.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLine {
    pub type_: String,
    pub reason: String,
    pub kind: String,
    pub object: String,
    pub source: String,
    pub message: String,
    pub first: jiff::Timestamp,
    pub last: jiff::Timestamp,
    pub count: i64,
}

// === impl EventLine ===

impl EventLine {
    /// A core/v1 Event, in the form of either client generation. None when it has no time at all.
    pub fn read(event: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let created = time(&event["metadata"]["creationTimestamp"]);
        let first = time(&event["eventTime"]).or(time(&event["firstTimestamp"])).or(created)?;
        let last = time(&event["series"]["lastObservedTime"]).or(time(&event["lastTimestamp"])).unwrap_or(first);
        let count = event["series"]["count"].as_i64().or(event["count"].as_i64()).unwrap_or(1);
        let source = text(&event["source"]["component"]);
        Some(Self {
            type_: text(&event["type"]),
            reason: text(&event["reason"]),
            kind: text(&event["involvedObject"]["kind"]),
            object: text(&event["involvedObject"]["name"]),
            source: if source.is_empty() { text(&event["reportingComponent"]) } else { source },
            message: text(&event["message"]),
            first,
            last: last.max(first),
            count: count.max(1),
        })
    }

    fn age(&self, now: jiff::Timestamp) -> String {
        let since = |time: jiff::Timestamp| duration::human(now.as_second() - time.as_second());
        if self.count > 1 {
            format!("{} (x{} over {})", since(self.last), self.count, since(self.first))
        } else {
            since(self.first)
        }
    }
}

/// Oldest first; of one second, in the order in which they began.
pub fn sort(events: &mut [EventLine]) {
    events.sort_by_key(|event| (event.last, event.first));
}

/// The table of events. `subject` is the object described: where others have events too, a column names them.
pub fn write(layout: &mut Layout, events: &[EventLine], subject: &str, now: jiff::Timestamp) {
    let others = events.iter().any(|event| event.object != subject);
    let mut headers = vec!["Type", "Reason", "Age", "From", "Message"];
    if others {
        headers.insert(3, "Object");
    }
    let rows = events.iter().map(|event| {
        let mut row = vec![
            event.type_.clone(),
            event.reason.clone(),
            event.age(now),
            event.source.clone(),
            one_line(&event.message),
        ];
        if others {
            row.insert(3, format!("{}/{}", event.kind.to_lowercase(), event.object));
        }
        row
    });
    layout.table("Events", &headers, rows.collect());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn both_generations_of_events_are_read() {
        let old = json!({"type": "Warning", "reason": "Lost", "message": "gone\nnow", "count": 3, "source": {"component": "hub"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:05:00Z",
            "involvedObject": {"kind": "Phone", "name": "phone-1"}, "metadata": {}});
        let new = json!({"type": "Normal", "reason": "Planned", "message": "m", "eventTime": "2026-01-01T00:01:00.000000Z",
            "firstTimestamp": null, "lastTimestamp": null, "reportingComponent": "polyphony-controller",
            "involvedObject": {"kind": "InferenceDeployment", "name": "smollm2"}, "metadata": {}});
        let mut events = vec![EventLine::read(&old).unwrap(), EventLine::read(&new).unwrap()];
        sort(&mut events);
        let mut layout = Layout::default();
        write(&mut layout, &events, "smollm2", "2026-01-01T00:05:30Z".parse().unwrap());
        assert_eq!(
            layout.finish(),
            "Events:\n\
             \x20 Type     Reason   Age                  Object                       From                  Message\n\
             \x20 ----     ------   ---                  ------                       ----                  -------\n\
             \x20 Normal   Planned  4m30s                inferencedeployment/smollm2  polyphony-controller  m\n\
             \x20 Warning  Lost     30s (x3 over 5m30s)  phone/phone-1                hub                   gone now\n"
        );
        assert_eq!(EventLine::read(&json!({})), None);
    }
}
