//! The byte-level alphabet of GPT-2: how a vocabulary of printable text stands for bytes.

use std::sync::LazyLock;

/// The 256 bytes by the character that stands for each, ascending by character.
///
/// `bytes_to_unicode` of GPT-2's `encoder.py`: printable Latin-1 stands for itself, the other 68 bytes, in order, are
/// U+0100 and on.
static ALPHABET: LazyLock<Vec<(char, u8)>> = LazyLock::new(|| {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=255_u8).filter(|&byte| !is_printable(byte)).zip('\u{100}'..);
    let mut alphabet: Vec<_> = others.map(|(byte, character)| (character, byte)).collect();
    alphabet.extend((0..=255_u8).filter(|&byte| is_printable(byte)).map(|byte| (char::from(byte), byte)));
    alphabet.sort_unstable();
    alphabet
});

/// The character of each byte.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut characters = ['\0'; 256];
    for &(character, byte) in ALPHABET.iter() {
        characters[usize::from(byte)] = character;
    }
    characters
});

/// `text` as a vocabulary writes it.
pub(super) fn written(text: &str) -> String {
    let characters = &*CHARACTERS;
    text.bytes().map(|byte| characters[usize::from(byte)]).collect()
}

/// The bytes that a token of the vocabulary stands for; a character outside of the alphabet stands for its UTF-8.
pub(super) fn bytes_of(token: &str) -> Box<[u8]> {
    let alphabet = &*ALPHABET;
    let mut bytes = Vec::with_capacity(token.len());
    for character in token.chars() {
        match alphabet.binary_search_by_key(&character, |entry| entry.0) {
            Ok(idx) => bytes.push(alphabet[idx].1),
            Err(_) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_a_character_for_every_byte() {
        let mut bytes: Vec<u8> = ALPHABET.iter().map(|entry| entry.1).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn tokens_stand_for_their_bytes() {
        for (token, text) in [("Ġthe", " the"), ("ĊĊ", "\n\n"), ("Ã©", "é")] {
            assert_eq!(&*bytes_of(token), text.as_bytes());
            assert_eq!(written(text), token);
        }
        assert_eq!(&*bytes_of("日"), "日".as_bytes());
    }
}
