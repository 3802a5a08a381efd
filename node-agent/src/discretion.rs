//! Discretion: a join token that was written on the command line is taken off it, since every user of the machine can read that.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

const FLAG: &str = "--token";
/// Only this user can read the environment of its programs.
pub const VARIABLE: &str = "POLYPHONY_JOIN_TOKEN";

/// Becomes the same program again (with the same process id) with the token in its environment, where the command line holds
/// one. Gives back where it holds none, or where that cannot be.
pub fn take_token_off_the_command_line() {
    let Some((arguments, token)) = without_token(std::env::args_os()) else { return };
    let Ok(program) = std::env::current_exe() else { return };
    let mut words = arguments.into_iter();
    let mut command = Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // It gives back only when it fails, and then the token is where it was.
    let _ = command.args(words).env(VARIABLE, token).exec();
}

/// The words without the token, and the token; none where there is none.
fn without_token(words: impl IntoIterator<Item = OsString>) -> Option<(Vec<OsString>, OsString)> {
    let (mut kept, mut token) = (Vec::new(), None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == FLAG {
            // What stands for nothing is for the grammar to complain about.
            token = Some(words.next()?);
        } else if let Some(given) =
            word.as_bytes().strip_prefix(FLAG.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        {
            token = Some(OsString::from_vec(given.to_vec()));
        } else {
            kept.push(word);
        }
    }
    // clap takes an empty variable for none, and an empty flag for a fault.
    Some((kept, token.filter(|token| token.as_os_str() != OsStr::new(""))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Option<(String, String)> {
        let (words, token) = without_token(line.split(' ').map(OsString::from))?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Some((words.join(" "), token.to_string_lossy().into_owned()))
    }

    #[test]
    fn the_token_is_taken_out_and_nothing_else() {
        let told = |line: &str, token: &str| Some((line.to_owned(), token.to_owned()));
        assert_eq!(take("agent join h:1 --token t --insecure"), told("agent join h:1 --insecure", "t"));
        assert_eq!(take("agent --token=a=b --name x"), told("agent --name x", "a=b"));
        for line in ["agent join h:1", "agent --token", "agent --token=", "agent --token-file f"] {
            assert_eq!(take(line), None, "{line}");
        }
    }
}
