//! Ages: how long ago something was, in kubectl's few letters.

use jiff::Timestamp;
use serde_json::Value;

/// How long before `now` the RFC 3339 `time` was: `5m3s`, or `<invalid>`.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => words(now.as_second() - then.as_second()),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// The age of an object, or `<unknown>` if it says nothing of its creation.
pub(super) fn since_creation(item: &Value, now: Timestamp) -> String {
    let created = item.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    created.map_or_else(|| "<unknown>".to_owned(), |created| since(created, now))
}

/// Kubernetes' `HumanDuration`: two units while the greater is small, then one.
pub(super) fn words(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |greater: i64, unit: char, lesser: i64, below: char| {
        if lesser == 0 { format!("{greater}{unit}") } else { format!("{greater}{unit}{lesser}{below}") }
    };
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}
