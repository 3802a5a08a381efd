//! The agent in an app: started, told of its phone, asked and ended by calls, on a thread of its own. Android ends child processes of apps.

mod code;
mod status;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use polyphony_identity::{JoinLink, JoinLinkError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::Terms;
use crate::board::Board;
use crate::hub_address::{self, HubAddressError};
use crate::identity::has_papers;
use crate::invocation::Request;
use crate::join::membership::Membership;
use crate::join::{self, Patience};
use crate::told::Told;

pub use code::read as read_code;
use status::Tempo;
pub use status::{State, Status};

/// The one agent of an app, whether it runs or not.
#[derive(Default)]
pub struct App {
    told: watch::Sender<Told>,
    agent: Mutex<Agent>,
    /// Wakes whoever waits for the end of an agent that is ending.
    ended: Condvar,
}

/// What there is of the agent.
#[derive(Default)]
enum Agent {
    #[default]
    None,
    Running(Life, JoinHandle<String>),
    /// It was asked to end, and has its data folder still. Who asked first holds its thread.
    Ending(Life),
    /// As it ended: by itself, or because it was asked to.
    Ended(Status),
}

/// One agent's, from its start to its end. The outcome of its thread is why it ended.
#[derive(Clone)]
struct Life {
    shutdown: CancellationToken,
    board: Arc<Board>,
    tempo: Tempo,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Link(#[from] LinkFault),
    #[error("it runs already")]
    Runs,
    #[error("it was asked to end, and has not ended yet: start it again in a moment")]
    Ends,
    #[error("the system gives no thread: {0}")]
    Thread(std::io::Error),
}

/// Why nobody can join by a text.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    #[error(transparent)]
    Link(#[from] JoinLinkError),
    #[error(transparent)]
    Hub(#[from] HubAddressError),
}

/// What an app says is not what it is to be.
#[derive(Debug, thiserror::Error)]
#[error("the app says of its phone what is none of an agent's: {0}")]
pub struct TellError(serde_json::Error);

/// How long a host may take to move away what is here when the agent leaves.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What still works when the agent has ended is over by then, or is cut short.
const LAST_WORK: Duration = Duration::from_secs(2);
/// The journal's, in the app's own folder.
const LOG_FILE: &str = "agent.log";

// === impl App ===

impl App {
    /// Starts the agent on what `data_dir` holds, and returns at once: whether it comes as far as the host, [`App::status`] says. Without a link,
    /// or with one of a host that it has joined, it joins again as before, and waits for the host for ever.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, data_dir: &Path, name: &str, link: Option<&str>) -> Result<(), StartError> {
        static JOURNAL: Once = Once::new();
        let link = link.map(read_link).transpose()?;
        let mut agent = self.lock();
        agent.settle();
        match *agent {
            Agent::None | Agent::Ended(_) => {}
            Agent::Running(..) => return Err(StartError::Runs),
            Agent::Ending(_) => return Err(StartError::Ends),
        }
        JOURNAL.call_once(|| polyphony_journal::begin_within("info", &data_dir.join(LOG_FILE)));
        let (shutdown, board) = (CancellationToken::new(), Arc::new(Board::default()));
        let terms = Terms { board: board.clone(), told: Some(self.told.subscribe()), ..Terms::until(shutdown.clone()) };
        let (request, patience) = request(data_dir.to_owned(), name, link);
        let life = move || live(request, patience, terms);
        let thread = std::thread::Builder::new().name("polyphony".into()).spawn(life).map_err(StartError::Thread)?;
        *agent = Agent::Running(Life { shutdown, board, tempo: Tempo::default() }, thread);
        Ok(())
    }

    /// Ends the agent, and returns when it has ended, whoever asked first. One that `leaves` has its host move away first what it holds, which takes
    /// some seconds; who asks meanwhile and does not want it to leave cuts that short.
    pub fn stop(&self, leaves: bool) {
        let mut agent = self.lock();
        agent.settle();
        match std::mem::take(&mut *agent) {
            Agent::Running(life, thread) => {
                *agent = Agent::Ending(life.clone());
                // Who asks how it is meanwhile is not kept waiting.
                drop(agent);
                self.end(&life, thread, leaves);
            }
            Agent::Ending(life) => {
                if !leaves {
                    life.shutdown.cancel();
                }
                *agent = Agent::Ending(life);
                let is_ending = |agent: &mut Agent| matches!(agent, Agent::Ending(_));
                drop(self.ended.wait_while(agent, is_ending).unwrap_or_else(PoisonError::into_inner));
            }
            over => *agent = over,
        }
    }

    /// Of an agent that is [`Agent::Ending`]: until then nothing begins in its data folder.
    fn end(&self, life: &Life, thread: JoinHandle<String>, leaves: bool) {
        if leaves {
            self.told.send_modify(|told| told.leaving = true);
            life.wait_until_left();
        }
        life.shutdown.cancel();
        // Of a thread that panicked nothing is left to wait for.
        let _ = thread.join();
        self.told.send_modify(|told| told.leaving = false);
        // Who leaves before anybody has looked has joined all the same.
        let has_joined = life.board.host().has_joined;
        *self.lock() = Agent::Ended(Status { has_joined, ..Status::stopped("") });
        self.ended.notify_all();
    }

    /// Takes in what the app knows of the phone, the whole of it each time, whether the agent runs or not.
    ///
    /// # Errors
    /// When it is no object of JSON.
    pub fn tell(&self, json: &str) -> Result<(), TellError> {
        let mut read = Ok(());
        self.told.send_if_modified(|before| match Told::read(json, before) {
            Ok(told) => {
                *before = told;
                true
            }
            Err(error) => {
                read = Err(TellError(error));
                false
            }
        });
        read
    }

    /// How the agent is now.
    pub fn status(&self) -> Status {
        let mut agent = self.lock();
        agent.settle();
        match &mut *agent {
            Agent::None => Status::stopped(""),
            Agent::Ended(status) => status.clone(),
            Agent::Running(life, _) => self.status_of(life),
            Agent::Ending(life) => Status { state: State::Ending, message: None, ..self.status_of(life) },
        }
    }

    fn status_of(&self, life: &mut Life) -> Status {
        let celsius = self.told.borrow().battery().temperature_celsius;
        Status::of(&life.board, &mut life.tempo, celsius, Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Agent> {
        // Nobody leaves it half-way through a change.
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Agent ===

impl Agent {
    /// One that has ended by itself has ended.
    fn settle(&mut self) {
        if !matches!(self, Self::Running(_, thread) if thread.is_finished()) {
            return;
        }
        if let Self::Running(life, thread) = std::mem::take(self) {
            let why = thread.join().unwrap_or_else(|_| {
                "the agent has broken down, which is a fault of Polyphony's: its log says where; start it again"
                    .to_owned()
            });
            *self = Self::Ended(Status { has_joined: life.board.host().has_joined, ..Status::stopped(&why) });
        }
    }
}

// === impl Life ===

impl Life {
    /// Until its host has moved away what it holds, is not there to do so, or has had its time; or somebody wants it to end at once.
    fn wait_until_left(&self) {
        let begun = Instant::now();
        let may_wait = || !self.shutdown.is_cancelled() && begun.elapsed() < LEAVE_WITHIN;
        while self.board.host().is_there && !self.board.segments().is_empty() && may_wait() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A join link that can be joined by, as far as it can be told without a network.
///
/// # Errors
/// [`LinkFault`].
pub fn read_link(text: &str) -> Result<JoinLink, LinkFault> {
    let link: JoinLink = text.parse()?;
    hub_address::parse(&link.hub, None)?;
    Ok(link)
}

/// What is asked of `join`: a person waits where this phone is new to a host.
fn request(data_dir: PathBuf, name: &str, link: Option<JoinLink>) -> (Request, Patience) {
    let remembers = Membership::read(&data_dir).is_ok_and(|membership| membership.is_some());
    let is_known = remembers && has_papers(&data_dir, link.as_ref().map(|link| &link.ca_hash));
    let flags = [("name".to_owned(), name.to_owned())].into();
    let mut request = Request { data_dir: Some(data_dir), flags, ..Request::default() };
    if let Some(link) = link {
        (request.address, request.ca_hash, request.token) = (Some(link.hub), Some(link.ca_hash), Some(link.token));
    }
    (request, if is_known { Patience::ForEver } else { Patience::Once })
}

/// The agent's life; why it ended.
fn live(request: Request, patience: Patience, terms: Terms) -> String {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return format!("the system gives no threads: {error}"),
    };
    let ended = runtime.block_on(join::run(request, patience, terms));
    // A driver may hold a thread for ever.
    runtime.shutdown_timeout(LAST_WORK);
    ended.map_or_else(|error| format!("{error:#}"), |()| String::new())
}

#[cfg(test)]
mod tests;
