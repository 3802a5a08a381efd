//! Vocabulary: the tokens of a file, what each is for, and the bytes that it stands for. Encodes nothing.

use super::byte_level;
use super::flaw::Flaw;

/// Every token by its id.
pub(super) struct Vocabulary<'v> {
    pub(super) texts: &'v [String],
    pub(super) kinds: Vec<Kind>,
}

/// What a token is for; `LLAMA_TOKEN_TYPE_*` of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    /// Stands for what has no token.
    Unknown,
    Control,
    /// A word that is never cut.
    UserDefined,
    /// A place for later.
    Unused,
    /// A byte, written `<0x41>`.
    Byte,
}

/// How a vocabulary writes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Each byte as a character of GPT-2's alphabet.
    Bytes,
    /// Blanks as [`BLANK`], all else as it is.
    Blanks,
}

/// What sentencepiece writes for a blank.
pub(super) const BLANK: char = '\u{2581}';
/// The longest word of a vocabulary that is searched word by word; the longest known have some 130 bytes.
const MAX_WORD_BYTES: usize = 1024;

// === impl Kind ===

impl Kind {
    /// By its number in a GGUF file.
    pub(super) fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            // Written where nothing was known of a token.
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether it steers the model and is no text, wherever it came from.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }

    /// Whether plain text may become it.
    pub(super) fn is_word(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

// === impl Vocabulary ===

impl<'v> Vocabulary<'v> {
    /// Tokens that plain text may become. Names of control tokens are never among them, so no text that is typed becomes one.
    pub(super) fn words(&self) -> impl Iterator<Item = (u32, &'v str, Kind)> + '_ {
        let tokens = self.texts.iter().zip(&self.kinds).enumerate();
        let words = tokens.filter(|(_, (text, kind))| kind.is_word() && !text.is_empty());
        words.map(|(id, (text, kind))| (id as u32, text.as_str(), *kind))
    }

    /// The tokens that are found by name before anything else: (name, token, whether only where they are looked for).
    pub(super) fn names(&self) -> impl Iterator<Item = (&'v str, u32, bool)> + '_ {
        let tokens = self.texts.iter().zip(&self.kinds).enumerate();
        let named = tokens.filter(|(_, (_, kind))| kind.is_special() || **kind == Kind::UserDefined);
        named.map(|(id, (text, kind))| (text.as_str(), id as u32, kind.is_special()))
    }

    /// The token of each byte.
    pub(super) fn bytes(&self) -> Box<[Option<u32>; 256]> {
        let mut tokens = Box::new([None; 256]);
        for (id, text) in self.texts.iter().enumerate().filter(|(id, _)| self.kinds[*id] == Kind::Byte) {
            if let Some(byte) = byte_of(text) {
                tokens[usize::from(byte)] = Some(id as u32);
            }
        }
        tokens
    }

    /// The bytes that each token stands for, not always whole characters.
    pub(super) fn pieces(&self, script: Script) -> Vec<Box<[u8]>> {
        let piece = |(text, kind): (&String, &Kind)| -> Box<[u8]> {
            match (kind, script) {
                (Kind::Byte, _) => byte_of(text).map_or_else(|| text.as_bytes().into(), |byte| [byte].into()),
                (Kind::Normal | Kind::Unused, Script::Bytes) => byte_level::bytes_of(text),
                (Kind::Normal | Kind::Unused, Script::Blanks) => text.replace(BLANK, " ").into_bytes().into(),
                (Kind::Control | Kind::Unknown | Kind::UserDefined, _) => text.as_bytes().into(),
            }
        };
        self.texts.iter().zip(&self.kinds).map(piece).collect()
    }

    /// Bounds what it costs to look words up at each place of a text.
    ///
    /// # Errors
    /// [`Flaw::LongWord`].
    pub(super) fn check_words(&self) -> Result<(), Flaw> {
        match self.words().find(|(_, text, _)| text.len() > MAX_WORD_BYTES) {
            Some((id, text, _)) => Err(Flaw::LongWord { id, found: text.len(), limit: MAX_WORD_BYTES }),
            None => Ok(()),
        }
    }
}

/// The byte that `<0x41>` names.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_token_stands_for_its_own_bytes() {
        let texts = ["Ġa", "▁a", "<0x0A>", "<0x+A>", "<▁Ġ>", "▁Ġ"].map(str::to_owned);
        let kinds = vec![Kind::Normal, Kind::Normal, Kind::Byte, Kind::Byte, Kind::Control, Kind::UserDefined];
        let vocabulary = Vocabulary { texts: &texts, kinds };
        let pieces = |script| vocabulary.pieces(script).iter().map(|piece| piece.to_vec()).collect::<Vec<_>>();
        let rest: [&[u8]; 4] = [b"\n", b"<0x+A>", "<▁Ġ>".as_bytes(), "▁Ġ".as_bytes()];
        assert_eq!(pieces(Script::Bytes), [[b" a".as_slice(), "▁a".as_bytes()].as_slice(), &rest].concat());
        assert_eq!(pieces(Script::Blanks), [["Ġa".as_bytes(), b" a".as_slice()].as_slice(), &rest].concat());
        assert_eq!(vocabulary.bytes().iter().flatten().collect::<Vec<_>>(), [&2]);
    }

    #[test]
    fn no_text_becomes_a_token_that_steers() {
        let texts = ["a", "b", "c", "d", "e", "f", ""].map(str::to_owned);
        let kinds = (1..=6).chain([1]).map(|number| Kind::from_number(number).unwrap_or(Kind::Control)).collect();
        let vocabulary = Vocabulary { texts: &texts, kinds };
        assert_eq!(vocabulary.words().map(|word| word.0).collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!(vocabulary.names().collect::<Vec<_>>(), [("b", 1, true), ("c", 2, true), ("d", 3, false)]);
    }
}
