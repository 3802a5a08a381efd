//! Every limit of the gateway, with its default.

use std::time::Duration;

use polyphony_doorway::{Hosts, Origins};

/// Bounds of queues, bodies, waits and retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The hosts that requests may be for; `None` lets all be.
    pub hosts: Option<Hosts>,
    /// The sites whose pages may send requests.
    pub origins: Origins,
    /// Whether who shows no key is refused.
    pub keys_required: bool,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies over a page that are being read, or wait to become tokens. An eighth of them is for bodies of up to 64 KiB.
    pub bodies_bytes: usize,
    /// Where others wait for that room, a body keeps it this long, and a second more for each
    /// [`crowded_bytes_per_second`](Self::crowded_bytes_per_second) that came.
    pub crowded_within: Duration,
    pub crowded_bytes_per_second: u64,
    /// Bytes of texts that are made into tokens at a time, which takes about eighty times as much memory. An eighth of them is for texts of
    /// up to 64 KiB; one that is longer than all the rest is made with those alone.
    pub texts_bytes: usize,
    /// Prompts of one request.
    pub max_prompts: usize,
    /// Whether the names of control tokens in messages become those tokens, as in vLLM; otherwise they are text like any other.
    pub control_tokens_in_messages: bool,
    /// Sessions of one deployment that may wait for a place; one more is answered 429.
    pub max_waiting: usize,
    /// How long a new session waits for a place.
    pub queue_deadline: Duration,
    /// Steps that a head may run ahead of what the client has read.
    pub credit_window: u32,
    /// From the prompt's sending to the first token, however short the prompt.
    pub first_token_deadline: Duration,
    /// What each token of the prompt adds to that: slow phones take long over long prompts.
    pub prefill_allowance: Duration,
    /// From one token to the next.
    pub inter_token_deadline: Duration,
    /// How long an interrupted session waits for a ring that can go on, where there is one or a plan for one.
    pub replay_deadline: Duration,
    /// How long a session whose ring was lost waits where there is no plan for another: a phone may only be starting again. And how long
    /// a request waits for its model's file to be found where phones serve it: the controller may only be starting again.
    pub no_plan_deadline: Duration,
    /// Replays in a row that bring no token.
    pub max_replays: u32,
    /// The pause before the second replay in a row; doubled with each further one.
    pub replay_pause: Duration,
    /// How long a session that moves to the next generation of its ring may stand still; then it is replayed there.
    pub hand_over_deadline: Duration,
    /// A ring that failed a session is passed over for this long, or until the controller takes it off the table.
    pub suspicion: Duration,
    /// How long a client may leave a piece of its answer unread before its session is closed; and, in all, how much longer than the ring
    /// computes.
    pub client_deadline: Duration,
    /// Between two comments on a silent stream, so that clients and proxies know that it lives.
    pub keep_alive: Duration,
    /// Bytes of one stop string.
    pub max_stop_bytes: usize,
    /// Models whose tokenizer is kept in memory.
    pub max_cached_models: usize,
    /// What `Retry-After` says.
    pub retry_after: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            hosts: None,
            origins: Origins::default(),
            keys_required: false,
            max_body_bytes: 4 << 20,
            bodies_bytes: 40 << 20,
            crowded_within: Duration::from_secs(2),
            crowded_bytes_per_second: 1 << 20,
            texts_bytes: 2 << 20,
            max_prompts: 64,
            control_tokens_in_messages: false,
            max_waiting: 64,
            queue_deadline: Duration::from_secs(60),
            credit_window: 16,
            first_token_deadline: Duration::from_secs(60),
            prefill_allowance: Duration::from_millis(50),
            inter_token_deadline: Duration::from_secs(30),
            replay_deadline: Duration::from_secs(120),
            no_plan_deadline: Duration::from_secs(10),
            max_replays: 8,
            replay_pause: Duration::from_millis(100),
            hand_over_deadline: Duration::from_secs(10),
            suspicion: Duration::from_secs(2),
            client_deadline: Duration::from_secs(120),
            keep_alive: Duration::from_secs(5),
            max_stop_bytes: 1024,
            max_cached_models: 4,
            retry_after: Duration::from_secs(5),
        }
    }
}
