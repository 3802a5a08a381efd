//! Records: what the verbs of tokens, keys and users have in common. A name, and removal of several, where one that is not there holds back no other.

use std::io::{self, Write};

use polyphony_identity::is_dns_label;

/// Its Secret's name has a prefix before it.
const MAX_NAME: usize = 40;

/// Reads the name of a key or a user.
///
/// # Errors
/// When it is none.
pub fn name(text: &str) -> Result<String, String> {
    match is_dns_label(text) && text.len() <= MAX_NAME {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a name is 1 to {MAX_NAME} lower-case letters, digits and hyphens, with no hyphen at either end"
        )),
    }
}

/// Takes all of `names` away by `delete`, which says whether there was one, and tells of each.
///
/// # Errors
/// What `delete` fails with; and at the end, where there was none of some of the names.
pub async fn delete_all<E: Into<anyhow::Error>>(
    what: &str,
    names: &[String],
    delete: impl AsyncFn(&str) -> Result<bool, E>,
) -> anyhow::Result<()> {
    let mut unknown = Vec::new();
    for name in names {
        match delete(name).await.map_err(Into::into)? {
            true => writeln!(io::stdout(), "{what} {name} deleted")?,
            false => unknown.push(name.as_str()),
        }
    }
    match unknown.is_empty() {
        true => Ok(()),
        false => {
            anyhow::bail!("there is no {what} {}: `polyctl {what} list` shows those that there are", unknown.join(", "))
        }
    }
}
