//! Links to a segment whose thread hangs, over real sockets.
#![allow(clippy::unwrap_used)]

use polyphony_identity::{DEFAULT_DOMAIN, Name, Whom};
use polyphony_protocol::hub::{Holds, Peer};
use polyphony_protocol::{ActivationType, Epoch, PlanGeneration, RingId, RouteKey, SessionId};
use polyphony_wire::{Bounds, Security, Uncounted};

use super::*;
use crate::serve::calls::{Calls, Inbox, calls};
use crate::serve::compute::{AttachmentId, Call};

/// Whatever a test waits for comes within this on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Never over in a test.
const LONG: Duration = Duration::from_secs(3600);
const GENERATION: PlanGeneration = PlanGeneration(1);
const N_PLACES: usize = 2;

/// The second stage of a ring of two, whose thread is the test.
struct Stage {
    ring: RingId,
    calls: Calls<Call>,
    inbox: Inbox<Call>,
    _assignment: watch::Sender<Assignment>,
}

struct Phone {
    members: Members,
    wire: Wire,
    address: String,
    board: Board,
    shutdown: CancellationToken,
    _neighbours: watch::Sender<Neighbours>,
}

fn assignment(ring: RingId) -> Assignment {
    let peer = |stage: u32| Peer {
        stage,
        phone: format!("phone-{stage}"),
        ways: Vec::new(),
        key: String::new(),
        layers: None,
    };
    Assignment {
        namespace: "default".into(),
        name: format!("chat-{ring}"),
        ring,
        generation: GENERATION,
        plan_digest: String::new(),
        stage: 1,
        holds: Holds { embedding: false, from: 2, to: 4, head: true },
        peers: vec![peer(0), peer(1)],
        manifest_digest: String::new(),
        context_length: 64,
        max_sessions: 1,
        session_groups: 0,
        activation_type: ActivationType::F16,
        numerics_class: String::new(),
        standby: None,
        follows: None,
        successors: Vec::new(),
        encoder: None,
    }
}

fn credit(ring: RingId) -> Frame {
    let key = RouteKey { ring, generation: GENERATION, session: SessionId(1), epoch: Epoch(1) };
    Frame::Credit { key, steps: 1 }
}

// === impl Phone ===

impl Phone {
    async fn open() -> Self {
        let wire = Wire::new(Bounds::default(), Arc::new(Uncounted), Security::Plain);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, members) = (listener.local_addr().unwrap().to_string(), Members::default());
        let (shutdown, (neighbours, known)) = (CancellationToken::new(), watch::channel(Neighbours::default()));
        tokio::spawn(listen(listener, mpsc::channel(1).1, members.clone(), known, wire.clone(), shutdown.clone()));
        Self { members, wire, address, board: Board::default(), shutdown, _neighbours: neighbours }
    }

    /// A stage whose thread may take no call for so long.
    fn stage(&self, ring: u64, patience: Duration) -> Stage {
        let ring = RingId(ring);
        let (calls, inbox) = calls(N_PLACES, patience);
        let (sender, receiver) = watch::channel(assignment(ring));
        let compute = Compute::new(GENERATION, AttachmentId(0), calls.clone());
        let entry = self.board.add("default", &format!("chat-{ring}"));
        self.members.add(ring, GENERATION, Member::new(receiver, compute, entry));
        Stage { ring, calls, inbox, _assignment: sender }
    }

    /// A connection of the first stage, when it is taken.
    async fn dial(&self, ring: RingId) -> Connection {
        let mut link = self
            .wire
            .dial(&self.address, &Whom::Named(Name::phone("phone-1", DEFAULT_DOMAIN)), DEADLINE)
            .await
            .unwrap();
        let hello = Hello {
            version: version::CURRENT,
            ring,
            generation: GENERATION,
            phone: "phone-0".into(),
            from_stage: 0,
            to_stage: 1,
        };
        link.writer.write(&Frame::Hello(hello)).await.unwrap();
        assert_eq!(link.reader.next_within(DEADLINE).await.unwrap(), Frame::Accepted);
        link
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

// === impl Stage ===

impl Stage {
    /// As many calls wait as may.
    fn fill(&self) {
        for _ in 0..N_PLACES {
            let event = Event::Frame { frame: credit(self.ring), source: Source::Host };
            self.calls.try_send(Call::Stage(GENERATION, event)).unwrap();
        }
    }

    /// What waits besides frames.
    fn heard(&self) -> Vec<String> {
        let calls = std::iter::from_fn(|| self.inbox.try_recv());
        let words = calls.filter_map(|call| match call {
            Call::Stage(_, Event::HostLost) => Some("host lost".to_owned()),
            Call::Stage(_, Event::PeerLost { phone, why }) => Some(format!("{phone} lost: {why}")),
            _ => None,
        });
        words.collect()
    }
}

/// Why the other end gives a link up.
async fn farewell(link: &mut Connection) -> String {
    loop {
        match link.reader.next_within(DEADLINE).await.unwrap() {
            Frame::Pong { .. } => {}
            Frame::Refused(why) => return why,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_segment_that_hangs_keeps_no_connection_waiting_and_is_given_up_with_its_reason() {
    let phone = Phone::open().await;
    let (stage, other) = (phone.stage(1, Duration::from_millis(100)), phone.stage(2, LONG));
    stage.fill();
    let mut links = Vec::new();
    for _ in 0..5 {
        links.push(phone.dial(stage.ring).await);
    }
    let mut last = links.pop().unwrap();
    for link in &mut links {
        assert_eq!(farewell(link).await, "another connection of the same stage took its place");
    }
    last.writer.write(&credit(stage.ring)).await.unwrap();
    let why = farewell(&mut last).await;
    assert!(why.contains("hangs") && why.contains("restart the agent"), "{why}");
    assert_eq!(tokio::time::timeout(DEADLINE, stage.calls.hung()).await.unwrap().to_string(), why);
    assert!(matches!(last.reader.next_within(DEADLINE).await, Err(LinkError::Closed)));
    let heard = stage.heard();
    assert_eq!(heard.len(), 1, "however often it was lost: {heard:?}");
    assert!(heard[0].contains("phone-0 lost") && heard[0].contains("hangs"), "{heard:?}");
    phone.dial(other.ring).await;
}

#[tokio::test]
async fn the_end_of_the_host_link_is_heard_by_every_stage_though_one_hangs() {
    let phone = Phone::open().await;
    let stages = [1, 2].map(|ring| phone.stage(ring, LONG));
    stages[0].fill();
    for _ in 0..100 {
        phone.members.host_lost();
    }
    assert_eq!(stages.map(|stage| stage.heard()), [["host lost"], ["host lost"]]);
}

#[tokio::test]
async fn links_of_a_segment_that_is_taken_away_are_told_why() {
    let phone = Phone::open().await;
    let stage = phone.stage(1, LONG);
    let mut link = phone.dial(stage.ring).await;
    phone.members.remove(stage.ring, GENERATION, "it is needed elsewhere");
    assert_eq!(farewell(&mut link).await, "it is needed elsewhere");
}
