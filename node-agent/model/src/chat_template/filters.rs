//! Filters, functions and methods that a template may use, each paid for before it makes or reads anything.
//!
//! Those of the engine whose results are bounded by what goes in are called as they are, after what goes in is paid for. Those that can
//! make more of little are our own here. All others are left out, and a template that uses one is refused by its name.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use super::budget::{check_kept, make, see, see_all, settle, share, show, size};
use super::json;

/// Calls a filter of the engine: `value | applied!(name, arguments …)`.
pub(super) const APPLIED: &str = "applied!";
/// A list, a map, an argument: not too deep.
pub(super) const COMPOSED: &str = "composed!";
/// Something that is walked through once.
pub(super) const COUNTED: &str = "counted!";
/// Something of which a part is taken.
pub(super) const INDEXED: &str = "indexed!";
/// What a namespace is to keep.
pub(super) const KEPT: &str = "kept!";
/// A product, which may be a text many times.
pub(super) const PRODUCT: &str = "product!";
/// What is compared, or looked up.
pub(super) const SEEN: &str = "seen!";
/// What becomes a part of a longer text, as it is shown.
pub(super) const SHOWN: &str = "shown!";
/// What becomes a part of a longer text or list.
pub(super) const SUMMAND: &str = "summand!";

/// What a filter of the engine makes, at most, of what goes in.
#[derive(Clone, Copy, PartialEq)]
enum Makes {
    /// Next to nothing, and it reads no more than a length.
    Nothing,
    /// Places for the items.
    Places,
    /// As many bytes, times so many.
    Bytes(u64),
    /// Our own: it pays itself.
    Paid,
}

const FILTERS: [(&str, Makes); 42] = [
    ("abs", Makes::Nothing),
    ("attr", Makes::Nothing),
    ("bool", Makes::Nothing),
    ("capitalize", Makes::Bytes(3)),
    ("count", Makes::Nothing),
    ("d", Makes::Nothing),
    ("default", Makes::Nothing),
    ("dictsort", Makes::Places),
    ("e", Makes::Bytes(6)),
    ("escape", Makes::Bytes(6)),
    ("first", Makes::Nothing),
    ("float", Makes::Nothing),
    ("format", Makes::Paid),
    ("indent", Makes::Paid),
    ("int", Makes::Nothing),
    ("items", Makes::Places),
    ("join", Makes::Paid),
    ("last", Makes::Nothing),
    ("length", Makes::Nothing),
    ("list", Makes::Paid),
    ("lower", Makes::Bytes(3)),
    ("map", Makes::Bytes(6)),
    ("max", Makes::Places),
    ("min", Makes::Places),
    ("reject", Makes::Places),
    ("rejectattr", Makes::Places),
    ("replace", Makes::Paid),
    ("reverse", Makes::Bytes(1)),
    ("round", Makes::Nothing),
    ("safe", Makes::Bytes(1)),
    ("select", Makes::Places),
    ("selectattr", Makes::Places),
    ("sort", Makes::Places),
    ("split", Makes::Paid),
    ("string", Makes::Paid),
    ("sum", Makes::Places),
    ("title", Makes::Bytes(3)),
    ("tojson", Makes::Paid),
    ("trim", Makes::Bytes(1)),
    ("unique", Makes::Places),
    ("upper", Makes::Bytes(3)),
    ("lines", Makes::Paid),
];

/// Filters of the engine that have no place here: their results grow with a number, or with depth.
const LEFT_OUT: [&str; 6] = ["batch", "chain", "groupby", "pprint", "slice", "zip"];
/// The widest field of a format.
const MAX_WIDTH: u64 = 9_999;

/// As the engine's, which ends the thread at 0.
fn is_divisible_by(value: &Value, divisor: &Value) -> Result<bool, Error> {
    if let (Ok(value), Ok(divisor)) = (i128::try_from(value.clone()), i128::try_from(divisor.clone())) {
        let by_zero = || Error::new(ErrorKind::InvalidOperation, "nothing is divisible by 0");
        return Ok(if divisor == -1 { true } else { value.checked_rem(divisor).ok_or_else(by_zero)? == 0 });
    }
    let [value, divisor] = [value, divisor].map(|number| f64::try_from(number.clone()).unwrap_or(f64::NAN));
    Ok(value % divisor == 0.0)
}

/// Gives `environment` all that templates may use.
pub(super) fn furnish(environment: &mut Environment<'_>) {
    LEFT_OUT.iter().for_each(|name| environment.remove_filter(name));
    environment.remove_global("debug");
    environment.set_formatter(emit);
    environment.set_unknown_method_callback(method);
    environment.add_filter(APPLIED, applied);
    environment.add_filter(COMPOSED, |state: &mut State, value: Value| see_all(state, &value).map(|_| value));
    environment.add_filter(SEEN, seen);
    environment.add_filter(COUNTED, |state: &mut State, value: Value| see(state, size(&value)).map(|()| value));
    environment.add_filter(INDEXED, |state: &mut State, value: Value| {
        see(state, value.as_str().map_or(1, |text| text.len() as u64)).map(|()| value)
    });
    environment.add_filter(KEPT, |state: &mut State, value: Value| check_kept(state, &value).map(|()| value));
    environment.add_filter(SUMMAND, |state: &mut State, value: Value| make(state, share(&value)).map(|()| value));
    environment.add_filter(SHOWN, |state: &mut State, value: Value| match value.as_str() {
        Some(text) => make(state, text.len() as u64).map(|()| value),
        None => show(state, &value).map(Value::from),
    });
    environment.add_filter(PRODUCT, product);
    environment.add_filter(
        "join",
        |state: &mut State, value: Value, joiner: Option<Value>, attribute: Option<Value>, names: Kwargs| {
            let joiner = joiner.or(names.get("d")?).unwrap_or_else(|| Value::from(""));
            let attribute: Option<Value> = attribute.or(names.get("attribute")?);
            names.assert_all_used()?;
            join(state, &value, &joiner, attribute.as_ref())
        },
    );
    environment.add_filter("replace", |state: &mut State, text: Value, from: Value, to: Value| {
        let [text, from, to] = [show(state, &text)?, show(state, &from)?, show(state, &to)?];
        replace(state, &text, &from, &to, None)
    });
    environment.add_filter("string", |state: &mut State, value: Value| show(state, &value).map(Value::from));
    environment.add_filter("list", list);
    environment.add_filter("split", split);
    environment.add_filter("lines", |state: &mut State, value: Value| {
        make_pieces(state, &value, |text| text.matches('\n').count())?;
        minijinja::filters::lines(&value)
    });
    environment.add_filter("sum", sum);
    environment.add_filter("indent", indent);
    environment.add_filter("format", |state: &mut State, format: Value, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        make_format(state, &format, &args)?;
        call_engine("format", &format, &args)
    });
    environment.add_filter("tojson", json::filter);
    environment.add_test("divisibleby", is_divisible_by);
    environment.add_function("dict", |state: &mut State, value: Option<Value>, names: Kwargs| {
        make(state, value.as_ref().map_or(0, size))?;
        let own = minijinja::functions::dict(value, names)?;
        settle_map(state, own)
    });
}

fn bad(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// `{{ … }}` and every plain text of a template.
fn emit(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            make(state, text.len() as u64)?;
            out.write_str(text)?;
        }
        None => out.write_str(&show(state, value)?)?,
    }
    Ok(())
}

/// Small values, which are most, cost no walk.
fn seen(state: &mut State, value: Value) -> Result<Value, Error> {
    match (value.as_str(), value.as_object()) {
        (Some(text), _) => see(state, 1 + text.len() as u64)?,
        (None, None) => see(state, 1)?,
        (None, Some(_)) => {
            see_all(state, &value)?;
        }
    }
    Ok(value)
}

fn applied(state: &mut State, value: Value, name: &str, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let name = name.trim();
    let Some(&(_, makes)) = FILTERS.iter().find(|known| known.0 == name) else {
        return Err(Error::new(ErrorKind::UnknownFilter, format!("filter {name} is not supported")));
    };
    match makes {
        Makes::Nothing => see(state, value.as_str().map_or(1, |text| text.len() as u64))?,
        Makes::Paid => {}
        Makes::Places | Makes::Bytes(_) => {
            let mut n_bytes = see_all(state, &value)?;
            for arg in args.iter() {
                n_bytes = n_bytes.saturating_add(see_all(state, arg)?);
            }
            match makes {
                Makes::Bytes(times) => make(state, n_bytes.saturating_mul(times))?,
                _ => make(state, 2 * size(&value))?,
            }
        }
    }
    let mut all = vec![value];
    all.extend(args);
    let result = state.apply_filter(name, &all)?;
    settle(state, result)
}

fn product(state: &mut State, left: Value, right: Value) -> Result<Value, Error> {
    let is_repeated = |value: &Value| value.as_str().is_some() || value.as_object().is_some();
    let (what, times) = if is_repeated(&left) { (&left, &right) } else { (&right, &left) };
    if !is_repeated(what) {
        let whole = |value: &Value| value.is_integer().then(|| i128::try_from(value.clone()).ok()).flatten();
        if let (Some(left), Some(right)) = (whole(&left), whole(&right)) {
            return left.checked_mul(right).map(small).ok_or_else(|| bad("a product is too large"));
        }
        return Ok(Value::from(f64::try_from(left)? * f64::try_from(right)?));
    }
    let times =
        i64::try_from(times.clone()).map_err(|_| bad("a text or list can be repeated a whole number of times"))?.max(0);
    make(state, size(what).saturating_mul(times.unsigned_abs()))?;
    let times = usize::try_from(times).unwrap_or(0);
    if let Some(text) = what.as_str() {
        return Ok(Value::from(text.repeat(times)));
    }
    let items: Vec<Value> = what.try_iter()?.checked().collect::<Result<_, _>>()?;
    Ok(Value::from(std::iter::repeat_n(items, times).flatten().collect::<Vec<_>>()))
}

fn small(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

fn join(state: &mut State, values: &Value, joiner: &Value, attribute: Option<&Value>) -> Result<Value, Error> {
    let joiner = show(state, joiner)?;
    see(state, size(values))?;
    let mut joined = String::new();
    for (idx, item) in values.try_iter()?.checked().enumerate() {
        let item = match attribute {
            Some(name) => item?.get_item(name)?,
            None => item?,
        };
        if idx > 0 {
            make(state, joiner.len() as u64)?;
            joined.push_str(&joiner);
        }
        joined.push_str(&show(state, &item)?);
    }
    Ok(Value::from(joined))
}

fn replace(state: &mut State, text: &str, from: &str, to: &str, count: Option<usize>) -> Result<Value, Error> {
    see(state, text.len() as u64)?;
    let found = text.matches(from).count().min(count.unwrap_or(usize::MAX));
    make(state, (text.len() as u64).saturating_add((found as u64).saturating_mul(to.len() as u64)))?;
    Ok(Value::from(match count {
        Some(count) => text.replacen(from, to, count),
        None => text.replace(from, to),
    }))
}

fn list(state: &mut State, value: Value) -> Result<Value, Error> {
    let n_items = value.as_str().map_or(0, |text| text.len() as u64);
    make(state, size(&value).saturating_add(n_items.saturating_mul(size(&Value::from(0)))))?;
    let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    Ok(Value::from(items))
}

/// Pays for as many pieces of a text as `cuts` counts places to cut it.
fn make_pieces(state: &mut State, value: &Value, cuts: impl FnOnce(&str) -> usize) -> Result<(), Error> {
    let text = value.as_str().ok_or_else(|| bad(format!("a text is cut, not {}", value.kind())))?;
    see(state, text.len() as u64)?;
    let n_pieces = 1 + cuts(text) as u64;
    make(state, text.len() as u64 + n_pieces * size(&Value::from(0)) * 2)
}

fn split(state: &mut State, value: Value, separator: Option<Value>, n_most: Option<i64>) -> Result<Value, Error> {
    let separator = separator.filter(|separator| !separator.is_none());
    let separator = separator.map(|it| it.to_str().ok_or_else(|| bad("a text is cut at a text"))).transpose()?;
    let limit = n_most.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    make_pieces(state, &value, |text| match &separator {
        Some(separator) => text.matches(&**separator).take(limit).count(),
        None => text.split_whitespace().take(limit).count(),
    })?;
    minijinja::filters::split(&value, separator, n_most)
}

/// Of numbers alone: a sum of texts would be made anew with each.
fn sum(value: &Value) -> Result<Value, Error> {
    let mut whole = 0_i128;
    let mut real = None;
    for item in value.try_iter()?.checked() {
        let item = item?;
        match (item.is_integer(), real) {
            (true, None) => whole = whole.saturating_add(i128::try_from(item)?),
            _ => real = Some(real.unwrap_or(whole as f64) + f64::try_from(item)?),
        }
    }
    Ok(real.map_or_else(|| small(whole), Value::from))
}

fn indent(state: &mut State, value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let text = show(state, &value)?;
    let width = args.iter().find_map(|arg| {
        let named = arg.is_kwargs().then(|| arg.get_attr("width").ok()).flatten();
        named.or_else(|| Some(arg.clone())).and_then(|width| width.as_usize())
    });
    let n_lines = 1 + text.matches('\n').count() as u64;
    let width = width.unwrap_or(4) as u64;
    make(state, (text.len() as u64).saturating_add(n_lines.saturating_mul(width.saturating_add(1))))?;
    call_engine("indent", &Value::from(text), &args)
}

/// Pays for what a format can make of these values.
fn make_format(state: &mut State, format: &Value, args: &[Value]) -> Result<(), Error> {
    let text = format.as_str().ok_or_else(|| bad(format!("a format is a text, not {}", format.kind())))?;
    let digits = text.split(|c: char| !c.is_ascii_digit());
    let width =
        digits.filter(|digits| !digits.is_empty()).map(|digits| digits.parse().unwrap_or(u64::MAX)).max().unwrap_or(0);
    if width > MAX_WIDTH || text.contains('*') {
        return Err(bad(format!(
            "a field of a format is at most {MAX_WIDTH} characters wide, and its width is a number in the format"
        )));
    }
    let mut longest = width;
    for arg in args {
        longest = longest.max(show(state, arg)?.len() as u64);
    }
    let n_fields = text.matches(['%', '{']).count() as u64;
    // A character may take four bytes, and a quoted one six.
    make(state, (text.len() as u64).saturating_add(n_fields.saturating_mul(longest.saturating_mul(6))))
}

/// A filter of the engine whose name is ours in the environment.
fn call_engine(name: &str, value: &Value, args: &[Value]) -> Result<Value, Error> {
    let plain = Environment::new();
    let template = plain.template_from_str("")?;
    let mut all = vec![value.clone()];
    all.extend_from_slice(args);
    template.new_state().apply_filter(name, &all)
}

/// A map of its own in place of one that looks through others.
fn settle_map(state: &mut State, value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Map {
        return Ok(value);
    }
    let mut pairs = Vec::new();
    for key in value.try_iter()?.checked() {
        let key = key?;
        make(state, 2 * size(&Value::from(0)))?;
        pairs.push((key.clone(), value.get_item(&key)?));
    }
    Ok(pairs.into_iter().collect())
}

/// Methods of Python's texts, lists and dictionaries.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text_of =
        |arg: Option<&Value>| arg.and_then(|arg| arg.to_str()).ok_or_else(|| bad(format!("{name}() takes texts")));
    match (value.kind(), name) {
        (ValueKind::String, "join") => return join(state, args.first().unwrap_or(&Value::UNDEFINED), value, None),
        (ValueKind::String, "replace") => {
            let (from, to) = (text_of(args.first())?, text_of(args.get(1))?);
            let count = args.get(2).and_then(|count| count.as_i64()).and_then(|count| usize::try_from(count).ok());
            return replace(state, &text_of(Some(value))?, &from, &to, count);
        }
        (ValueKind::String, "split") => {
            return split(state, value.clone(), args.first().cloned(), args.get(1).and_then(|n| n.as_i64()));
        }
        (ValueKind::String, "splitlines") => make_pieces(state, value, |text| text.matches('\n').count())?,
        (ValueKind::String, "format") => make_format(state, value, args)?,
        (ValueKind::String, _) => {
            for it in std::iter::once(value).chain(args) {
                see_all(state, it)?;
            }
            make(state, size(value).saturating_mul(3))?;
        }
        (ValueKind::Map, "get") => see(state, 1)?,
        (ValueKind::Map, _) => see(state, size(value))?,
        _ => {
            see_all(state, value)?;
        }
    }
    let result = minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)?;
    settle(state, result)
}
