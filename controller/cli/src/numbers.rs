//! Numbers of the command line. "nan" is a number to Rust and none to JSON, so it would arrive as nothing said.

/// One from `from` to `to`.
///
/// # Errors
/// What is wanted, in words.
pub fn within(text: &str, from: f32, to: f32) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (from..=to).contains(number));
    number.ok_or_else(|| format!("a number from {from} to {to} is wanted"))
}

/// Any that is one.
///
/// # Errors
/// What is wanted, in words.
pub fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "a number is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_say_is_no_number() {
        for text in ["nan", "NaN", "inf", "-infinity", "1e999", "warm", ""] {
            assert!(within(text, 0.0, 2.0).is_err() && finite(text).is_err(), "{text}");
        }
        assert_eq!((within("2", 0.0, 2.0), finite("-3.5")), (Ok(2.0), Ok(-3.5)));
        assert!(within("2.1", 0.0, 2.0).is_err() && within("-0.1", 0.0, 2.0).is_err());
    }
}
