//! The agent in an app: started, told of its phone, asked and ended by calls, on a thread of its own. Android ends child processes of apps.

mod code;
mod status;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use polyphony_identity::{JoinLink, JoinLinkError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::Terms;
use crate::board::Board;
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
}

/// What there is of the agent.
#[derive(Default)]
enum Agent {
    #[default]
    None,
    Running(Running),
    /// Why, for people; empty where it was asked to.
    Ended(String),
}

struct Running {
    shutdown: CancellationToken,
    board: Arc<Board>,
    tempo: Tempo,
    /// Its outcome is why it ended.
    thread: JoinHandle<String>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Link(#[from] JoinLinkError),
    #[error("it runs already")]
    Runs,
    #[error("the system gives no thread: {0}")]
    Thread(std::io::Error),
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
        let link: Option<JoinLink> = link.map(str::parse).transpose()?;
        let mut agent = self.lock();
        agent.settle();
        if matches!(*agent, Agent::Running(_)) {
            return Err(StartError::Runs);
        }
        JOURNAL.call_once(|| polyphony_journal::begin_within("info", &data_dir.join(LOG_FILE)));
        let (shutdown, board) = (CancellationToken::new(), Arc::new(Board::default()));
        let terms = Terms { board: board.clone(), told: Some(self.told.subscribe()), ..Terms::until(shutdown.clone()) };
        let (request, patience) = request(data_dir.to_owned(), name, link);
        let life = move || live(request, patience, terms);
        let thread = std::thread::Builder::new().name("polyphony".into()).spawn(life).map_err(StartError::Thread)?;
        *agent = Agent::Running(Running { shutdown, board, tempo: Tempo::default(), thread });
        Ok(())
    }

    /// Ends the agent, and returns when it has ended. One that `leaves` has its host move away first what it holds, which takes some seconds.
    pub fn stop(&self, leaves: bool) {
        let board = match &*self.lock() {
            Agent::Running(running) => running.board.clone(),
            _ => return,
        };
        if leaves {
            self.told.send_modify(|told| told.leaving = true);
            self.wait_until_left(&board);
        }
        // Whoever asks meanwhile is not kept waiting.
        let ended = std::mem::replace(&mut *self.lock(), Agent::Ended(String::new()));
        if let Agent::Running(running) = ended {
            running.shutdown.cancel();
            // Of a thread that panicked nothing is left to wait for.
            let _ = running.thread.join();
        }
        self.told.send_modify(|told| told.leaving = false);
    }

    fn wait_until_left(&self, board: &Board) {
        let begun = Instant::now();
        while board.host().is_there && !board.segments().is_empty() && begun.elapsed() < LEAVE_WITHIN {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes in what the app knows of the phone, the whole of it each time, whether the agent runs or not.
    ///
    /// # Errors
    /// When it is not what [`Told`] is.
    pub fn tell(&self, json: &str) -> Result<(), TellError> {
        let told = Told::read(json, &self.told.borrow()).map_err(TellError)?;
        self.told.send_replace(told);
        Ok(())
    }

    /// How the agent is now.
    pub fn status(&self) -> Status {
        let mut agent = self.lock();
        agent.settle();
        match &mut *agent {
            Agent::None => Status::stopped(""),
            Agent::Ended(why) => Status::stopped(why),
            Agent::Running(running) => {
                let told = self.told.borrow();
                Status::of(&running.board, &mut running.tempo, told.battery().temperature_celsius, Instant::now())
            }
        }
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
        if !matches!(self, Self::Running(running) if running.thread.is_finished()) {
            return;
        }
        if let Self::Running(running) = std::mem::take(self) {
            *self = Self::Ended(running.thread.join().unwrap_or_else(|_| {
                "the agent has broken down, which is a fault of Polyphony's: its log says where; start it again"
                    .to_owned()
            }));
        }
    }
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
