//! Join tokens, digests and names: a line of text as each of what a person types or a certificate says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyphony_identity::{Digest, JoinToken, Name, is_dns_label};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.reveal(), text.trim());
        assert!(token.is_of(&token.hash()) && !format!("{token:?}").contains(&token.reveal()[7..]));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
    }
    if let Some(name) = Name::of_uri(text) {
        assert_eq!(Name::of_uri(&name.uri()).as_ref(), Some(&name));
        assert!(is_dns_label(&name.name), "{name}");
        // It is the name that TLS asks for.
        let _ = polyphony_identity::Whom::Named(name).server_name();
    }
});
