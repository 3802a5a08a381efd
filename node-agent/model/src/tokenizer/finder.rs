//! Finder: the next match of an expression, each byte that is looked at counted. Cuts nothing.
//!
//! An automaton whose states are made as they are needed, and nothing else: the library's faster mixtures of engines do not tell how far
//! they looked, and fall back to one whose steps grow with the expression.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use regex_automata::hybrid::regex::{Cache, Regex};
use regex_automata::hybrid::{BuildError, dfa};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::pool::{Pool, PoolGuard};
use regex_automata::{Anchored, HalfMatch, Input, Match, MatchError, MatchKind};

use super::effort::{Effort, TooDear};

/// Patterns, of which the first that matches counts.
pub(super) struct Finder {
    regex: Arc<Regex>,
    caches: Pool<Cache, NewCache>,
}

type NewCache = Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// What one thread has made of the states.
pub(super) type States<'f> = PoolGuard<'f, Cache, NewCache>;

/// Why there is no automaton of an expression.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinderError {
    #[error("it has {found} bytes, over the limit of {MAX_EXPRESSION_BYTES}")]
    Long { found: usize },
    #[error("{}", told(.0))]
    Expression(Box<thompson::BuildError>),
    #[error("{}", told(.0))]
    States(Box<BuildError>),
}

/// The longest known have some 500; what one is parsed to is thousands of times as large.
const MAX_EXPRESSION_BYTES: usize = 16 << 10;
/// Memory that the automaton of one expression may take before its states are told apart.
const MAX_AUTOMATON_BYTES: usize = 4 << 20;
/// Memory that the states of one expression may take on one thread, for each direction. When it is full they are made anew.
const MAX_STATES_BYTES: usize = 8 << 20;
/// States may have been made anew so often before an expression has to show that it is worth it.
const MAX_RENEWALS: usize = 2;
/// To make a state takes a step for each part of the automaton, so that many bytes have to be looked at with it.
const STEPS_PER_BYTE: usize = 64;
const MIN_BYTES_PER_STATE: usize = 8;

/// The engine's own words name no cause.
fn told(error: &impl std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

// === impl Finder ===

impl Finder {
    /// # Errors
    /// [`FinderError`]: an expression that looks around or refers back, is none at all, or takes too much memory.
    pub(super) fn new(patterns: &[&str]) -> Result<Self, FinderError> {
        if let Some(pattern) = patterns.iter().find(|pattern| pattern.len() > MAX_EXPRESSION_BYTES) {
            return Err(FinderError::Long { found: pattern.len() });
        }
        let forward = automaton(patterns, false, MatchKind::LeftmostFirst)?;
        let reverse = automaton(patterns, true, MatchKind::All)?;
        let regex = Arc::new(Regex::builder().build_from_dfas(forward, reverse));
        let for_caches = Arc::clone(&regex);
        let caches: NewCache = Box::new(move || for_caches.create_cache());
        Ok(Self { regex, caches: Pool::new(caches) })
    }

    /// The states to search with on this thread.
    pub(super) fn states(&self) -> States<'_> {
        self.caches.get()
    }

    /// The first match from `from` on that is not empty.
    ///
    /// # Errors
    /// [`TooDear`].
    pub(super) fn next(
        &self,
        states: &mut States<'_>,
        text: &str,
        mut from: usize,
        effort: &mut Effort,
    ) -> Result<Option<Match>, TooDear> {
        loop {
            let Some(found) = self.search(states, text, from, effort)? else { return Ok(None) };
            if !found.is_empty() {
                return Ok(Some(found));
            }
            from = text.ceil_char_boundary(found.end() + 1);
            if found.end() >= text.len() {
                return Ok(None);
            }
        }
    }

    fn search(
        &self,
        states: &mut Cache,
        text: &str,
        from: usize,
        effort: &mut Effort,
    ) -> Result<Option<Match>, TooDear> {
        let (forward, reverse) = states.as_parts_mut();
        let input = Input::new(text).range(from..);
        let end =
            counted(forward, effort, text.len() - from, |cache| self.regex.forward().try_search_fwd(cache, &input))?;
        let Some(end) = end else { return Ok(None) };
        if end.offset() == from {
            return Ok(Some(Match::new(end.pattern(), from..from)));
        }
        let input = input.range(from..end.offset()).anchored(Anchored::Yes);
        let start =
            counted(reverse, effort, end.offset() - from, |cache| self.regex.reverse().try_search_rev(cache, &input))?;
        let start = start.expect("what ends somewhere begins somewhere").offset();
        Ok(Some(Match::new(end.pattern(), start..end.offset())))
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").field("n_patterns", &self.regex.pattern_len()).finish_non_exhaustive()
    }
}

fn automaton(patterns: &[&str], is_reverse: bool, kind: MatchKind) -> Result<dfa::DFA, FinderError> {
    let config = thompson::Config::new()
        .nfa_size_limit(Some(MAX_AUTOMATON_BYTES))
        .which_captures(WhichCaptures::None)
        .reverse(is_reverse);
    let nfa = NFA::compiler().configure(config).build_many(patterns);
    let nfa = nfa.map_err(|error| FinderError::Expression(Box::new(error)))?;
    let config = dfa::Config::new()
        .match_kind(kind)
        .cache_capacity(MAX_STATES_BYTES)
        .minimum_cache_clear_count(Some(MAX_RENEWALS))
        .minimum_bytes_per_state(Some(MIN_BYTES_PER_STATE.max(nfa.states().len() / STEPS_PER_BYTE)));
    let built = dfa::DFA::builder().configure(config).build_from_nfa(nfa);
    built.map_err(|error| FinderError::States(Box::new(error)))
}

/// Searches, and spends a step for each byte that was looked at.
fn counted(
    cache: &mut dfa::Cache,
    effort: &mut Effort,
    n_bytes: usize,
    search: impl FnOnce(&mut dfa::Cache) -> Result<Option<HalfMatch>, MatchError>,
) -> Result<Option<HalfMatch>, TooDear> {
    let (n_renewals, before) = (cache.clear_count(), cache.search_total_len());
    // It gives up where states are made anew for few bytes each; there is no other error that this automaton has.
    let found = search(cache).map_err(|_| TooDear)?;
    let is_renewed = cache.clear_count() != n_renewals;
    // With the states it is forgotten how many bytes they were for.
    let looked_at = if is_renewed { n_bytes } else { cache.search_total_len().saturating_sub(before) };
    effort.spend(looked_at + 1)?;
    Ok(found)
}
