//! Join links: all that a device needs to join, as a URL, for cameras and for apps that are opened by one.

use std::str::FromStr;

use url::Url;

use crate::digest::Digest;
use crate::token::JoinToken;

/// `polyphony://HOST:PORT?token=TOKEN&ca-hash=HASH`. It is as secret as the token in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinLink {
    /// HOST:PORT of the hub, an address of IPv6 in brackets.
    pub hub: String,
    pub token: JoinToken,
    /// Of the root of the host that is meant.
    pub ca_hash: Digest,
}

/// Why a text is no join link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no whole join link: one is {SCHEME}://HOST:PORT?token=TOKEN&ca-hash=sha256:HASH, as `polyctl join-command` on the host shows it; was it cut off?"
)]
pub struct JoinLinkError;

const SCHEME: &str = "polyphony";
const TOKEN: &str = "token";
const CA_HASH: &str = "ca-hash";

// === impl JoinLink ===

impl JoinLink {
    /// All of it, for who is to join.
    pub fn reveal(&self) -> String {
        // Nothing in it has a meaning of its own in a URL.
        format!("{SCHEME}://{}?{TOKEN}={}&{CA_HASH}={}", self.hub, self.token.reveal(), self.ca_hash)
    }
}

impl FromStr for JoinLink {
    type Err = JoinLinkError;

    fn from_str(text: &str) -> Result<Self, JoinLinkError> {
        let url = Url::parse(text.trim()).map_err(|_| JoinLinkError)?;
        let said = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let (Some(host), Some(port), SCHEME) = (url.host_str(), url.port(), url.scheme()) else {
            return Err(JoinLinkError);
        };
        let token = said(TOKEN).and_then(|token| token.parse().ok()).ok_or(JoinLinkError)?;
        let ca_hash = said(CA_HASH).and_then(|hash| hash.parse().ok()).ok_or(JoinLinkError)?;
        Ok(Self { hub: format!("{host}:{port}"), token, ca_hash })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_link_is_read_as_it_was_written_also_where_others_have_escaped_it() {
        for hub in ["192.168.1.10:7700", "desk.lan:7701", "[fd00::5]:1"] {
            let link = JoinLink { hub: hub.into(), token: JoinToken::generate(), ca_hash: Digest::of_spki(b"root") };
            let text = link.reveal();
            assert_eq!(text.parse(), Ok(link.clone()), "{text}");
            let escaped = text.replace("sha256:", "sha256%3A");
            assert_eq!(format!(" {escaped}\n").parse(), Ok(link), "{escaped}");
        }
    }

    #[test]
    fn what_is_not_a_whole_link_is_refused_and_not_shown() {
        let whole = JoinLink { hub: "h:1".into(), token: JoinToken::generate(), ca_hash: Digest::of_spki(b"root") };
        let whole = whole.reveal();
        for n in 0..whole.len() {
            assert_eq!(whole[..n].parse::<JoinLink>(), Err(JoinLinkError), "{}", &whole[..n]);
        }
        for other in [whole.replace("polyphony:", "https:"), whole.replace(":1?", "?"), whole.replace("token", "t")] {
            assert_eq!(other.parse::<JoinLink>(), Err(JoinLinkError), "{other}");
        }
        assert!(!format!("{:?}", whole.parse::<JoinLink>()).contains(&whole[20..52]), "the secret stays unsaid");
    }
}
