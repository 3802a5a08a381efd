//! Secrets: how they are compared.

/// Equality in a time that tells nothing of where the two differ.
pub fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differences, (x, y)| differences | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn secrets_are_equal_byte_by_byte() {
        let table =
            [("", "", true), ("ab", "ab", true), ("ab", "ac", false), ("ab", "abc", false), ("ab", "ba", false)];
        for (a, b, expected) in table {
            assert_eq!(equal(a, b), expected, "{a} {b}");
        }
    }
}
