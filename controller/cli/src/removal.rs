//! Removal: several by their names, where one that is not there holds back no other.

use std::io::{self, Write};

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
