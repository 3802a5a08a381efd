//! Prompts flow through rings whose phones differ in speed: nobody holds more than the window, and nobody waits for a long prompt.

use super::*;

const ROWS: usize = 4;
/// What a step takes on the slow phone: a few make up the ring's deadline.
const SLOW_STEP: Duration = Duration::from_secs(4);

fn uneven(n_stages: usize) -> Ring {
    let capacity = Capacity { n_slots: 3, n_positions: 600, max_rows: ROWS };
    let stage = |stage| stage_of(StageShape { capacity, ..shape(stage, n_stages) });
    Ring { stages: (0..n_stages).map(stage).collect(), ..Ring::new(n_stages) }
}

/// Ten steps of every stage but the tail, then one of the tail; whose rows that one took.
fn round(ring: &mut Ring) -> Vec<u64> {
    let tail = ring.stages.len() - 1;
    for _ in 0..10 {
        for at in 0..tail {
            step(ring, at);
        }
    }
    let sessions = step(ring, tail).unwrap_or_default();
    ring.now += SLOW_STEP;
    for at in 0..=tail {
        let effects = ring.stages[at].handle_timeout(ring.now);
        ring.carry(at, effects);
    }
    sessions
}

fn step(ring: &mut Ring, at: usize) -> Option<Vec<u64>> {
    let batch = next(&mut ring.stages[at], ring.now)?;
    let sessions = sessions_of(&batch);
    ring.complete(at, batch);
    Some(sessions)
}

fn long_prompt() -> Vec<u32> {
    (0..500).map(|n| n % 90).collect()
}

#[test]
fn a_head_ten_times_as_fast_as_its_tail_sends_no_more_than_the_window_and_no_session_is_late() {
    for n_stages in 2..=4 {
        let mut ring = uneven(n_stages);
        ring.start(1, &long_prompt(), 505, 9);
        let mut n_rounds = 0;
        while ring.tokens(1).len() < 5 {
            round(&mut ring);
            n_rounds += 1;
            assert_eq!(ring.failed, [], "round {n_rounds}");
            let held = ring.stages[1..].iter().map(Stage::n_queued_rows).sum::<usize>();
            assert!(held <= (n_stages + 1) * ROWS, "{held} rows wait in a ring of {n_stages}");
            assert!(n_rounds < 200);
        }
        assert_eq!(ring.tokens(1), expected(&long_prompt(), 5));
        // The same ring without a pause between chunks: the tail was never without work.
        assert_eq!(n_rounds, 500 / ROWS + 4);
    }
}

#[test]
fn a_short_prompt_behind_a_long_one_has_its_first_token_within_three_chunks() {
    let mut ring = uneven(2);
    ring.start(1, &long_prompt(), 505, 9);
    (0..20).for_each(|_| drop(round(&mut ring)));
    ring.start(2, &[7, 8, 9], 60, 1);
    let mut chunks = 0;
    while ring.tokens(2).is_empty() {
        round(&mut ring);
        chunks += 1;
        assert!(chunks <= 3, "the tail took {chunks} chunks");
    }
    assert_eq!(ring.tokens(2), expected(&[7, 8, 9], 1));
}

#[test]
fn sessions_with_long_prompts_share_the_tail_chunk_by_chunk() {
    let mut ring = uneven(3);
    ring.start(1, &long_prompt(), 505, 9);
    ring.start(2, &long_prompt(), 505, 9);
    (0..6).for_each(|_| drop(round(&mut ring)));
    let order: Vec<u64> = (0..8).flat_map(|_| round(&mut ring)).collect();
    assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");
}

#[test]
fn the_deadline_of_a_step_counts_from_the_last_acknowledgement() {
    let (mut head, now) = (wide(0, 2), Instant::now());
    head.accept(Frame::Open { key: key(1, 0), options: options(60) }, Source::Host, now);
    let prompt = Prompt { key: key(1, 0), position: 0, tokens: vec![1; 40], credit: 9 };
    head.accept(Frame::Prompt(prompt), Source::Host, now);
    while next(&mut head, now).is_some() {}
    let later = now + Duration::from_secs(9);
    assert_eq!(head.poll_timeout(), Some(now + Duration::from_secs(10)));
    head.accept(Frame::Ack { key: key(1, 0), position: 8 }, Source::Tail, later);
    assert_eq!(head.poll_timeout(), Some(later + Duration::from_secs(10)));
    assert!(next(&mut head, later).is_some(), "there is room for a chunk more");
    assert!(next(&mut head, later).is_none());
    // From nowhere else, and not of another session's epoch.
    head.accept(Frame::Ack { key: key(1, 0), position: 40 }, Source::Previous, later);
    head.accept(Frame::Ack { key: key(1, 1), position: 40 }, Source::Tail, later);
    assert!(next(&mut head, later).is_none());
}

#[test]
fn more_chunks_than_a_window_end_the_session_that_sent_them() {
    let (mut stage, now) = (wide(1, 2), Instant::now());
    stage.accept(Frame::Open { key: key(1, 0), options: options(60) }, Source::Previous, now);
    let chunk = |position: u32| {
        let (key, dtype, payload) = (key(1, 0), ActivationType::F32, vec![0; 8 * 4].into());
        let kind = HiddenKind::Decoding;
        Frame::Hidden(Hidden { key, position, n_tokens: 8, dtype, kind, sample: false, payload })
    };
    for position in [0, 8, 16] {
        assert_eq!(stage.accept(chunk(position), Source::Previous, now), []);
    }
    let effects = stage.accept(chunk(24), Source::Previous, now);
    assert_eq!(effects, [Effect::Fail { key: key(1, 0), reason: Reason::Overrun { limit: 3 } }]);
    assert_eq!((stage.n_sessions(), stage.n_queued_rows()), (0, 0));
}
