//! A conversation: what was said so far, and the commands that begin with a slash.

use crate::discovery::nearest;
use crate::openai::Message;

pub(super) const HELP: &str = "\
/system TEXT   tell the model something before the conversation; without TEXT, show it
/clear         forget what was said
/help          show this
/exit          end, as Ctrl-D does
Ctrl-C stops an answer; the arrow keys bring earlier lines back.";

const COMMANDS: [&str; 5] = ["/help", "/clear", "/system", "/exit", "/quit"];

/// What a line of a person means.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning<'a> {
    Nothing,
    Help,
    Clear,
    /// Empty: show it.
    System(&'a str),
    Exit,
    Unknown(String),
    Say(&'a str),
}

/// Reads a line. What only looks like a path is no command.
pub(super) fn meaning(line: &str) -> Meaning<'_> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match word {
        "" => Meaning::Nothing,
        "/help" | "/?" => Meaning::Help,
        "/clear" => Meaning::Clear,
        "/system" => Meaning::System(rest.trim()),
        "/exit" | "/quit" => Meaning::Exit,
        word if word.starts_with('/') && word[1..].chars().all(|c| c.is_ascii_alphabetic()) && word.len() > 1 => {
            let meant = nearest(word, COMMANDS).map_or_else(String::new, |name| format!(" Did you mean {name}?"));
            Meaning::Unknown(format!("{word} is no command.{meant} /help shows them."))
        }
        _ => Meaning::Say(line),
    }
}

/// What the model is sent.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    system: Option<String>,
    turns: Vec<Message>,
}

// === impl Conversation ===

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, turns: Vec::new() }
    }

    pub(super) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    pub(super) fn set_system(&mut self, text: &str) {
        self.system = Some(text.to_owned());
    }

    /// Whether something was said before the question that stands last.
    pub(super) fn has_past(&self) -> bool {
        self.turns.len() > 1
    }

    /// What was said is forgotten; what the model was told before it is not.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
    }

    pub(super) fn ask(&mut self, question: &str) {
        self.turns.push(Message { role: "user", content: question.to_owned() });
    }

    /// Ends the turn: with what was answered, perhaps not to its end, or as if it had not been asked.
    pub(super) fn answered(&mut self, answer: &str) {
        if answer.is_empty() {
            self.turns.pop();
        } else {
            self.turns.push(Message { role: "assistant", content: answer.to_owned() });
        }
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message { role: "system", content: text.clone() });
        system.chain(self.turns.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_words_to_the_model() {
        for (line, expected) in [
            ("  ", Meaning::Nothing),
            ("/help", Meaning::Help),
            ("/system  be brief ", Meaning::System("be brief")),
            ("/system", Meaning::System("")),
            ("/quit", Meaning::Exit),
            ("what is /usr?", Meaning::Say("what is /usr?")),
            ("/usr/bin is what?", Meaning::Say("/usr/bin is what?")),
            ("/claer", Meaning::Unknown("/claer is no command. Did you mean /clear? /help shows them.".into())),
        ] {
            assert_eq!(meaning(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_stopped_answer_stays_and_a_failed_question_goes() {
        let mut conversation = Conversation::new(Some("s".into()));
        conversation.ask("one");
        conversation.answered("par");
        conversation.ask("two");
        conversation.answered("");
        let said: Vec<(&str, String)> =
            conversation.messages().into_iter().map(|message| (message.role, message.content)).collect();
        assert_eq!(said, [("system", "s".to_owned()), ("user", "one".to_owned()), ("assistant", "par".to_owned())]);
        conversation.clear();
        assert_eq!(conversation.messages().len(), 1);
    }
}
