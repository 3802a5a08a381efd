//! Tokenizers against the ids that another engine gives: every file and every text of `golden/tokenizers`.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use polyphony_model::{Gguf, Tokenizer};
use serde::Deserialize;

use crate::files;

#[derive(Deserialize)]
struct Golden {
    tokenizer: String,
    cases: Vec<Case>,
    #[serde(default)]
    disputed: Vec<Disputed>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    special: bool,
    ids: Vec<u32>,
    added: Option<Vec<u32>>,
    decoded: Option<String>,
    decoded_plain: Option<String>,
}

/// A text on which two engines differ.
#[derive(Deserialize)]
struct Disputed {
    text: String,
    special: bool,
    ids: Vec<u32>,
    other: Vec<u32>,
}

fn goldens() -> Vec<(Golden, Arc<Tokenizer>)> {
    let folder = files::golden("tokenizers");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &PathBuf| {
        let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let tokenizer = Tokenizer::open(&folder.join(&golden.tokenizer));
        let tokenizer = tokenizer.unwrap_or_else(|error| panic!("{}: {error}", golden.tokenizer));
        (golden, Arc::new(tokenizer))
    };
    paths.iter().map(read).collect()
}

#[test]
fn every_text_has_the_ids_of_the_reference() {
    let (mut n_cases, mut wrong) = (0, Vec::new());
    for (golden, tokenizer) in goldens() {
        for case in &golden.cases {
            let is_the_same_with_names = !golden.cases.iter().any(|other| other.special && other.text == case.text);
            for special in [Some(case.special), is_the_same_with_names.then_some(true)].into_iter().flatten() {
                let found = tokenizer.encode(&case.text, special).unwrap();
                n_cases += 1;
                if found != case.ids {
                    wrong.push(format!("{} {:?}:\n  {found:?}\n  {:?}", golden.tokenizer, case.text, case.ids));
                }
            }
            if let Some(added) = &case.added {
                let found = tokenizer.encode_prompt(&case.text, case.special).unwrap();
                assert_eq!(&found, added, "{} {:?}", golden.tokenizer, case.text);
            }
        }
        for case in &golden.disputed {
            let found = tokenizer.encode(&case.text, case.special).unwrap();
            if found != case.ids && found != case.other {
                wrong.push(format!("{} {:?}: {found:?} is neither answer", golden.tokenizer, case.text));
            }
        }
    }
    assert!(n_cases > 3000, "{n_cases} cases");
    assert!(wrong.is_empty(), "{} of {n_cases}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_ids_have_the_text_of_the_reference_however_they_come() {
    for (golden, tokenizer) in goldens() {
        for (idx, case) in golden.cases.iter().enumerate() {
            if golden.cases[idx + 1..].iter().any(|later| later.text == case.text) {
                continue;
            }
            let whole = case.decoded.as_ref().unwrap_or(&case.text);
            let plain = case.decoded_plain.as_ref().unwrap_or(whole);
            let at = format!("{} {:?}", golden.tokenizer, case.text);
            assert_eq!(&tokenizer.decode(&case.ids, false), whole, "{at}");
            assert_eq!(&tokenizer.decode(&case.ids, true), plain, "{at}");
            let mut stream = tokenizer.stream(true);
            let streamed: String = case.ids.iter().map(|&token| stream.push(token)).collect();
            let streamed = streamed + &stream.finish();
            assert!(streamed == *plain || format!(" {streamed}") == *plain, "{at}: {streamed:?}");
        }
    }
}

#[test]
fn a_file_cut_or_changed_anywhere_is_refused_or_used_without_a_panic() {
    for name in ["bpe_llama-bpe", "spm_llama", "ugm_t5"] {
        let whole = std::fs::read(files::golden(&format!("tokenizers/{name}.gguf"))).unwrap();
        let try_out = |bytes: &[u8]| {
            let Ok(gguf) = Gguf::read(&mut Cursor::new(bytes)) else { return };
            let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) else { return };
            let ids = tokenizer.encode("Ｈéllo <s> \u{fdfa}\t 12345 <tool>", true).unwrap();
            tokenizer.decode(&ids, false);
        };
        // Keys, arrays, and the table of characters at the end of one.
        let (head, tail) = ((0..600).step_by(7), (whole.len() - 2600..whole.len()).step_by(23));
        let places = (0..whole.len()).step_by(whole.len() / 40).chain(head).chain(tail);
        for at in places {
            try_out(&whole[..at]);
            let mut changed = whole.clone();
            for value in [0xff, whole[at] ^ 1] {
                changed[at] = value;
                try_out(&changed);
            }
        }
    }
}
