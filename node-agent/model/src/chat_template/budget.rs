//! Budget: what a rendering may make and look at, in bytes. No clock: the same template and chat always cost the same.
//!
//! Fuel bounds instructions, and one instruction can double a string: forty doublings make a terabyte. So whatever an instruction makes
//! or reads through is paid for here, before it is made.

use std::fmt::{self, Write};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// What is left of a rendering's means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    made: u64,
    seen: u64,
}

/// Under this name a template finds how many bytes its chat has; no template can write it.
pub(super) const INPUT: &str = "input!";
/// Begins what is told of a rendering that went over its means.
pub(super) const SPENT: &str = "budget!";

/// Bytes that a rendering may make: so many, and so many for each byte of the chat. Templates copy a content some ten times.
const MADE: (u64, u64) = (64 << 20, 32);
/// Bytes that a rendering may look through.
const SEEN: (u64, u64) = (256 << 20, 256);
/// What an item of a list takes that is a part of another: lists are put together without copying.
const PLACE: u64 = 8;
/// What a value takes besides its text.
const NODE: u64 = 32;
/// What going to a value costs, in bytes that could be read through meanwhile.
const STEP: u64 = 64;
/// How deep lists may lie in lists: values are dropped and shown by recursion.
const MAX_DEPTH: u32 = 100;

// === impl Budget ===

impl Budget {
    fn of<'s>(state: &'s mut State<'_, '_>) -> &'s mut Self {
        let known = state.get_extension::<Self>().is_some();
        let input = if known { None } else { state.lookup(INPUT).and_then(|value| value.as_usize()) };
        state.get_or_insert_extension_with(|| {
            let n_bytes = input.unwrap_or(0) as u64;
            let grant = |(base, each): (u64, u64)| base.saturating_add(n_bytes.saturating_mul(each));
            Self { made: grant(MADE), seen: grant(SEEN) }
        })
    }
}

/// Pays for `n_bytes` that are about to be made.
pub(super) fn make(state: &mut State<'_, '_>, n_bytes: u64) -> Result<(), Error> {
    pay(&mut Budget::of(state).made, n_bytes, "makes")
}

/// Pays for `n_bytes` that are about to be looked through.
pub(super) fn see(state: &mut State<'_, '_>, n_bytes: u64) -> Result<(), Error> {
    pay(&mut Budget::of(state).seen, n_bytes, "looks through")
}

fn pay(left: &mut u64, n_bytes: u64, verb: &str) -> Result<(), Error> {
    match left.checked_sub(n_bytes) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => Err(Error::new(ErrorKind::OutOfFuel, format!("{SPENT}{verb} more text than any chat needs"))),
    }
}

/// Bytes of the value itself: of a text its length, of a list a place for each item.
pub(super) fn size(value: &Value) -> u64 {
    match (value.as_str(), value.as_bytes()) {
        (Some(text), _) => text.len() as u64,
        (_, Some(bytes)) => bytes.len() as u64,
        _ => NODE.saturating_mul(value.as_object().and_then(|object| object.enumerator_len()).unwrap_or(1) as u64),
    }
}

/// Bytes that the value adds to a longer text or list.
pub(super) fn share(value: &Value) -> u64 {
    match value.as_object().and_then(|object| object.enumerator_len()) {
        Some(n_items) => PLACE.saturating_mul(n_items as u64),
        None => size(value),
    }
}

/// Pays for looking through all that `value` holds, however deep, and gives its bytes.
pub(super) fn see_all(state: &mut State<'_, '_>, value: &Value) -> Result<u64, Error> {
    let mut walk = Walk { left: Budget::of(state).seen, total: 0, is_to_be_kept: false };
    walk.through(value, 0)?;
    see(state, walk.total)?;
    Ok(walk.total)
}

/// Refuses what would keep itself alive, or lies too deep to be dropped: a namespace within a value that a namespace is to keep.
pub(super) fn check_kept(state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let mut walk = Walk { left: Budget::of(state).seen, total: 0, is_to_be_kept: true };
    walk.through(value, 0)?;
    see(state, walk.total)
}

struct Walk {
    left: u64,
    total: u64,
    /// In a namespace: texts are only held, and no namespace may be among what is.
    is_to_be_kept: bool,
}

// === impl Walk ===

impl Walk {
    fn through(&mut self, value: &Value, depth: u32) -> Result<(), Error> {
        let text = value.as_str().map(str::len).or(value.as_bytes().map(<[u8]>::len)).unwrap_or(0);
        let own = if self.is_to_be_kept { STEP } else { STEP + text as u64 };
        pay(&mut self.left, own, "looks through")?;
        self.total += own;
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth >= MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "lists lie too deep in one another"));
        }
        if self.is_to_be_kept && (object.type_name().contains("Namespace") || object.type_name().contains("Loop")) {
            let text = "a namespace cannot be kept in a namespace, nor can a loop";
            return Err(Error::new(ErrorKind::InvalidOperation, text));
        }
        match value.kind() {
            ValueKind::Map => {
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    self.through(&key, depth + 1)?;
                    self.through(&value.get_item(&key)?, depth + 1)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()?.checked() {
                    self.through(&item?, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The text of `value`, made only as far as it can be paid for.
pub(super) fn show(state: &mut State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut text = Bounded { text: String::new(), left: Budget::of(state).made };
    if let Some(plain) = value.as_str() {
        make(state, plain.len() as u64)?;
        return Ok(plain.to_owned());
    }
    // Deep values are shown by recursion.
    see_all(state, value)?;
    let shown = write!(text, "{value}");
    make(state, text.text.len() as u64)?;
    match shown {
        Ok(()) => Ok(text.text),
        Err(_) => make(state, u64::MAX).map(|()| text.text),
    }
}

/// A text of at most so many bytes.
struct Bounded {
    text: String,
    left: u64,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len() as u64).ok_or(fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

/// A list of the items of `value`, if that only promises them: promises within promises would lie without bound.
pub(super) fn settle(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()?.checked() {
        make(state, NODE)?;
        items.push(item?);
    }
    Ok(Value::from(items))
}
