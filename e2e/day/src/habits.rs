//! Habits: what a person does with a phone on one day, drawn from what they do as a rule. Simulated, and pure.

use crate::dice::Dice;
use crate::parameters::{Parameters, Person};

/// Seconds after midnight, from and to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    from: f64,
    to: f64,
}

/// One phone's day.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    away: Vec<Span>,
    plugged: Vec<(Span, f64)>,
    uses: Vec<Use>,
    sun: Vec<(Span, f64)>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    span: Span,
    watts: f64,
    is_pausing: bool,
}

/// What goes on around a phone at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Circumstances {
    pub is_away: bool,
    pub charger_watts: Option<f64>,
    /// What its person's use takes.
    pub use_watts: f64,
    pub is_paused: bool,
    pub sun_watts: f64,
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
/// How long somebody looks at a screen, from and to.
const LOOK_MINUTES: [f64; 2] = [3.0, 12.0];

// === impl Habits ===

impl Habits {
    /// Draws a day.
    pub fn draw(person: &Person, of: &Parameters, dice: &mut Dice) -> Self {
        let mut habits = Self::default();
        let jitter = person.jitter_hours;
        for hours in &person.away {
            habits.away.extend(spans(hours.from, hours.to, jitter, dice));
        }
        for plugged in &person.plugged {
            let drawn = spans(plugged.from, plugged.to, jitter, dice);
            let watts = of.chargers.get(&plugged.by).copied().unwrap_or_default();
            if !dice.falls(person.forgets_charger) {
                habits.plugged.extend(drawn.into_iter().map(|span| (span, watts)));
            }
        }
        if let Some(screen) = person.screen {
            for awake in spans(screen.from, screen.to, 0.0, dice) {
                habits.look(awake, screen.minutes_an_hour, screen.watts, dice);
            }
        }
        if let Some(game) = person.game {
            let (is_on, pauses) = (dice.falls(game.chance), dice.falls(game.pauses));
            let from = dice.between(game.from, game.to) * HOUR;
            let span = Span { from, to: (from + game.minutes * 60.0).min(DAY) };
            habits.uses.extend(is_on.then_some(Use { span, watts: game.watts, is_pausing: pauses }));
        }
        if let Some(sun) = person.sun {
            habits.sun.extend(spans(sun.from, sun.to, jitter, dice).into_iter().map(|span| (span, sun.watts)));
        }
        habits
    }

    /// Looks at a screen, again and again.
    fn look(&mut self, awake: Span, minutes_an_hour: f64, watts: f64, dice: &mut Dice) {
        let mean = (LOOK_MINUTES[0] + LOOK_MINUTES[1]) / 2.0;
        let pause = (60.0 / minutes_an_hour - 1.0).max(0.0) * mean;
        let mut at = awake.from;
        loop {
            let from = at + dice.between(0.5, 1.5) * pause * 60.0;
            let to = from + dice.between(LOOK_MINUTES[0], LOOK_MINUTES[1]) * 60.0;
            if to >= awake.to {
                return;
            }
            self.uses.push(Use { span: Span { from, to }, watts, is_pausing: false });
            at = to;
        }
    }

    /// At so many seconds after midnight.
    pub fn at(&self, seconds: f64) -> Circumstances {
        let is_away = self.away.iter().any(|span| span.has(seconds));
        let watts = |of: &[(Span, f64)]| of.iter().find(|(span, _)| span.has(seconds)).map(|(_, watts)| *watts);
        let uses = || self.uses.iter().filter(|one| one.span.has(seconds));
        Circumstances {
            is_away,
            charger_watts: watts(&self.plugged).filter(|_| !is_away),
            use_watts: uses().map(|one| one.watts).fold(0.0, f64::max),
            is_paused: uses().any(|one| one.is_pausing),
            sun_watts: watts(&self.sun).unwrap_or(0.0),
        }
    }
}

// === impl Span ===

impl Span {
    fn has(self, seconds: f64) -> bool {
        (self.from..self.to).contains(&seconds)
    }
}

/// A span of the clock, moved by up to so many hours at either end; two where it goes over midnight.
fn spans(from: f64, to: f64, jitter: f64, dice: &mut Dice) -> Vec<Span> {
    let mut moved = |hours: f64| (hours + dice.between(-jitter, jitter)) * HOUR;
    let (from, to) = (moved(from).clamp(0.0, DAY), moved(to).clamp(0.0, DAY));
    if from <= to {
        return vec![Span { from, to }];
    }
    vec![Span { from: 0.0, to }, Span { from, to: DAY }]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_day_is_drawn_around_what_a_person_does_as_a_rule() {
        let of = Parameters::of_the_file().unwrap();
        let person = &of.people["commuter"];
        let mut dice = Dice::of(3, "ada");
        let habits = Habits::draw(&Person { forgets_charger: 0.0, ..person.clone() }, &of, &mut dice);
        assert!(habits.at(12.0 * HOUR).is_away && !habits.at(20.0 * HOUR).is_away);
        let at_night = [1.0, 3.0, 5.0, 23.9].map(|hour| habits.at(hour * HOUR));
        assert_eq!(at_night.map(|now| now.charger_watts), [Some(15.0); 4], "over midnight, too");
        assert_eq!(habits.at(20.0 * HOUR).charger_watts, None);
        let seconds_of_use = (0..86_400).filter(|second| habits.at(f64::from(*second)).use_watts > 0.0).count();
        assert!((1.5..6.0).contains(&(seconds_of_use as f64 / HOUR)), "{seconds_of_use} s");
        let forgets = Person { forgets_charger: 1.0, ..person.clone() };
        assert_eq!(Habits::draw(&forgets, &of, &mut dice).at(3.0 * HOUR).charger_watts, None);
    }
}
