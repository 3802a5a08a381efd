//! Texts made into variants: lines that a switch turns off, and lines that are repeated. Knows no kernel.

use super::WINDOWS;

/// What a text is made into.
pub(super) struct Form {
    pub workgroup: u32,
    pub n_tokens: u32,
    pub n_rows: u32,
    /// Lanes that share the columns of a row.
    pub n_splits: u32,
    pub switches: Vec<&'static str>,
}

// === impl Form ===

impl Form {
    /// Empties the lines of switches that are off and repeats those that hold marks; the count of lines stays.
    pub fn apply(&self, text: &str) -> String {
        let mut applied = String::with_capacity(text.len());
        for line in text.lines() {
            let (code, switch) = line.split_once("//? ").unwrap_or((line, ""));
            let kept = switch.is_empty() || self.switches.contains(&switch.trim());
            if kept && !code.contains('$') {
                applied.push_str(code);
            } else if kept && !code.trim_start().starts_with("//") {
                applied.push_str(&self.repeat(code));
            }
            applied.push('\n');
        }
        applied
    }

    fn repeat(&self, line: &str) -> String {
        let count = |mark: &str, n: u32| if line.contains(mark) { n } else { 1 };
        let of_pairs = ["$p", "$e", "$o"].iter().any(|mark| line.contains(mark));
        let pairs = if of_pairs { self.n_rows / 2 } else { 1 };
        let mut repeated = String::new();
        let n_tokens = if line.contains("$t") { self.n_tokens } else { count("$w", self.n_tokens.min(WINDOWS)) };
        for token in 0..n_tokens {
            for row in 0..count("$r", self.n_rows) {
                for pair in 0..pairs {
                    let number = |line: String, mark: &str, n: u32| line.replace(mark, &n.to_string());
                    let line = number(number(line.to_string(), "$t", token), "$w", token % WINDOWS);
                    let line = number(line, "$r", row);
                    repeated.push_str(&number(number(number(line, "$p", pair), "$e", 2 * pair), "$o", 2 * pair + 1));
                    repeated.push(' ');
                }
            }
        }
        repeated
    }
}
