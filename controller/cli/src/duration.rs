//! Durations: ages as kubectl shortens them, and the durations that people give to flags.

use std::time::Duration;

/// `12s`, `3m5s`, `47m`, `7h3m`, `26h`, `3d4h`, `12d`, `2y30d`: Kubernetes' `HumanDuration`.
pub fn human(seconds: i64) -> String {
    // Clocks of two machines may differ by a little.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{part}"),
    };
    match (seconds, minutes, hours) {
        (..120, ..) => format!("{seconds}s"),
        (_, ..10, _) => pair(minutes, "m", seconds % 60, "s"),
        (_, ..180, _) => format!("{minutes}m"),
        (.., ..8) => pair(hours, "h", minutes % 60, "m"),
        (.., ..48) => format!("{hours}h"),
        (.., ..192) => pair(hours / 24, "d", hours % 24, "h"),
        (.., ..17_520) => format!("{}d", hours / 24),
        (.., ..70_080) => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// The time since a timestamp of an object, or `<unknown>`.
pub fn since(timestamp: Option<&str>, now: jiff::Timestamp) -> String {
    let then = timestamp.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    then.map_or_else(|| "<unknown>".to_owned(), |then| human(now.as_second() - then.as_second()))
}

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: write numbers with units, such as 30s, 1m30s, 500ms or 2h")]
pub struct DurationError {
    text: String,
}

/// A duration in Go's form; negative ones mean a week, as `kubectl wait` has it. A bare number means seconds.
///
/// # Errors
/// [`DurationError`] when the text has another form.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let week = Duration::from_secs(7 * 24 * 3600);
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut seconds = 0.0;
    if let Ok(bare) = rest.parse::<u32>() {
        seconds = f64::from(bare);
        rest = "";
    } else if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let number: f64 = rest[..end].parse().map_err(|_| error())?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |length| end + length);
        let unit = match &rest[end..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(error()),
        };
        seconds += number * unit;
        rest = &rest[unit_end..];
    }
    if negative {
        return Ok(week);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

/// How long something is good: as [`parse`], and of some time, in days too (`30d`).
///
/// # Errors
/// When the text has another form, or is no time at all.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let parsed = match days {
        Some(days) => Duration::from_secs(u64::from(days) * 86_400),
        None if text.starts_with('-') => Duration::ZERO,
        None => parse(text).map_err(|error| error.to_string())?,
    };
    match parsed < SHORTEST {
        true => Err(format!("{text:?} is no time to be of use in: write 1s or more, such as 1h or 30d")),
        false => Ok(parsed),
    }
}

/// What is good for less is good for nothing.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shortened_as_kubectl_does() {
        let (minute, hour, day) = (60, 3600, 86_400);
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (10 * minute + 5, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 180, "7h3m"),
            (26 * hour, "26h"),
            (76 * hour, "3d4h"),
            (96 * hour, "4d"),
            (12 * day, "12d"),
            (730 * day, "2y"),
            (760 * day, "2y30d"),
            (3000 * day, "8y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn what_is_good_for_no_time_is_refused_and_days_are_taken() {
        assert_eq!(lifetime("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(lifetime("1h30m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["-1s", "-5", "-1d", "0", "0s", "1ms", "0d", "1.5d", "d", "soon"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in
            [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("0", 0), ("90", 90_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse("-1s"), Ok(Duration::from_secs(604_800)));
        for text in ["", "-", "s", "5x", "1m30", "..s", "1e400s", "5 s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
