//! Questions to the keeper of a lab, over a socket in the data directory: one line of JSON each way.

use std::path::{Path, PathBuf};

use polyphony_farm::lab::{LinkChange, Sensors};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::calibration::Calibration;

/// No question and no answer is longer; an agent's metrics are the longest.
const MAX_BYTES: u64 = 16 << 20;

/// What a keeper is asked.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub(super) enum Question {
    Status,
    Set { phone: String, change: Box<Change> },
    Kill { phone: String },
    Start { phone: String },
    Metrics { phone: String, port: u16 },
}

/// What is to be different about a phone; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Change {
    pub(super) cpu: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    /// The link to this phone alone, rather than that to everybody.
    pub(super) to: Option<String>,
    /// A link profile, below what `link` says.
    pub(super) profile: Option<String>,
    pub(super) link: LinkChange,
    pub(super) sensors: Option<Sensors>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub(super) enum Answer {
    Done,
    Text { text: String },
    Status { status: Status },
    Refused { why: String },
}

/// How a lab fares.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) file: String,
    pub(super) phones: Vec<PhoneStatus>,
    pub(super) frames_carried: u64,
    pub(super) frames_lost: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PhoneStatus {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) cpu: Option<f64>,
    pub(super) segment_bytes: u64,
    /// In words.
    pub(super) link: String,
    /// By peer, in words.
    pub(super) links: Vec<(String, String)>,
    pub(super) calibration: Option<Calibration>,
}

/// Why a keeper does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuestionError {
    #[error("no lab runs in {}: start one with `polyctl lab up -f LAB.yaml`", .data_dir.display())]
    NoLab { data_dir: PathBuf },
    #[error("the lab does not answer: {source}; look at `polyctl logs lab`")]
    Silent { source: std::io::Error },
    #[error("the lab answers what this polyctl does not understand ({source}): is it of another version?")]
    Foreign { source: serde_json::Error },
    #[error("{0}")]
    Refused(String),
}

pub(super) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("lab.sock")
}

/// Asks the keeper of a data directory.
///
/// # Errors
/// When there is none, or it refuses.
pub(super) async fn ask(data_dir: &Path, question: &Question) -> Result<Answer, QuestionError> {
    let no_lab = |_| QuestionError::NoLab { data_dir: data_dir.to_owned() };
    let mut stream = UnixStream::connect(socket(data_dir)).await.map_err(no_lab)?;
    let silent = |source| QuestionError::Silent { source };
    let mut line = serde_json::to_string(question).map_err(|source| QuestionError::Foreign { source })?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await.map_err(silent)?;
    let answer = read_line(&mut stream).await.map_err(silent)?;
    match serde_json::from_str(&answer).map_err(|source| QuestionError::Foreign { source })? {
        Answer::Refused { why } => Err(QuestionError::Refused(why)),
        answer => Ok(answer),
    }
}

async fn read_line(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_BYTES)).read_line(&mut line).await?;
    Ok(line)
}

/// Answers one question; a connection that asks none is closed.
pub(super) async fn answer(listener: &UnixListener, mut reply: impl FnMut(Question) -> Answer) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    let question = read_line(&mut stream).await?;
    let answer = match serde_json::from_str(&question) {
        Ok(question) => reply(question),
        Err(error) => Answer::Refused { why: format!("no question to a lab: {error}") },
    };
    let mut line = serde_json::to_string(&answer)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_and_a_refusal_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let none = ask(folder.path(), &Question::Status).await.unwrap_err().to_string();
        assert!(none.contains("polyctl lab up"), "{none}");
        let listener = UnixListener::bind(socket(folder.path())).unwrap();
        let served = tokio::spawn(async move {
            for _ in 0..3 {
                let _ = answer(&listener, |question| match question {
                    Question::Kill { phone } if phone == "phone-1" => Answer::Done,
                    other => Answer::Refused { why: format!("not {other:?}") },
                })
                .await;
            }
        });
        assert_eq!(ask(folder.path(), &Question::Kill { phone: "phone-1".into() }).await.unwrap(), Answer::Done);
        let change = Box::new(Change { cpu: Some(0.5), ..Change::default() });
        let refused = ask(folder.path(), &Question::Set { phone: "phone-1".into(), change }).await.unwrap_err();
        assert!(refused.to_string().contains("0.5"), "{refused}");
        let mut stream = UnixStream::connect(socket(folder.path())).await.unwrap();
        stream.write_all(b"{}\n").await.unwrap();
        assert!(read_line(&mut stream).await.unwrap().contains("no question"));
        served.await.unwrap();
    }
}
