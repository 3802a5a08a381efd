//! Quantities of memory as Kubernetes writes them: `80Mi`, `1.5G`, `1048576`.

/// Why a text is not a quantity of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a quantity of memory: write a number with one of Ki, Mi, Gi, Ti, k, M, G, T or none, such as 80Mi"
)]
pub struct QuantityError {
    pub text: String,
}

const SUFFIXES: [(&str, f64); 8] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
];

/// The bytes that `text` names, rounded to the nearest.
///
/// # Errors
/// [`QuantityError`] when the text has another form, is negative, or is over 2^53 bytes.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let error = || QuantityError { text: text.to_owned() };
    let trimmed = text.trim();
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| trimmed.strip_suffix(suffix).map(|number| (number, *factor)))
        .unwrap_or((trimmed, 1.0));
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(error());
    }
    let bytes = number.parse::<f64>().map_err(|_| error())? * factor;
    if bytes > 9_007_199_254_740_992.0 {
        return Err(error());
    }
    Ok(bytes.round() as u64)
}

/// `bytes` as a quantity: the largest binary unit that leaves no fraction.
pub fn format_bytes(bytes: u64) -> String {
    for (suffix, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [("80Mi", 83_886_080), ("1.5Gi", 1_610_612_736), ("2G", 2_000_000_000), ("7", 7), ("0", 0)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "Mi", "-1Mi", "1 Mi", "80mb", "1e3", "99999999Ti", "nan"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_formatted_is_read_back() {
        for bytes in [0, 1, 1024, 83_886_080, 83_886_081, 1 << 40] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
    }
}
