//! Tokenizer: bytes as the metadata of a GGUF file, or as `tokenizer.json`, a byte of 0xff and `tokenizer_config.json`. The tokenizer that
//! comes of it cuts texts and puts them together again.
#![no_main]

use std::io::Cursor;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use polyphony_model::{Gguf, Tokenizer};

const TEXTS: [&str; 4] = [
    "Hello,  world! It's 12345 o'clock\r\n\n\t'LL <|im_end|></s><s><0x0A>",
    "Straße\u{a0}ﬁ ÅÅ नमस्ते 你好，世界 👩‍👩‍👧 \u{feff}\u{fdfa}ａｂ\u{3000}\u{200b}",
    "\0\u{1}\u{7f}\u{85}\u{2028}\u{fffd}\u{10ffff} ▁▁ ĠĊ  ",
    "",
];
/// So many of the last bytes are a text, too.
const TEXT_BYTES: usize = 200;

fuzz_target!(|data: &[u8]| {
    let tokenizer = if data.starts_with(b"GGUF") {
        Gguf::read(&mut Cursor::new(data)).ok().and_then(|header| Tokenizer::from_gguf(&header).ok())
    } else {
        let mut parts = data.splitn(2, |byte| *byte == 0xff);
        let json = parts.next().unwrap_or_default();
        Tokenizer::from_json(json, parts.next()).ok()
    };
    let Some(tokenizer) = tokenizer.map(Arc::new) else { return };
    let last = String::from_utf8_lossy(&data[data.len().saturating_sub(TEXT_BYTES)..]).into_owned();
    let repeated = last.chars().take(3).collect::<String>().repeat(1000);
    for text in TEXTS.into_iter().chain([last.as_str(), repeated.as_str()]) {
        for parse_special in [false, true] {
            let Ok(ids) = tokenizer.encode_prompt(text, parse_special) else { continue };
            assert!(ids.iter().all(|id| *id < tokenizer.n_vocab()), "a token that the vocabulary lacks");
            let fewest = tokenizer.fewest_tokens(text);
            assert!(fewest <= ids.len(), "{fewest} tokens at least, and {} are enough", ids.len());
            let mut stream = tokenizer.stream(parse_special);
            let mut streamed: String = ids.iter().map(|id| stream.push(*id)).collect();
            streamed += &stream.finish();
            let whole = tokenizer.decode(&ids, parse_special);
            assert!(whole == streamed || whole.strip_prefix(' ') == Some(&streamed), "{whole:?} came as {streamed:?}");
        }
    }
});
