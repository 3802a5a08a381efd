//! Numbers as Python writes them: a fraction by its shortest digits, far from one with an exponent.

use minijinja::Value;

/// The digits after which Python writes an exponent.
const POSITIONAL: std::ops::Range<i32> = -4..16;

/// A number as Python's `repr` has it; `None` of what is no fraction, which the engine writes as Python does.
pub(super) fn fraction(value: &Value) -> Option<String> {
    if !value.is_number() || value.is_integer() {
        return None;
    }
    let number = f64::try_from(value.clone()).ok().filter(|number| number.is_finite())?;
    // The shortest digits that are this number, as d.ddd and an exponent.
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if !POSITIONAL.contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return Some(format!("{digits}e{sign}{:02}", exponent.abs()));
    }
    let plain = number.to_string();
    Some(if plain.contains('.') { plain } else { plain + ".0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_written_as_python_does() {
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (7.5, "7.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(fraction(&Value::from(number)).as_deref(), Some(text));
        }
        assert_eq!(fraction(&Value::from(3)), None);
        assert_eq!(fraction(&Value::from("1.5")), None);
        assert_eq!(fraction(&Value::from(f64::INFINITY)), None);
    }
}
