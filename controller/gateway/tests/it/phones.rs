//! Doubles of phones: rings that answer every prompt with a script, keep to their credit, and fail when told to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use polyphony_gateway::{Gateway, PhoneLinks, Unsent};
use polyphony_protocol::frame::{Failed, FailureCode, Finish, Prompt, Resume, Token};
use polyphony_protocol::session::SessionOptions;
use polyphony_protocol::{Frame, PlanGeneration, RingId, RouteKey, SessionId};
use tokio::sync::mpsc;

/// One step of a ring: the next token of a session.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub key: RouteKey,
    /// Counts the answer's tokens from 0, over all epochs.
    pub idx: u32,
}

/// What the ring does at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sends the token, as it should.
    Token,
    /// Sends it twice.
    Twice,
    /// Sends nothing, now and later.
    Hold,
    /// Sends the token after it instead.
    Skip,
    /// Sends it over the link of the head, which has no say in it.
    FromHead,
    /// First sends wrong tokens of the epoch before.
    AfterOldOnes,
    /// A stage reports a failure.
    Fail(FailureCode),
    /// This phone's link ends.
    Gone(&'static str),
}

/// Where a move gets stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The head does not answer a pause.
    Pausing,
    /// This stage of the next ring does not say that it can go on.
    Resuming(u32),
    /// A stage of the next ring could not get the KV cache.
    Failed,
    /// This phone's link ends when the next ring is asked to take over.
    Gone(&'static str),
}

type Hook = Box<dyn Fn(Step) -> Act + Send + Sync>;

/// All phones of a test.
pub struct Phones {
    sent: mpsc::UnboundedSender<Frame>,
    pub log: Mutex<Vec<(String, Frame)>>,
    gone: Mutex<HashSet<String>>,
    rings: HashMap<(RingId, PlanGeneration), Vec<String>>,
    script: Vec<u32>,
    end_token: u32,
    hook: Hook,
    pub stuck: Mutex<Option<Stuck>>,
    gateway: OnceLock<Arc<Gateway>>,
}

/// A session as the ring knows it.
struct Held {
    options: SessionOptions,
    position: u32,
    granted_until: u32,
    is_over: bool,
    /// Where it goes on, if it came here from elsewhere.
    resumed_at: u32,
}

// === impl Phones ===

impl Phones {
    /// `rings` with their phones by stage; the answer is `script`, then `end_token`.
    pub fn new(
        rings: HashMap<(RingId, PlanGeneration), Vec<String>>,
        script: Vec<u32>,
        end_token: u32,
        hook: Hook,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Frame>) {
        let (sent, frames) = mpsc::unbounded_channel();
        let (log, gone, stuck, gateway) = Default::default();
        (Arc::new(Self { sent, log, gone, rings, script, end_token, hook, stuck, gateway }), frames)
    }

    pub fn serve(self: &Arc<Self>, gateway: Arc<Gateway>, mut frames: mpsc::UnboundedReceiver<Frame>) {
        assert!(self.gateway.set(gateway).is_ok());
        let phones = Arc::clone(self);
        tokio::spawn(async move {
            let mut held: HashMap<RouteKey, Held> = HashMap::new();
            let mut begun: HashMap<SessionId, u32> = HashMap::new();
            while let Some(frame) = frames.recv().await {
                match frame {
                    Frame::Open { key, options } => {
                        held.insert(key, Held::new(options, 0));
                    }
                    Frame::Resume(resume) => {
                        let old = RouteKey { generation: resume.from, epoch: resume.from_epoch, ..resume.key };
                        assert_eq!(held[&old].position, resume.position + 1, "all but the last token is computed");
                        held.insert(resume.key, Held::new(resume.options, resume.position));
                        phones.resume(resume.key, resume.position);
                    }
                    Frame::Pause { key } => {
                        let session = held.get_mut(&key).expect("a pause is for open sessions");
                        session.is_over = true;
                        if phones.stuck() != Some(Stuck::Pausing) {
                            let position = session.position - 1;
                            phones.said_by(key, 0, Frame::Paused { key, position });
                        }
                    }
                    Frame::Prompt(Prompt { key, position, tokens, credit }) => {
                        let session = held.get_mut(&key).expect("a prompt comes after its open");
                        assert_eq!(position, session.resumed_at);
                        session.position = position + tokens.len() as u32;
                        session.granted_until = session.position + credit;
                        begun.entry(key.session).or_insert(session.position);
                    }
                    Frame::Credit { key, steps } => {
                        held.get_mut(&key).expect("credit is for open sessions").granted_until += steps
                    }
                    Frame::Close { key } => drop(held.remove(&key)),
                    other => panic!("the gateway sent {other:?}"),
                }
                for (key, session) in &mut held {
                    if let Some(begun) = begun.get(&key.session).filter(|_| session.position > 0) {
                        phones.run(*key, *begun, session);
                    }
                }
            }
        });
    }

    fn stuck(&self) -> Option<Stuck> {
        *self.stuck.lock().unwrap()
    }

    fn said_by(&self, key: RouteKey, stage: u32, frame: Frame) {
        let phone = &self.rings[&(key.ring, key.generation)][stage as usize];
        self.gateway.get().unwrap().deliver(phone, frame);
    }

    fn resume(&self, key: RouteKey, position: u32) {
        for stage in 0..self.rings[&(key.ring, key.generation)].len() as u32 {
            match self.stuck() {
                Some(Stuck::Gone(phone)) => return self.lose(phone),
                Some(Stuck::Failed) => {
                    let message = "the owner is gone".to_owned();
                    let failed = Failed { key, code: FailureCode::HandOver, message };
                    return self.said_by(key, stage, Frame::Failed(failed));
                }
                Some(Stuck::Resuming(silent)) if silent == stage => {}
                _ => self.said_by(key, stage, Frame::Resumed { key, stage, position }),
            }
        }
    }

    fn run(&self, key: RouteKey, begun: u32, session: &mut Held) {
        let gateway = self.gateway.get().unwrap();
        let phones = &self.rings[&(key.ring, key.generation)];
        let (head, tail) = (phones.first().unwrap(), phones.last().unwrap());
        while !session.is_over && session.position < session.granted_until {
            let token = |position: u32| {
                let is_end = (position - begun) as usize >= self.script.len();
                let token = match is_end {
                    false => self.script[(position - begun) as usize],
                    true => self.end_token,
                };
                let finish = match position + 1 == session.options.end_position {
                    _ if session.options.end_tokens.contains(&token) => Some(Finish::Stop),
                    is_full => is_full.then_some(Finish::Length),
                };
                let n_top = u32::from(session.options.top_logprobs);
                let top = (0..n_top).map(|n| ((token + n) % 256, -0.5 - n as f32)).collect();
                Token { key, position, token, finish, logprob: -0.5, top }
            };
            let idx = session.position - begun;
            let mut next = token(session.position);
            match (self.hook)(Step { key, idx }) {
                Act::Token => {}
                Act::Twice => gateway.deliver(tail, Frame::Token(next.clone())),
                Act::Hold => return,
                Act::Skip => next = token(session.position + 1),
                Act::FromHead => gateway.deliver(head, Frame::Token(Token { token: 0, ..next.clone() })),
                Act::AfterOldOnes => {
                    let old = RouteKey { epoch: polyphony_protocol::Epoch(key.epoch.0 - 1), ..key };
                    for position in begun..session.position + 3 {
                        gateway.deliver(tail, Frame::Token(Token { key: old, position, token: 0, ..next.clone() }));
                    }
                }
                Act::Fail(code) => {
                    let message = "told to by the test".to_owned();
                    gateway.deliver(tail, Frame::Failed(Failed { key, code, message }));
                    session.is_over = true;
                    return;
                }
                Act::Gone(phone) => {
                    self.lose(phone);
                    session.is_over = true;
                    return;
                }
            }
            session.is_over = next.finish.is_some();
            session.position += 1;
            gateway.deliver(tail, Frame::Token(next));
        }
    }

    /// Ends a phone's link.
    pub fn lose(&self, phone: &str) {
        self.gone.lock().unwrap().insert(phone.to_owned());
        self.gateway.get().unwrap().phone_gone(phone);
    }

    /// What `pick` makes of the frames so far.
    pub fn frames<T>(&self, pick: impl Fn(&Frame) -> Option<T>) -> Vec<T> {
        self.log.lock().unwrap().iter().filter_map(|(_, frame)| pick(frame)).collect()
    }

    pub fn prompts(&self) -> Vec<Prompt> {
        self.frames(|frame| match frame {
            Frame::Prompt(prompt) => Some(prompt.clone()),
            _ => None,
        })
    }

    pub fn resumes(&self) -> Vec<Resume> {
        self.frames(|frame| match frame {
            Frame::Resume(resume) => Some(resume.clone()),
            _ => None,
        })
    }

    pub fn options(&self) -> Vec<SessionOptions> {
        self.frames(|frame| match frame {
            Frame::Open { options, .. } => Some(options.clone()),
            _ => None,
        })
    }

    pub fn closed(&self) -> Vec<RouteKey> {
        self.frames(|frame| match frame {
            Frame::Close { key } => Some(*key),
            _ => None,
        })
    }

    /// Steps that a session has been granted.
    pub fn granted(&self, session: SessionId) -> u32 {
        let steps = |frame: &Frame| match frame {
            Frame::Prompt(prompt) if prompt.key.session == session => Some(prompt.credit),
            Frame::Credit { key, steps } if key.session == session => Some(*steps),
            _ => None,
        };
        self.frames(steps).into_iter().sum()
    }
}

impl Held {
    fn new(options: SessionOptions, resumed_at: u32) -> Self {
        Self { options, position: 0, granted_until: 0, is_over: false, resumed_at }
    }
}

impl PhoneLinks for Phones {
    fn send(&self, phone: &str, frame: Frame) -> Result<(), Unsent> {
        if self.gone.lock().unwrap().contains(phone) {
            return Err(Unsent::Gone(phone.to_owned()));
        }
        self.log.lock().unwrap().push((phone.to_owned(), frame.clone()));
        self.sent.send(frame).map_err(|_| Unsent::Gone(phone.to_owned()))
    }
}
