//! Join requests: text as a certificate signing request (PEM), or bytes as what is inside of one. What is read is signed for the name that the hub
//! gives, whatever the request says.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use polyphony_identity::{Authority, Clock, DEFAULT_DOMAIN, Lifetimes, Name, Signed};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let now = Clock::system().now();
    Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now).expect("there is randomness")
});

fuzz_target!(|data: &[u8]| {
    let as_text = String::from_utf8_lossy(data);
    let inside = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", base64(data));
    for pem in [as_text.as_ref(), inside.as_str()] {
        let Ok(signed) = Signed::read(pem) else { continue };
        let name = Name::phone("a", DEFAULT_DOMAIN);
        // A key of a kind that we do not sign for is refused.
        if let Ok(papers) = AUTHORITY.certify(&signed, &name, Clock::system().now()) {
            assert_eq!(papers.holder().expect("it is a certificate").name, name);
        }
    }
});

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place)) as usize % 64];
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}
