//! A line of the kernels' example `matvec_speed --json`: one matrix product on one engine. Pure.

use serde::Deserialize;

/// What is multiplied, on what, and what it costs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct KernelLine {
    pub matrix: String,
    /// The weights' type, such as `Q4_1`.
    #[serde(rename = "type")]
    pub weight_type: String,
    /// Rows of activations that are multiplied at once: one of them is matrix times vector.
    pub rows: u32,
    pub engine: String,
    /// User and system time of all threads, in nanoseconds.
    pub cpu_ns_per_multiply_add: f64,
    /// By the wall.
    pub wall_ns_per_multiply_add: f64,
    /// 10^9 bytes of weights a second, by the wall.
    pub gigabytes_per_second: f64,
}

/// Reads the lines of a whole run.
///
/// # Errors
/// When a line is none of these, or there is none at all.
pub fn read(text: &str) -> Result<Vec<KernelLine>, KernelLineError> {
    let line = |line: &str| {
        serde_json::from_str(line).map_err(|source| KernelLineError::Foreign { line: line.to_owned(), source })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty()).map(line).collect::<Result<Vec<_>, _>>()?;
    if lines.is_empty() { Err(KernelLineError::Nothing) } else { Ok(lines) }
}

/// Why a text holds no measurements of kernels.
#[derive(Debug, thiserror::Error)]
pub enum KernelLineError {
    #[error("{line:?} is no measurement of a kernel ({source}): the example and this bench are of different ages")]
    Foreign { line: String, source: serde_json::Error },
    #[error("no measurement at all: the example knows no such engine")]
    Nothing,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_as_the_example_writes_them() {
        let text = r#"{"kernel":"matmul","matrix":"down","type":"Q4_1","rows":1,"engine":"image-int8","cpu_ns_per_multiply_add":0.4021,"wall_ns_per_multiply_add":0.2104,"gigabytes_per_second":2.970}
"#;
        let expected = KernelLine {
            matrix: "down".into(),
            weight_type: "Q4_1".into(),
            rows: 1,
            engine: "image-int8".into(),
            cpu_ns_per_multiply_add: 0.4021,
            wall_ns_per_multiply_add: 0.2104,
            gigabytes_per_second: 2.97,
        };
        assert_eq!(read(text).unwrap(), [expected]);
    }

    #[test]
    fn anything_else_is_refused_with_what_it_was() {
        assert!(read("cpu (1 threads)\n").unwrap_err().to_string().contains("cpu (1 threads)"));
        assert!(matches!(read("\n"), Err(KernelLineError::Nothing)));
    }
}
