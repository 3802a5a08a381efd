//! Failures in kubectl's words, so that a person and a script read the same text from both programs.

use std::error::Error;
use std::io;

use kube::core::Status;

use crate::terminal;

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server answered with a `Status` of failure.
    #[error("{}", status_text(.0))]
    Server(Box<Status>),
    #[error("The connection to the server {server} was refused - did you specify the right host or port?\n{hint}")]
    Refused { server: String, hint: String },
    #[error("Unable to connect to the server: {detail}\n{hint}")]
    Unreachable { detail: String, hint: String },
    #[error(
        "error: {server} did not answer within {seconds} s: look at the controller's log with `polyctl logs controller`"
    )]
    Silent { server: String, seconds: u64 },
    #[error("error: {server} answered with something that is not JSON: {detail}: is it a Kubernetes API?")]
    Garbled { server: String, detail: String },
    /// Some of several requests failed; each is told on a line of its own.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Failure>),
    /// A failure with lines that say where and what to do.
    #[error("{failure}\n{}", .notes.iter().map(|note| format!("  {note}")).collect::<Vec<_>>().join("\n"))]
    Noted { failure: Box<Failure>, notes: Vec<String> },
    /// What a person asked cannot be done, whatever the server says.
    #[error("error: {0}")]
    Request(String),
}

// === impl Failure ===

impl Failure {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Failure::Server(status) if status.is_not_found())
    }

    /// Whether the server is away, so that the same request may be granted later.
    pub fn is_transient(&self) -> bool {
        match self {
            Failure::Refused { .. } | Failure::Unreachable { .. } | Failure::Silent { .. } => true,
            Failure::Server(status) => matches!(status.code, 410 | 429 | 500..),
            _ => false,
        }
    }

    /// The `Status`, where the server gave one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Failure::Server(status) => Some(status),
            _ => None,
        }
    }

    /// Nothing for no failure, itself for one, `Several` for more.
    ///
    /// # Errors
    /// When there is any.
    pub fn collect(mut failures: Vec<Failure>) -> Result<(), Failure> {
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(Failure::Several(failures)),
        }
    }
}

/// An error as it is printed: kubectl prefixes `error: ` to all but the server's own words.
pub fn describe(error: &anyhow::Error) -> String {
    // Not what has a context: that is told too.
    let of_client = error.chain().next().and_then(|error| error.downcast_ref::<kube::Error>());
    let text = match (error.downcast_ref::<Failure>(), of_client) {
        (Some(failure), _) => failure.to_string(),
        (None, Some(kube::Error::Api(status))) => status_text(status),
        (None, Some(unreached)) if is_refused(unreached) => {
            "The connection to the server of the kubeconfig was refused - did you specify the right host or port?\n(a control plane on this machine is started with `polyctl up`)".to_owned()
        }
        (None, _) => format!("error: {}", causes(error.as_ref())),
    };
    terminal::lines(&text).into_owned()
}

/// Whether whoever read our output has gone: no failure of ours.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// `error` and its causes, joined; one that the text before it has already told is left out.
pub fn causes(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        // A `Status` is for programs, but for its message.
        let status = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => Some(status),
            _ => None,
        };
        let text = status.map_or_else(|| cause.to_string(), |status| status.message.clone());
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = if status.is_some() { None } else { cause.source() };
    }
    texts.join(": ")
}

/// The innermost cause alone: the one that a person can act on.
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether a connection was refused, anywhere below `error`.
pub fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn status_text(status: &Status) -> String {
    if status.is_invalid() {
        return invalid_text(status);
    }
    if status.code == 401 || status.reason == "Unauthorized" {
        let why =
            status.message.strip_prefix("Unauthorized: ").unwrap_or("what the kubeconfig shows is not this server's");
        return format!("error: You must be logged in to the server (Unauthorized): {why}");
    }
    match status.reason.as_str() {
        "" => format!("Error from server: {}", status.message),
        reason => format!("Error from server ({reason}): {}", status.message),
    }
}

/// `The Model "x" is invalid: spec.source: …`, or one line a cause.
fn invalid_text(status: &Status) -> String {
    let Some(details) = &status.details else {
        return format!("The request is invalid: {}", status.message);
    };
    if details.causes.is_empty() {
        return format!("The request is invalid: {}", status.message);
    }
    let causes: Vec<String> =
        details
            .causes
            .iter()
            .map(|cause| {
                if cause.field.is_empty() {
                    cause.message.clone()
                } else {
                    format!("{}: {}", cause.field, cause.message)
                }
            })
            .collect();
    let subject = format!("The {} {:?} is invalid", details.kind, details.name);
    match causes.as_slice() {
        [cause] => format!("{subject}: {cause}"),
        causes => format!("{subject}: \n* {}", causes.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn text(status: Value) -> String {
        Failure::Server(Box::new(serde_json::from_value(status).unwrap())).to_string()
    }

    #[test]
    fn a_status_is_told_in_the_words_of_kubectl() {
        assert_eq!(
            text(
                json!({"status": "Failure", "reason": "NotFound", "code": 404, "message": "phones.polyphony.dev \"x\" not found"})
            ),
            "Error from server (NotFound): phones.polyphony.dev \"x\" not found"
        );
        assert_eq!(text(json!({"status": "Failure", "message": "odd", "code": 500})), "Error from server: odd");
    }

    #[test]
    fn what_a_client_was_refused_is_told_in_the_same_words_and_without_the_status() {
        let status = |code: u16, reason: &str, message: &str| {
            let status = json!({"status": "Failure", "reason": reason, "code": code, "message": message});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        let refused = status(403, "Forbidden", "viewers change nothing");
        assert_eq!(describe(&refused.into()), "Error from server (Forbidden): viewers change nothing");
        let inner = anyhow::Error::new(status(403, "Forbidden", "viewers change nothing")).context("no key was made");
        assert_eq!(describe(&inner), "error: no key was made: viewers change nothing");
        let unknown = status(401, "Unauthorized", "Unauthorized: the certificate of user mia has run out");
        assert!(describe(&unknown.into()).ends_with("(Unauthorized): the certificate of user mia has run out"));
        let nobody = status(401, "Unauthorized", "Unauthorized");
        assert!(describe(&nobody.into()).ends_with("is not this server's"));
    }

    #[test]
    fn an_invalid_object_lists_its_fields() {
        let one = json!({"reason": "Invalid", "code": 422, "message": "m", "details": {"kind": "Model", "name": "x",
            "causes": [{"field": "spec.source", "message": "Required value"}]}});
        assert_eq!(text(one), "The Model \"x\" is invalid: spec.source: Required value");
        let two = json!({"reason": "Invalid", "code": 422, "message": "m", "details": {"kind": "Model", "name": "x",
            "causes": [{"field": "spec.a", "message": "A"}, {"field": "spec.b", "message": "B"}]}});
        assert_eq!(text(two), "The Model \"x\" is invalid: \n* spec.a: A\n* spec.b: B");
    }

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let inner = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let told =
            anyhow::Error::new(inner).context("a.yaml: no such file").context("cannot read a.yaml: no such file");
        assert_eq!(describe(&told), "error: cannot read a.yaml: no such file");
        assert_eq!(describe(&anyhow::anyhow!("no such file").context("a.yaml")), "error: a.yaml: no such file");
    }
}
