//! Names: what keys and values of labels may be, each fault in Kubernetes' words.

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const MAX_NAME_BYTES: usize = 63;
const MAX_SUBDOMAIN_BYTES: usize = 253;

/// What is wrong with `name` or `prefix/name`: a key of a label or an annotation, or a finalizer.
pub fn key_faults(key: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                faults.extend(subdomain_faults(prefix).into_iter().map(|fault| format!("prefix part {fault}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_NAME_BYTES {
        faults.push(format!("name part {}", too_long(MAX_NAME_BYTES)));
    }
    if !is_name(name) {
        faults.push(format!("name part {NAME_RULE}"));
    }
    faults
}

/// What is wrong with the value of a label.
pub fn value_faults(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > MAX_NAME_BYTES {
        faults.push(too_long(MAX_NAME_BYTES));
    }
    if !value.is_empty() && !is_name(value) {
        faults.push(VALUE_RULE.to_owned());
    }
    faults
}

/// What is wrong with a DNS subdomain: the name of a custom object, or the prefix of a key.
pub fn subdomain_faults(name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if name.len() > MAX_SUBDOMAIN_BYTES {
        faults.push(too_long(MAX_SUBDOMAIN_BYTES));
    }
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label =
        |label: &str| begins_and_ends(label, is_lower) && label.bytes().all(|byte| is_lower(byte) || byte == b'-');
    if !name.split('.').all(is_label) {
        faults.push(SUBDOMAIN_RULE.to_owned());
    }
    faults
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

fn is_name(text: &str) -> bool {
    begins_and_ends(text, |byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn begins_and_ends(text: &str, with: impl Fn(u8) -> bool) -> bool {
    let end = |byte: Option<&u8>| byte.is_some_and(|byte| with(*byte));
    end(text.as_bytes().first()) && end(text.as_bytes().last())
}
