//! YAML as kubectl prints it: block style, text quoted where another reader (YAML 1.1 too) would take it for something else.

use serde_json::Value;

/// A value as a document.
///
/// # Errors
/// When a text cannot be written as a scalar.
pub fn to_string(value: &Value) -> Result<String, serde_yaml::Error> {
    let mut text = String::new();
    write(&mut text, 0, value)?;
    Ok(text)
}

/// Writes `value` from the start of a line, or a scalar up to the end of one.
fn write(text: &mut String, level: usize, value: &Value) -> Result<(), serde_yaml::Error> {
    let indent = "  ".repeat(level);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                text.push_str(&format!("{indent}{}:", scalar(key, 0)?));
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        text.push('\n');
                        write(text, level + 1, value)?;
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        text.push('\n');
                        write(text, level, value)?;
                    }
                    value => {
                        text.push(' ');
                        write(text, level, value)?;
                    }
                }
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for element in elements {
                let mut inner = String::new();
                write(&mut inner, level + 1, element)?;
                text.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        Value::Object(_) => text.push_str("{}\n"),
        Value::Array(_) => text.push_str("[]\n"),
        Value::String(string) => text.push_str(&format!("{}\n", scalar(string, level + 1)?)),
        other => text.push_str(&format!("{other}\n")),
    }
    Ok(())
}

/// A text as a scalar; the further lines of a block are indented by `level`.
fn scalar(string: &str, level: usize) -> Result<String, serde_yaml::Error> {
    let written = serde_yaml::to_string(string)?;
    let written = written.strip_suffix('\n').unwrap_or(&written);
    if string.contains('\n') && level > 0 {
        let indent = "  ".repeat(level);
        let mut lines = written.split('\n');
        let mut block = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            block.push('\n');
            if !line.is_empty() {
                block.push_str(&indent);
                block.push_str(line.strip_prefix("  ").unwrap_or(line));
            }
        }
        return Ok(block);
    }
    let is_other = !matches!(serde_yaml::from_str(string), Ok(serde_yaml::Value::String(read)) if read == string);
    let quoted = written.starts_with(['\'', '"']);
    if string.contains('\n')
        || is_timestamp(string)
        || is_old_boolean(string)
        || (quoted && is_other && is_simple(string))
    {
        return Ok(Value::from(string).to_string());
    }
    Ok(written.to_owned())
}

/// `2026-11-22` or `2026-11-22T11:00:00Z`, which YAML 1.1 reads as a time.
fn is_timestamp(string: &str) -> bool {
    let date: Vec<&str> = string.get(..10).unwrap_or_default().split('-').collect();
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    matches!(date.as_slice(), [year, month, day] if year.len() == 4 && month.len() == 2 && day.len() == 2)
        && date.iter().all(digits)
        && string.get(10..).is_some_and(|rest| rest.is_empty() || rest.starts_with(['T', 't', ' ']))
}

/// What YAML 1.1 reads as true or false.
fn is_old_boolean(string: &str) -> bool {
    matches!(string.to_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off")
}

/// Numbers, `true`, `null` and the like: what is quoted for its meaning, not for its characters.
fn is_simple(string: &str) -> bool {
    string
        .chars()
        .all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '+' | '~' | '_'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_written_as_kubectl_writes_them() {
        let value = json!({"a": {"time": "2026-11-22T11:00:00Z", "version": "86", "word": "yes", "text": "64 of 64 MiB", "url": "http://127.0.0.1:8080/v1"},
            "colon": "a: b", "e": {}, "empty": "", "l": [], "list": [{"k": 1, "n": [true, null]}, "x", [1, 2]], "lines": "one\n two\n", "f": 1.5});
        let expected = "\
a:
  text: 64 of 64 MiB
  time: \"2026-11-22T11:00:00Z\"
  url: http://127.0.0.1:8080/v1
  version: \"86\"
  word: \"yes\"
colon: 'a: b'
e: {}
empty: \"\"
f: 1.5
l: []
lines: |
  one
   two
list:
- k: 1
  \"n\":
  - true
  - null
- x
- - 1
  - 2
";
        assert_eq!(to_string(&value).unwrap(), expected);
    }

    #[test]
    fn whatever_is_written_is_read_back() {
        for string in [
            "",
            " ",
            "a\nb",
            "a\n\n  b\n",
            "\n",
            "true",
            "~",
            "1e3",
            "- x",
            "# x",
            "x # y",
            "\"q\"",
            "'q'",
            "é → ü",
            "a\tb",
            "2026-01-01",
            "{x}",
            "*a",
            "&a",
            "!t",
            "%x",
            "@x",
            "0x1f",
            "1_000",
            "null",
            "key: v",
            "x:",
            "\u{7}",
            "trailing ",
        ] {
            let value = json!({"a": string, "l": [string, {"k": string}], string: 1});
            let text = to_string(&value).unwrap();
            let read: Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{string:?}: {error}\n{text}"));
            assert_eq!(read, value, "{string:?}\n{text}");
        }
    }
}
