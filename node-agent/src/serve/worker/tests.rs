//! A worker with a real segment, turn by turn.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use polyphony_kernels::{Arithmetic, Backend};
use polyphony_model::{Holds, Manifest, TensorReader};
use polyphony_protocol::frame::Prompt;
use polyphony_protocol::session::{History, Sampling, SessionOptions};
use polyphony_protocol::{ActivationType, Epoch, RingId, SessionId};
use tokio::sync::oneshot;

use super::*;
use crate::board::Board;
use crate::budget::Budget;
use crate::segment::{AnySegment, Capacity};
use crate::serve::calls::calls;
use crate::serve::outlet::{FromStages, Outlet, to_host};
use crate::serve::stage::StageShape;

const GENERATION: PlanGeneration = PlanGeneration(1);

struct Bench {
    n_layers: u32,
    worker: Worker,
    calls: Calls<Call>,
    inbox: Inbox<Call>,
    from_stages: FromStages,
}

fn key(session: u64) -> RouteKey {
    RouteKey { ring: RingId(1), generation: GENERATION, session: SessionId(session), epoch: Epoch(1) }
}

impl Bench {
    /// A whole model on one phone.
    async fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf");
        let manifest = Manifest::build(&path).unwrap();
        let holds = Holds::all(manifest.hyperparameters.n_layers);
        let capacity = Capacity { n_slots: 2, n_positions: 64, max_rows: 8 };
        let engine = polyphony_kernels::open(Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 }, None).unwrap();
        let bytes_of = |tensor: &polyphony_model::TensorEntry| {
            Ok::<_, SegmentError>(TensorReader::open(&path, &manifest, tensor).unwrap().read_all().unwrap())
        };
        let segment = AnySegment::load(engine, &manifest, holds, capacity, ActivationType::F16, bytes_of).unwrap();
        let memory = Budget::new(1).reserve(1, || ()).await.unwrap();
        let (calls, inbox) = calls(16, Duration::from_secs(3600));
        let (to_host, from_stages) = to_host(16);
        let (hidden_size, broken) = (segment.hidden_size(), watch::channel(None).0);
        let owned = Owned { segment, memory };
        let (duty, at_work) = (Duty::default(), AtWork::default());
        let conduct = Conduct { duty, longest_rest: Duration::from_secs(3600), at_work };
        let mut worker = Worker::new(owned, conduct, to_host, calls.clone(), broken);
        let shape = StageShape {
            ring: RingId(1),
            generation: GENERATION,
            stage: 0,
            layers: holds.layers,
            phone: "phone-1".into(),
            next_phone: String::new(),
            n_stages: 1,
            session_groups: 0,
            encoder: None,
            vocab_size: manifest.hyperparameters.vocab_size,
            hidden_size,
            activation_type: ActivationType::F16,
            capacity,
            step_deadline: Duration::from_secs(60),
            idle_deadline: Duration::from_secs(60),
        };
        let attachment = || Attachment {
            next: Outlet::new(shape.limits_out()),
            shape: shape.clone(),
            holds,
            skips: BTreeMap::new(),
            entry: Board::default().add("default", "talk"),
            pull: Box::new(|_, _| panic!("no session moves here")),
        };
        // One of the same generation was here before.
        worker.attach(AttachmentId(0), attachment());
        worker.attach(AttachmentId(1), attachment());
        Self { n_layers: manifest.hyperparameters.n_layers, worker, calls, inbox, from_stages }
    }

    fn call(&self, event: Event) {
        assert!(self.calls.try_send(Call::Stage(GENERATION, event)).is_ok());
    }

    fn gateway_sends(&self, frame: Frame) {
        self.call(Event::Frame { frame, source: Source::Host });
    }

    fn start(&self, session: u64, credit: u32) {
        let options = SessionOptions {
            sampling: Sampling::default(),
            end_position: 64,
            end_tokens: vec![],
            top_logprobs: 0,
            logprobs: false,
            n_prompt: 3,
            history: History::default(),
        };
        let key = key(session);
        self.gateway_sends(Frame::Open { key, options });
        self.gateway_sends(Frame::Prompt(Prompt { key, position: 0, tokens: vec![7, 9, 11], credit }));
    }

    fn heard(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.from_stages.frames.try_recv().ok()).collect()
    }
}

#[tokio::test]
async fn one_piece_of_a_kv_cache_is_copied_between_two_steps_of_others() {
    let mut bench = Bench::new().await;
    bench.start(1, 1);
    assert!(bench.worker.turn(&bench.inbox));
    assert_eq!(bench.heard().len(), 1, "its token");
    bench.start(2, 9);
    assert!(bench.worker.turn(&bench.inbox));
    assert_eq!(bench.heard().len(), 1);
    // Another phone asks for all layers at once, while session 2 decodes.
    let mut answers: Vec<_> = (0..3)
        .map(|layer| {
            let (answer, answered) = oneshot::channel();
            bench.call(Event::ReadKv { key: key(1), n_positions: 3, layer, positions: 0..3, answer });
            answered
        })
        .collect();
    for _ in 0..3 {
        assert!(bench.worker.turn(&bench.inbox));
        let n_answered = answers.iter_mut().filter_map(|answered| answered.try_recv().ok()).count();
        assert_eq!((n_answered, bench.heard().len()), (1, 1), "a piece, and a token of the other session");
    }
}

#[tokio::test]
async fn a_thread_that_rests_hears_what_comes_and_its_rests_are_no_work_but_slow_it() {
    let mut bench = Bench::new().await;
    let (duty, hour) = (bench.worker.conduct.duty.clone(), Duration::from_secs(3600));
    duty.set(0.2);
    bench.start(1, 9);
    let begun = Instant::now();
    assert!(bench.worker.turn(&bench.inbox));
    assert_eq!(bench.heard().len(), 1, "the first token");
    let computed = bench.worker.conduct.at_work.until(Instant::now()).computed;
    let rests_until = duty.rests_until(begun).unwrap();
    assert!(rests_until - begun > computed * 3, "four times as long as it has computed, or nearly so: {computed:?}");
    // The second token, which is a decode step's, after this rest.
    while bench.heard().is_empty() {
        assert!(bench.worker.turn(&bench.inbox));
    }
    let computed_twice = bench.worker.conduct.at_work.until(Instant::now()).computed;
    bench.worker.pace.catch_up(Instant::now());
    let per_layer = bench.worker.pace.figures().seconds_per_layer.unwrap();
    let computed_per_layer = (computed_twice - computed).as_secs_f64() / f64::from(bench.n_layers);
    assert!(per_layer > 3.0 * computed_per_layer, "{per_layer} s a layer with rests, of {computed_per_layer}");
    // As after a step that took minutes, of this thread or of another one of its phone.
    duty.rest_after(hour, hour, Instant::now());
    let (answer, mut answered) = oneshot::channel();
    bench.call(Event::ReadKv { key: key(1), n_positions: 3, layer: 0, positions: 0..3, answer });
    assert!(bench.worker.turn(&bench.inbox));
    assert!(answered.try_recv().is_ok() && bench.heard().is_empty(), "it answers, and runs no step");
    assert_eq!(bench.worker.conduct.at_work.until(Instant::now()).computed, computed_twice);
}

#[tokio::test]
async fn a_thread_goes_on_after_its_rest_which_is_no_longer_than_it_may_be() {
    let mut bench = Bench::new().await;
    let duty = bench.worker.conduct.duty.clone();
    duty.set(0.2);
    bench.worker.conduct.longest_rest = Duration::from_millis(50);
    bench.start(1, 9);
    assert!(bench.worker.turn(&bench.inbox));
    assert_eq!(bench.heard().len(), 1, "the first token");
    let now = Instant::now();
    duty.rest_after(Duration::from_secs(3600), Duration::from_millis(50), now);
    let rests_until = duty.rests_until(now).unwrap();
    while bench.heard().is_empty() {
        assert!(bench.worker.turn(&bench.inbox));
    }
    assert!(Instant::now() >= rests_until, "it went on after its rest");
    let again = duty.rests_until(rests_until).map(|until| until <= Instant::now() + Duration::from_millis(50));
    assert_ne!(again, Some(false), "its own rests are no longer either");
}

#[tokio::test]
async fn a_host_link_that_takes_nothing_never_holds_up_the_thread() {
    let mut bench = Bench::new().await;
    bench.start(1, 60);
    for _ in 0..40 {
        assert!(bench.worker.turn(&bench.inbox));
    }
    assert_eq!(bench.heard().len(), 16, "as many as may wait");
    tokio::time::timeout(Duration::from_secs(60), bench.from_stages.overruns().notified()).await.unwrap();
    bench.call(Event::HostLost);
    assert!(bench.worker.turn(&bench.inbox));
    assert_eq!((bench.worker.stages[0].stage.decoding().n_sessions(), bench.worker.slots.n_held()), (0, 0));
}

#[tokio::test]
async fn a_thread_that_ends_by_a_fault_tells_the_gateway_before() {
    let mut bench = Bench::new().await;
    bench.start(1, 1);
    assert!(bench.worker.turn(&bench.inbox));
    bench.heard();
    // What was taken and never heard is refused too.
    bench.start(2, 1);
    bench.worker.abandon(&bench.inbox);
    let of_session = |frame: Frame| match frame {
        Frame::Failed(failed) => failed.key,
        other => panic!("{other:?}"),
    };
    let failed: Vec<RouteKey> = bench.heard().into_iter().map(of_session).collect();
    assert_eq!(failed, [key(1), key(2), key(2)], "an open and a prompt of the second");
}

#[tokio::test]
async fn a_late_end_of_a_stage_leaves_the_one_that_took_its_place() {
    let mut bench = Bench::new().await;
    bench.start(1, 1);
    assert!(bench.calls.try_send(Call::Detach(AttachmentId(0))).is_ok());
    assert!(bench.worker.turn(&bench.inbox));
    assert!(matches!(bench.heard()[..], [Frame::Token(_)]), "its session goes on");
    assert!(bench.calls.try_send(Call::Detach(AttachmentId(1))).is_ok());
    assert!(bench.worker.turn(&bench.inbox));
    assert!(bench.worker.stages.is_empty());
}
