//! Formats: the string formats that Kubernetes enforces. Unknown formats are not checked.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;

/// Whether `text` is of the format `name`.
pub(super) fn fits(name: &str, text: &str) -> bool {
    match name {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "hostname" => is_hostname(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hexcolor" => is_hex_color(text),
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        _ => true,
    }
}

/// Whether `number` is within the format `name`: a controller that reads it into such a type would else lose the object.
pub(super) fn fits_number(name: &str, number: f64) -> bool {
    match name {
        "int32" => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        // What is below 0 is a matter of `minimum`.
        "uint32" => number <= f64::from(u32::MAX),
        // Both bounds as f64, which 2⁶³ and 2⁶⁴ are exactly.
        "int64" => (i64::MIN as f64..-(i64::MIN as f64)).contains(&number),
        "uint64" => number < 2.0 * -(i64::MIN as f64),
        _ => true,
    }
}

fn is_date_time(text: &str) -> bool {
    // RFC 3339 alone: jiff also reads looser forms. Not as a timestamp, whose range ends before year 9999 does.
    let separated = text.as_bytes().get(10).is_some_and(|byte| byte.eq_ignore_ascii_case(&b't'));
    let whole = jiff::fmt::temporal::Pieces::parse(text)
        .is_ok_and(|pieces| pieces.time().is_some() && pieces.offset().is_some());
    separated && !text.contains('[') && whole
}

/// Go's `1h30m`, or a count and a unit such as `3 days`; at most 292 years, as in Go.
fn is_duration(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return true;
    }
    let mut rest = unsigned;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(count) = rest[..digits].parse::<f64>() else {
            return false;
        };
        let after = rest[digits..].trim_start();
        let length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let Some(unit) = unit_nanoseconds(after[..length].trim_end()) else {
            return false;
        };
        nanoseconds += count * unit;
        rest = &after[length..];
    }
    !unsigned.is_empty() && nanoseconds < i64::MAX as f64
}

fn unit_nanoseconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" | "nano" | "nanosecond" | "nanoseconds" => 1.0,
        "us" | "µs" | "μs" | "micro" | "microsecond" | "microseconds" => 1e3,
        "ms" | "milli" | "millisecond" | "milliseconds" => 1e6,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e9,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e9,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600e9,
        "d" | "day" | "days" => 86400e9,
        "w" | "wk" | "week" | "weeks" => 604_800e9,
        _ => return None,
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let digits = groups.concat();
    let grouped = groups.len() == 1 || groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
    grouped
        && digits.len() == 32
        && is_hex(&digits)
        && version.is_none_or(|version| digits.chars().nth(12) == Some(version))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let bits = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits)
}

fn is_mac(text: &str) -> bool {
    let pair = |part: &str| part.len() == 2 && is_hex(part);
    [':', '-'].iter().any(|separator| {
        let parts: Vec<&str> = text.split(*separator).collect();
        matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| pair(part))
    })
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    (1..=255).contains(&text.len()) && text.trim_end_matches('.').split('.').all(label)
}

fn is_uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    let scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    text.starts_with('/') || text.split_once(':').is_some_and(|(before, _)| scheme(before))
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && !local.contains(char::is_whitespace) && is_hostname(host))
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && is_hex(digits)
}
