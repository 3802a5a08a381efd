//! The name of a phone that nobody has named: its host name, as a DNS label.

use std::io::Read;

/// Host names that every second system has, and which would name two phones alike.
const NO_NAMES: [&str; 3] = ["localhost", "android", "none"];
const MAX_LABEL: usize = 63;

/// The name that a phone takes when none is given.
///
/// # Errors
/// When the system has neither a host name nor random bytes.
pub fn default_name() -> std::io::Result<String> {
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| label(&std::fs::read_to_string(path).ok()?))
        .filter(|name| !NO_NAMES.contains(&name.as_str()));
    match host {
        Some(name) => Ok(name),
        None => {
            let mut bytes = [0; 3];
            std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
            Ok(format!("phone-{}", hex::encode(bytes)))
        }
    }
}

/// A host name's first label in lower case, every other character a hyphen; none when nothing is left.
fn label(host: &str) -> Option<String> {
    let first = host.trim().split('.').next().unwrap_or_default();
    let mut label = String::new();
    for character in first.chars().map(|character| character.to_ascii_lowercase()) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            label.push(character);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(MAX_LABEL);
    let label = label.trim_end_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_name_becomes_a_dns_label() {
        for (host, expected) in [
            ("desk", Some("desk")),
            ("Ada's Pixel_7\n", Some("ada-s-pixel-7")),
            ("desk.home.arpa", Some("desk")),
            ("--x--", Some("x")),
            ("Ä", None),
            ("", None),
        ] {
            assert_eq!(label(host).as_deref(), expected, "{host:?}");
        }
        assert_eq!(label(&"a".repeat(80)).unwrap().len(), 63);
        assert_eq!(label(&format!("{}-b", "a".repeat(62))).unwrap(), "a".repeat(62));
    }

    #[test]
    fn a_phone_always_gets_a_name_that_a_flag_takes() {
        let name = default_name().unwrap();
        assert_eq!(label(&name), Some(name));
    }
}
