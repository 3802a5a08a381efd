//! A line of the controller's example `round_at_rest --json`: one round of its reconcile loop. Pure.

use serde::Deserialize;

/// What a round took.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RoundLine {
    /// From what is observed to what is to be done, in milliseconds.
    pub round_ms: f64,
    /// Placements that were there.
    pub placements: u32,
}

/// Reads the lines of a whole run.
///
/// # Errors
/// When a line is none of these, or there is none at all.
pub fn read(text: &str) -> Result<Vec<RoundLine>, RoundLineError> {
    let line = |line: &str| {
        serde_json::from_str(line).map_err(|source| RoundLineError::Foreign { line: line.to_owned(), source })
    };
    let lines = text.lines().map(line).collect::<Result<Vec<_>, _>>()?;
    if lines.is_empty() { Err(RoundLineError::Nothing) } else { Ok(lines) }
}

/// Why a text holds no measurements of rounds.
#[derive(Debug, thiserror::Error)]
pub enum RoundLineError {
    #[error("{line:?} is no measurement of a round ({source}): the example and this bench are of different ages")]
    Foreign { line: String, source: serde_json::Error },
    #[error("no measurement at all")]
    Nothing,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_as_the_example_writes_them() {
        let text = "{\"placements\":117,\"round_ms\":12.5}\n{\"placements\":117,\"round_ms\":13}\n";
        let line = |round_ms| RoundLine { round_ms, placements: 117 };
        assert_eq!(read(text).unwrap(), [line(12.5), line(13.0)]);
        assert!(read("117 placements\n").unwrap_err().to_string().contains("117 placements"));
        assert!(matches!(read(""), Err(RoundLineError::Nothing)));
    }
}
