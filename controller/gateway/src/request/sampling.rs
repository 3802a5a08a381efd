//! Sampling: the fields that say how a token is drawn, with OpenAI's ranges, and vLLM's for the fields that are its own.

use std::collections::BTreeMap;

use polyphony_protocol::session::{MAX_LOGIT_BIASES, Sampling};
use serde_json::Value;

use super::{Fields, kind_of, shown};
use crate::errors::ApiError;

/// What an error shows of a key.
const MAX_SHOWN_CHARS: usize = 20;

/// All but the seed, which is drawn where none is given.
///
/// # Errors
/// 400 naming the first field that is wrong.
pub(super) fn sampling(fields: &Fields) -> Result<Sampling, ApiError> {
    let number = |name, expected, default, is_good: fn(f64) -> bool| {
        Ok::<_, ApiError>(fields.number(name, expected, is_good)?.unwrap_or(default) as f32)
    };
    let penalty = |name| number(name, "a number from -2 to 2", 0.0, |penalty| (-2.0..=2.0).contains(&penalty));
    // vLLM's clients send -1 for all.
    let top_k = fields.integer("top_k", -1, i64::from(u32::MAX))?.map_or(0, |k| k.max(0));
    let top_p = number("top_p", "a number from 0 to 1", 1.0, |p| (0.0..=1.0).contains(&p))?;
    // No probability at all still leaves the likeliest token.
    let (top_k, top_p) = if top_p > 0.0 { (top_k, top_p) } else { (1, 1.0) };
    Ok(Sampling {
        temperature: number("temperature", "a number from 0 to 2", 1.0, |t| (0.0..=2.0).contains(&t))?,
        top_k: u32::try_from(top_k).unwrap_or(0),
        top_p,
        seed: 0,
        min_p: number("min_p", "a number from 0 to 1", 0.0, |p| (0.0..=1.0).contains(&p))?,
        // No bound above, as in vLLM; but it has to stay a number when logits are divided by it in 32 bits.
        repetition_penalty: number("repetition_penalty", "a number above 0, such as 1.1", 1.0, |penalty| {
            (penalty as f32).is_normal() && penalty > 0.0
        })?,
        presence_penalty: penalty("presence_penalty")?,
        frequency_penalty: penalty("frequency_penalty")?,
        logit_bias: logit_bias(fields)?,
    })
}

/// Biases by token; those that change nothing are left out.
fn logit_bias(fields: &Fields) -> Result<BTreeMap<u32, f32>, ApiError> {
    let listed = match fields.get("logit_bias") {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(listed)) => listed,
        Some(other) => {
            let expected = format!("send an object of token ids with their biases, not {}", kind_of(other));
            return Err(ApiError::field("logit_bias", expected));
        }
    };
    if listed.len() > MAX_LOGIT_BIASES {
        let expected = format!("send biases of at most {MAX_LOGIT_BIASES} tokens, not {}", listed.len());
        return Err(ApiError::field("logit_bias", expected));
    }
    let mut biases = BTreeMap::new();
    for (key, value) in listed {
        // One way to write an id, so that none comes twice.
        let token = key.parse::<u32>().ok().filter(|token| token.to_string() == *key).ok_or_else(|| {
            let found: String = key.chars().take(MAX_SHOWN_CHARS).collect();
            ApiError::field("logit_bias", format_args!("send token ids as keys, such as \"50\", not {found:?}"))
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(|| {
            let found = shown(value);
            ApiError::field(&format!("logit_bias.{key}"), format_args!("send a number from -100 to 100, not {found}"))
        })?;
        if bias != 0.0 {
            biases.insert(token, bias as f32);
        }
    }
    Ok(biases)
}

#[cfg(test)]
mod tests {
    //! Each field with its range.
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<Sampling, ApiError> {
        sampling(&Fields::parse(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn defaults_are_those_of_openai_and_vllm() {
        let expected = Sampling { temperature: 1.0, ..Sampling::default() };
        assert_eq!(parse(json!({})).unwrap(), expected);
        let neutral = json!({
            "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1, "min_p": 0, "logit_bias": {},
        });
        assert_eq!(parse(neutral).unwrap(), expected);
        let unsaid = json!({"presence_penalty": null, "repetition_penalty": null, "min_p": null, "logit_bias": null});
        assert_eq!(parse(unsaid).unwrap(), expected);
    }

    #[test]
    fn every_field_is_taken_over() {
        let body = json!({
            "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1,
            "presence_penalty": -2, "frequency_penalty": 2.0, "logit_bias": {"50": -100, "7": 1.5, "8": 0},
        });
        let expected = Sampling {
            temperature: 0.5,
            top_k: 40,
            top_p: 0.9,
            seed: 0,
            min_p: 0.05,
            repetition_penalty: 1.1,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: [(7, 1.5), (50, -100.0)].into(),
        };
        assert_eq!(parse(body).unwrap(), expected);
    }

    #[test]
    fn no_probability_leaves_the_likeliest_token() {
        for nothing in [json!(0), json!(0.0), json!(1e-60)] {
            let sampling = parse(json!({"top_p": nothing, "top_k": 40})).unwrap();
            assert_eq!((sampling.top_k, sampling.top_p), (1, 1.0));
        }
    }

    #[test]
    fn a_number_out_of_its_range_is_named_with_the_range() {
        let cases = [
            ("min_p", json!(1.1), "min_p", "from 0 to 1, not 1.1"),
            ("min_p", json!(-0.1), "min_p", "from 0 to 1, not -0.1"),
            ("repetition_penalty", json!(0), "repetition_penalty", "above 0, such as 1.1, not 0"),
            ("repetition_penalty", json!(-1), "repetition_penalty", "not -1"),
            ("repetition_penalty", json!(1e39), "repetition_penalty", "not 1e+39"),
            ("repetition_penalty", json!(1e-60), "repetition_penalty", "above 0"),
            ("presence_penalty", json!(2.5), "presence_penalty", "from -2 to 2, not 2.5"),
            ("presence_penalty", json!("0"), "presence_penalty", "not a string"),
            ("frequency_penalty", json!(-3), "frequency_penalty", "from -2 to 2, not -3"),
            ("logit_bias", json!([1]), "logit_bias", "not an array"),
            ("logit_bias", json!({"the": 1}), "logit_bias", "token ids as keys, such as \"50\", not \"the\""),
            ("logit_bias", json!({"05": 1}), "logit_bias", "not \"05\""),
            ("logit_bias", json!({"-1": 1}), "logit_bias", "not \"-1\""),
            ("logit_bias", json!({"5": 101}), "logit_bias.5", "from -100 to 100, not 101"),
            ("logit_bias", json!({"5": "1"}), "logit_bias.5", "not a string"),
        ];
        for (name, value, param, words) in cases {
            let mut body = json!({});
            body[name] = value.clone();
            let error = parse(body).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{name}: {value}");
            assert!(error.message.contains(words), "{name}: {value}: {}", error.message);
        }
    }

    #[test]
    fn three_hundred_tokens_may_have_a_bias() {
        let biases = |n: u32| Value::Object((0..n).map(|id| (id.to_string(), json!(1))).collect());
        assert_eq!(parse(json!({"logit_bias": biases(300)})).unwrap().logit_bias.len(), 300);
        let error = parse(json!({"logit_bias": biases(301)})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("logit_bias"));
        assert!(error.message.contains("at most 300 tokens, not 301"), "{}", error.message);
    }
}
