//! Input of a conversation: lines that a person edits on a terminal, with a history that outlives the program, or lines
//! of standard input as they are.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;

use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::history::History;
use rustyline::{DefaultEditor, Editor};
use tokio::sync::mpsc;

const PROMPT: &str = "> ";
const MAX_HISTORY: usize = 1000;

/// What came of asking for a line.
pub(super) enum Heard {
    Line(String),
    /// Ctrl-C on the line that was being written.
    Interrupted,
    End,
}

/// Reads on a thread of its own: a blocked read must not keep the program from ending.
pub(super) struct Input {
    asks: mpsc::Sender<()>,
    answers: mpsc::Receiver<io::Result<Heard>>,
    /// Whether a person sits at the other end.
    pub(super) is_person: bool,
}

// === impl Input ===

impl Input {
    pub(super) fn open() -> Self {
        let is_person = io::stdin().is_terminal() && io::stdout().is_terminal();
        let (asks, mut asked) = mpsc::channel(1);
        let (sender, answers) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut reader = if is_person { Reader::terminal() } else { Reader::Plain { n_lines: 0 } };
            while asked.blocking_recv().is_some() {
                if sender.blocking_send(reader.read()).is_err() {
                    return;
                }
            }
        });
        Self { asks, answers, is_person }
    }

    pub(super) async fn next(&mut self) -> io::Result<Heard> {
        if self.asks.send(()).await.is_err() {
            return Ok(Heard::End);
        }
        self.answers.recv().await.unwrap_or(Ok(Heard::End))
    }
}

/// All of standard input, as one text.
///
/// # Errors
/// Of reading, or of bytes that are no text.
pub(super) fn whole() -> io::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    text_of(bytes, 1)
}

/// `first_line` is the number of the line that the bytes begin with.
fn text_of(bytes: Vec<u8>, first_line: usize) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = first_line + good.iter().filter(|byte| **byte == b'\n').count();
        let told = format!(
            "standard input, line {line}: this is not UTF-8: convert it first, as `iconv -f ISO-8859-1 -t UTF-8` does"
        );
        io::Error::new(io::ErrorKind::InvalidData, told)
    })
}

enum Reader {
    Terminal {
        editor: Box<DefaultEditor>,
        history: Option<PathBuf>,
    },
    Plain {
        /// Read so far.
        n_lines: usize,
    },
}

// === impl Reader ===

impl Reader {
    /// A terminal that cannot be edited on is read plainly.
    fn terminal() -> Self {
        let config = Config::builder().max_history_size(MAX_HISTORY).map(|builder| builder.build());
        let editor = config.and_then(Editor::with_config);
        let Ok(mut editor) = editor else { return Reader::Plain { n_lines: 0 } };
        let history = history_file();
        if let Some(file) = &history {
            // The first conversation has none.
            let _ = editor.load_history(file);
        }
        Reader::Terminal { editor: Box::new(editor), history }
    }

    fn read(&mut self) -> io::Result<Heard> {
        match self {
            Reader::Plain { n_lines } => {
                let mut line = Vec::new();
                if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
                    return Ok(Heard::End);
                }
                *n_lines += 1;
                let line = text_of(line, *n_lines)?;
                Ok(Heard::Line(line.trim_end_matches(['\r', '\n']).to_owned()))
            }
            Reader::Terminal { editor, history } => match editor.readline(PROMPT) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        // A history that cannot be written is no reason not to talk.
                        let _ = editor.add_history_entry(&line);
                        if let Some(file) = history {
                            let _ = editor.save_history(file);
                        }
                    }
                    Ok(Heard::Line(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Heard::Interrupted),
                Err(ReadlineError::Eof) => Ok(Heard::End),
                Err(ReadlineError::Io(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Reader::Terminal { editor, history: Some(file) } = self
            && !editor.history().is_empty()
        {
            let _ = editor.save_history(file);
        }
    }
}

/// `$XDG_STATE_HOME/polyphony/chat-history`, else below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local").join("state")))?;
    let folder = state.join("polyphony");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("chat-history"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_line() {
        assert_eq!(text_of("é\n".into(), 1).unwrap(), "é\n");
        for (bytes, first_line, line) in [(&b"caf\xe9\n"[..], 1, 1), (b"a\nb\n\xff", 1, 3), (b"\xff\n", 7, 7)] {
            let error = text_of(bytes.to_vec(), first_line).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}: this is not UTF-8")) && error.contains("iconv"), "{error}");
        }
    }
}
