//! `chat`: a question to a deployment, or a conversation.

mod conversation;
mod input;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use polyphony_journal::tell;
use serde_json::Value;

use crate::connection::{ClusterFlags, Connection};
use crate::failure::{Failure, describe};
use crate::numbers;
use crate::openai::{self, Answer, ChatError, Prompt, Sampling};
use crate::progress;
use crate::server::path_segment;
use crate::terminal;
use crate::verbs::completion;
use conversation::{Conversation, HELP, Meaning, meaning};
use input::{Heard, Input};

/// What a small model still talks sense with. A request without them is drawn as OpenAI does, at temperature 1.
const DEFAULT_TEMPERATURE: f32 = 0.7;
const DEFAULT_MIN_P: f32 = 0.1;

/// Talk to a deployment: `chat smollm2 "What is the capital of France?"`. Without a question it is a conversation.
#[derive(Debug, Args)]
pub struct Chat {
    /// Name of an InferenceDeployment
    #[arg(add = completion::deployments())]
    deployment: String,
    /// The question; - reads it from standard input
    question: Option<String>,
    /// The endpoint's base URL, such as http://127.0.0.1:8080/v1, instead of the deployment's own
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The most tokens of an answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token always; higher values vary more
    #[arg(long, value_name = "T", default_value_t = DEFAULT_TEMPERATURE, value_parser = temperature)]
    temperature: f32,
    /// Draw only from tokens that have this share of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = DEFAULT_MIN_P, value_parser = share)]
    min_p: f32,
    /// Draw only from the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", value_parser = share)]
    top_p: Option<f32>,
    /// Makes the draw repeatable
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<i64>,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on with the text rather than answer it: what a model without a chat template can do
    #[arg(long, requires = "question", conflicts_with = "system")]
    complete: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    numbers::within(text, 0.0, 2.0)
}

fn share(text: &str) -> Result<f32, String> {
    numbers::within(text, 0.0, 1.0)
}

/// Where answers come from.
struct Endpoint {
    client: reqwest::Client,
    url: String,
    /// As clients name the deployment.
    model: String,
    connection: Option<Connection>,
    namespace: String,
    deployment: String,
}

// === impl Chat ===

impl Chat {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let endpoint = self.endpoint(&cluster).await?;
        let mut conversation = Conversation::new(self.system.clone());
        let question = match self.question.as_deref() {
            Some("-") => Some(input::whole()?),
            question => question.map(str::to_owned),
        };
        match question {
            Some(text) if self.complete => {
                self.answer(&endpoint, Prompt::Text(&text), &mut String::new()).await?;
                Ok(ExitCode::SUCCESS)
            }
            Some(question) => {
                conversation.ask(&question);
                let answer = self.answer(&endpoint, Prompt::Chat(&conversation.messages()), &mut String::new()).await;
                answer.map_err(|error| noted(error, &conversation, &self.deployment))?;
                Ok(ExitCode::SUCCESS)
            }
            None => self.converse(&endpoint, conversation).await,
        }
    }

    /// The deployment's own endpoint by its status, or the one that --url names.
    async fn endpoint(&self, cluster: &ClusterFlags) -> anyhow::Result<Endpoint> {
        let deployment = self.deployment.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(url) = &self.url {
            // Without a cluster there is an answer all the same, only not who gave it.
            let connection = cluster.connect().await.ok();
            let namespace =
                connection.as_ref().map_or_else(|| "default".to_owned(), |connection| connection.namespace.clone());
            return Ok(Endpoint {
                client: openai::client(url, false)?,
                url: url.clone(),
                model: model_id(&namespace, &deployment),
                connection,
                namespace,
                deployment,
            });
        }
        let connection = cluster.connect().await?;
        let namespace = connection.namespace.clone();
        let (group, version) = (polyphony_api::GROUP, polyphony_api::VERSION);
        let path = format!(
            "/apis/{group}/{version}/namespaces/{}/inferencedeployments/{}",
            path_segment(&namespace),
            path_segment(&deployment)
        );
        let object = connection.server.get(&path).await?;
        let url = match object["status"]["url"].as_str() {
            Some(url) if is_available(&object) => url.to_owned(),
            // The gateway keeps who comes while a plan is on its way onto phones.
            Some(url) if reason_of(&object) == Some("Loading") => {
                tell!("{deployment} is still loading; the answer comes when it is ready");
                url.to_owned()
            }
            _ => return Err(unavailable(&deployment, cluster.namespace.as_deref(), &object).into()),
        };
        Ok(Endpoint {
            client: openai::client(&url, true)?,
            url,
            model: model_id(&namespace, &deployment),
            connection: Some(connection),
            namespace,
            deployment,
        })
    }

    async fn converse(&self, endpoint: &Endpoint, mut conversation: Conversation) -> anyhow::Result<ExitCode> {
        let mut input = Input::open();
        let is_person = input.is_person;
        if is_person {
            tell!("Talking to {}. /help shows what else can be said.", endpoint.deployment);
        }
        loop {
            let line = match input.next().await? {
                Heard::Line(line) => line,
                Heard::Interrupted => {
                    tell!("(/exit or Ctrl-D ends)");
                    continue;
                }
                Heard::End => return Ok(ExitCode::SUCCESS),
            };
            match meaning(&line) {
                Meaning::Nothing => {}
                Meaning::Exit => return Ok(ExitCode::SUCCESS),
                Meaning::Help => tell!("{HELP}"),
                Meaning::Unknown(told) => tell!("{told}"),
                Meaning::Clear => {
                    conversation.clear();
                    tell!("(forgotten)");
                }
                Meaning::System("") => {
                    tell!("{}", conversation.system().unwrap_or("(the model is told nothing before)"))
                }
                Meaning::System(text) => {
                    conversation.set_system(text);
                    tell!("(the model is told this before what you say)");
                }
                Meaning::Say(text) => {
                    conversation.ask(text);
                    let mut said = String::new();
                    let messages = conversation.messages();
                    let outcome = tokio::select! {
                        outcome = self.answer(endpoint, Prompt::Chat(&messages), &mut said) => Some(outcome),
                        _ = tokio::signal::ctrl_c() => None,
                    };
                    match outcome {
                        Some(Ok(_)) => {}
                        // A conversation outlives an answer that failed.
                        Some(Err(error)) if is_person => {
                            tell!("{}", describe(&noted(error, &conversation, &self.deployment)));
                            said.clear();
                        }
                        Some(Err(error)) => return Err(noted(error, &conversation, &self.deployment)),
                        None => tell!("\n(stopped)"),
                    }
                    conversation.answered(&said);
                }
            }
        }
    }

    /// `said` holds what came so far, whatever becomes of the rest.
    async fn answer(&self, endpoint: &Endpoint, prompt: Prompt<'_>, said: &mut String) -> anyhow::Result<Answer> {
        let sampling = Sampling {
            max_tokens: self.max_tokens,
            temperature: Some(self.temperature),
            min_p: Some(self.min_p),
            top_p: self.top_p,
            seed: self.seed,
        };
        let show = |text: &str| {
            said.push_str(text);
            let mut out = io::stdout().lock();
            // A model may say anything, and a person's terminal would obey.
            let shown = if out.is_terminal() { terminal::lines(text) } else { text.into() };
            out.write_all(shown.as_bytes())?;
            out.flush()
        };
        let result = openai::ask(&endpoint.client, &endpoint.url, &endpoint.model, prompt, &sampling, show).await;
        if let Ok(Answer { text, .. }) = &result
            && !text.ends_with('\n')
        {
            writeln!(io::stdout())?;
        }
        let answer = result?;
        let mut parts = vec![answer.timing.summary()];
        parts.extend(endpoint.phones().await);
        if answer.finish_reason.as_deref() == Some("length") {
            parts.push("cut at the token limit (--max-tokens, contextLength)".to_owned());
        }
        let summary = terminal::line(&parts.join(" · ")).into_owned();
        if io::stderr().is_terminal() {
            tell!("\x1b[2m{summary}\x1b[0m");
        } else {
            tell!("{summary}");
        }
        Ok(answer)
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Who answered, as far as the placements tell.
    async fn phones(&self) -> Option<String> {
        let server = &self.connection.as_ref()?.server;
        let placements = server.list(&progress::placements_path(&self.namespace, &self.deployment)).await.ok()?;
        ring_text(&placements)
    }
}

/// Deployments outside `default` are named with their namespace.
fn model_id(namespace: &str, deployment: &str) -> String {
    if namespace == "default" { deployment.to_owned() } else { format!("{namespace}/{deployment}") }
}

fn is_available(object: &Value) -> bool {
    available(object).is_some_and(|condition| condition["status"] == "True")
}

fn available(object: &Value) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Available")
}

/// Why it is as it is with the deployment's availability.
fn reason_of(object: &Value) -> Option<&str> {
    available(object)?["reason"].as_str()
}

/// A conversation that no longer fits into the context is told how it is shortened, and one with a model that takes none what it can do.
fn noted(error: anyhow::Error, conversation: &Conversation, deployment: &str) -> anyhow::Error {
    let Some(ChatError::Refused { code: Some(code), .. }) = error.downcast_ref::<ChatError>() else { return error };
    let note = match code.as_str() {
        "context_length_exceeded" if conversation.has_past() => "/clear forgets the conversation".to_owned(),
        "no_chat_template" => {
            format!(
                "with --complete it goes on with a text: `polyctl chat {deployment} --complete \"Once upon a time\"`"
            )
        }
        _ => return error,
    };
    let failure = Box::new(Failure::Request(error.to_string()));
    Failure::Noted { failure, notes: vec![note] }.into()
}

/// Reasons against a deployment that go away without anybody's help; the others ask for phones, memory or another spec.
const PASSING: [&str; 6] =
    ["Loading", "ModelNotResolved", "ModelVerifying", "SegmentFailed", "Serving", "WaitingForPhones"];

/// `asked_namespace` is that of -n, which the advice has to repeat.
fn unavailable(deployment: &str, asked_namespace: Option<&str>, object: &Value) -> Failure {
    let passes = reason_of(object).is_none_or(|reason| PASSING.contains(&reason));
    let why = match available(object) {
        Some(condition) => {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            format!("Available={} ({}): {}", text("status"), text("reason"), text("message"))
        }
        None => "the controller has not looked at it yet".to_owned(),
    };
    let yet = if passes { " yet" } else { "" };
    let failure = Failure::Request(format!("inferencedeployment {deployment:?} does not answer{yet}: {why}"));
    let place = asked_namespace.map_or_else(String::new, |namespace| format!("-n {namespace} "));
    let remedy = if passes {
        format!("wait for it with `polyctl {place}wait infer/{deployment} --for=condition=Available --timeout=5m`")
    } else {
        format!("waiting alone does not mend that: `polyctl {place}describe infer/{deployment}` shows more")
    };
    Failure::Noted { failure: Box::new(failure), notes: vec![remedy] }
}

/// `phones phone-1 → phone-2 (generation 1)`: the newest ring that is Ready throughout. Of several replicas the gateway
/// chose one and does not say which: then all are named.
fn ring_text(placements: &[Value]) -> Option<String> {
    let number = |placement: &Value, field: &str| placement["spec"][field].as_u64();
    let mut rings: BTreeMap<(Option<u64>, Option<u64>), Vec<&Value>> = BTreeMap::new();
    for placement in placements {
        let ring = (number(placement, "replica"), number(placement, "planGeneration"));
        rings.entry(ring).or_default().push(placement);
    }
    rings.retain(|_, ring| ring.iter().all(|placement| placement["status"]["phase"] == "Ready"));
    // Later generations come later, and take the place of earlier ones.
    let newest: BTreeMap<_, _> =
        rings.into_iter().map(|((replica, generation), ring)| (replica, (generation, ring))).collect();
    let texts: Vec<String> = newest
        .into_values()
        .map(|(generation, mut ring)| {
            ring.sort_by_key(|placement| number(placement, "stage"));
            let phones: Vec<&str> = ring.iter().filter_map(|placement| placement["spec"]["phone"].as_str()).collect();
            format!("{} (generation {})", phones.join(" → "), generation.unwrap_or(0))
        })
        .collect();
    (!texts.is_empty()).then(|| format!("phones {}", texts.join(" or ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn placement(generation: u64, stage: u64, phone: &str, phase: &str) -> Value {
        json!({"spec": {"replica": 0, "planGeneration": generation, "stage": stage, "phone": phone}, "status": {"phase": phase}})
    }

    #[test]
    fn the_ring_that_answers_is_the_newest_that_is_ready() {
        let mut placements =
            vec![placement(1, 1, "b", "Ready"), placement(1, 0, "a", "Ready"), placement(2, 0, "c", "Loading")];
        assert_eq!(ring_text(&placements).as_deref(), Some("phones a → b (generation 1)"));
        placements[2] = placement(2, 0, "c", "Ready");
        assert_eq!(ring_text(&placements).as_deref(), Some("phones c (generation 2)"));
        let mut other = placement(4, 0, "d", "Ready");
        other["spec"]["replica"] = json!(1);
        placements.push(other);
        assert_eq!(ring_text(&placements).as_deref(), Some("phones c (generation 2) or d (generation 4)"));
        assert_eq!(ring_text(&[]), None);
    }

    #[test]
    fn a_deployment_that_cannot_answer_says_why() {
        let of = |reason: &str| json!({"status": {"url": "u", "conditions": [{"type": "Available", "status": "False", "reason": reason, "message": "m"}]}});
        assert!(!is_available(&of("Loading")));
        assert_eq!((reason_of(&of("Loading")), reason_of(&json!({}))), (Some("Loading"), None));
        for (namespace, object, parts) in [
            (
                None,
                of("Loading"),
                ["does not answer yet: Available=False (Loading): m", "`polyctl wait infer/smollm2 "],
            ),
            (Some("lab"), of("Loading"), ["does not answer yet", "`polyctl -n lab wait infer/smollm2 "]),
            (Some("lab"), of("InsufficientMemory"), ["does not answer: ", "`polyctl -n lab describe infer/smollm2`"]),
            (None, of("ScaledToZero"), ["does not answer: ", "`polyctl describe infer/smollm2`"]),
            (None, json!({}), ["has not looked at it yet", "`polyctl wait infer/smollm2 "]),
        ] {
            let text = unavailable("smollm2", namespace, &object).to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
        }
    }

    #[test]
    fn a_model_without_a_template_for_chats_is_told_what_it_can_do() {
        let refused = |code: &str| ChatError::Refused {
            url: "u".into(),
            status: 400,
            message: "m".into(),
            code: Some(code.to_owned()),
        };
        let told = |code| noted(refused(code).into(), &Conversation::default(), "gemma").to_string();
        assert!(told("no_chat_template").contains("`polyctl chat gemma --complete "), "{}", told("no_chat_template"));
        assert_eq!(told("context_length_exceeded"), "u answered 400: m", "nothing was said before");
    }

    #[test]
    fn deployments_outside_default_carry_their_namespace() {
        assert_eq!((model_id("default", "a").as_str(), model_id("lab", "a").as_str()), ("a", "lab/a"));
    }
}
