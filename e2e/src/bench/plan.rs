//! Plan: which phone holds which layers, as placements say it. Pure.

use std::fmt;

use serde::Serialize;

/// One stage: a phone and its layers `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    pub phone: String,
    pub from: u64,
    pub to: u64,
}

/// The stages of one generation, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan(pub Vec<Held>);

// === impl Plan ===

impl Plan {
    /// Whether one phone holds all `n_layers`, and no other phone any.
    pub fn is_alone_on(&self, phone: &str, n_layers: u64) -> bool {
        self.0 == [Held { phone: phone.to_owned(), from: 0, to: n_layers }]
    }

    /// One past the last layer that is held.
    pub fn n_layers(&self) -> u64 {
        self.0.iter().map(|held| held.to).max().unwrap_or(0)
    }
}

impl fmt::Display for Plan {
    /// `phone-4 0-13, phone-3 14-29`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Held { phone, from, to }) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{phone} {from}-{}", to.saturating_sub(1))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(stages: &[(&str, u64, u64)]) -> Plan {
        Plan(stages.iter().map(|&(phone, from, to)| Held { phone: phone.to_owned(), from, to }).collect())
    }

    #[test]
    fn alone_is_who_holds_every_layer_and_nobody_else() {
        assert!(plan(&[("phone-1", 0, 30)]).is_alone_on("phone-1", 30));
        for (stages, why) in [
            (vec![("phone-1", 0, 29)], "a layer is missing"),
            (vec![("phone-2", 0, 30)], "another phone"),
            (vec![("phone-11", 0, 30)], "a name that begins alike"),
            (vec![("phone-1", 0, 20), ("phone-2", 20, 30)], "two phones"),
            (vec![], "nothing is placed"),
        ] {
            assert!(!plan(&stages).is_alone_on("phone-1", 30), "{why}");
        }
    }

    #[test]
    fn a_plan_reads_as_phones_and_their_first_and_last_layer() {
        let two = plan(&[("phone-4", 0, 14), ("phone-3", 14, 30)]);
        assert_eq!((two.to_string().as_str(), two.n_layers()), ("phone-4 0-13, phone-3 14-29", 30));
    }
}
