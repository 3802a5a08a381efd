//! Usage errors in kubectl's words, with the verb or flag that was perhaps meant.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::discovery::nearest;
use crate::options::Options;

/// The error as it is printed; none where clap's own text, such as help, is the right one.
pub fn describe(error: &clap::Error, program: &str) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let (known, place) = place_of(error, program);
            let meant = suggestion(nearest(&word, known.iter().map(String::as_str)));
            Some(format!("error: unknown command {word:?} for {place:?}{meant}\nSee '{place} --help' for usage."))
        }
        ErrorKind::UnknownArgument => {
            let word = text(ContextKind::InvalidArg)?;
            if !word.starts_with('-') {
                return None;
            }
            let (_, place) = place_of(error, program);
            let plain = word.split('=').next().unwrap_or_default();
            let flags = flags_of(&place);
            let meant = suggestion(nearest(plain, flags.iter().map(String::as_str)));
            Some(format!("error: unknown flag: {plain}{meant}\nSee '{place} --help' for usage."))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = text(ContextKind::InvalidArg)?;
            let flags: Vec<String> = missing
                .split(", ")
                .filter_map(|argument| argument.strip_prefix("--"))
                .map(|flag| format!("{:?}", flag.split([' ', '=']).next().unwrap_or_default()))
                .collect();
            (!flags.is_empty()).then(|| format!("error: required flag(s) {} not set", flags.join(", ")))
        }
        _ => None,
    }
}

fn suggestion(nearest: Option<String>) -> String {
    nearest.map_or_else(String::new, |name| format!("\nDid you mean {name:?}?"))
}

/// The words that could stand there, and the command that the error is of: `polyctl model`.
fn place_of(error: &clap::Error, program: &str) -> (Vec<String>, String) {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    // `Usage: polyctl model <COMMAND>`: the words up to the first that stands for something.
    let after = usage.split("Usage:").nth(1).unwrap_or_default();
    let mut words: Vec<&str> =
        after.split_whitespace().take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    if words.is_empty() {
        words = program.split(' ').collect();
    }
    let place = words.join(" ");
    let command = command_at(&place);
    let known = command.get_subcommands().filter(|command| !command.is_hide_set());
    let names = known.flat_map(|command| command.get_name_and_visible_aliases()).map(str::to_owned).collect();
    (names, place)
}

fn flags_of(place: &str) -> Vec<String> {
    let root = Options::command();
    let global = root.get_arguments().map(|argument| argument.get_long().map(str::to_owned)).collect::<Vec<_>>();
    let command = command_at(place);
    let own = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let own = own.map(|argument| argument.get_long().map(str::to_owned)).collect::<Vec<_>>();
    own.into_iter().chain(global).flatten().map(|name| format!("--{name}")).collect()
}

/// The command that these words lead to: the program's own words lead nowhere and are skipped.
fn command_at(place: &str) -> clap::Command {
    let mut command = Options::command();
    for word in place.split(' ') {
        if let Some(inner) = command.find_subcommand(word) {
            command = inner.clone();
        }
    }
    command
}
