//! A phone of the day: a simulated body, network and processor, and the product's own policy and governor in it.

use std::time::{Duration, Instant};

use polyphony_agent::assignment::{Grace, patience};
use polyphony_agent::duty::Governor;
use polyphony_agent::platform::Battery;
use polyphony_agent::policy::{Limits, Policy};
use polyphony_agent::reading::Reading;
use polyphony_agent::told::Wishes;
use polyphony_model::Manifest;
use polyphony_protocol::hub::{Join, Speed, Withdrawal};
use polyphony_protocol::version;

use crate::body::{Body, Flows};
use crate::dice::Dice;
use crate::habits::{Circumstances, Habits};
use crate::holding::Holding;
use crate::parameters::{BodyFigures, Computing, Kind, Owned, Parameters, PhoneLimits};

/// Arithmetic and backend, as agents name them.
const NUMERICS: &str = "cpu-int8";
const GIB: f64 = (1_u64 << 30) as f64;

pub struct Phone {
    pub name: String,
    kind: Kind,
    figures: BodyFigures,
    computing: Computing,
    habits: Habits,
    pub body: Body,
    /// None of a phone that looks at neither battery nor heat.
    guard: Option<Guard>,
    pub holding: Holding,
    pub around: Circumstances,
    /// Since when it has been out of reach.
    pub away_since: Option<f64>,
    power: Power,
    /// It has withdrawn, and its host has had its time.
    has_let_go: bool,
    /// Without rests, throttling and its person: the time of a layer, and of the output matrix.
    layer_seconds: f64,
    head_seconds: f64,
}

/// The product's own parts.
struct Guard {
    policy: Policy,
    governor: Governor,
    duty: f64,
    withdrawn: Option<Withdrawal>,
    grace: Grace,
    /// When its segments end, where it takes no part.
    lets_go_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Power {
    On,
    /// Its battery is empty.
    Off,
    Booting {
        until: f64,
    },
}

// === impl Phone ===

impl Phone {
    pub fn new(owned: &Owned, of: &Parameters, manifest: &Manifest, limits: Option<PhoneLimits>, seed: u64) -> Self {
        let mut dice = Dice::of(seed, &owned.name);
        let (kind, person) = (of.kinds[&owned.kind], &of.people[&owned.person]);
        let [least, most] = person.charge_percent;
        let charge = dice.between(least, most);
        let spread = dice.between(1.0 - of.computing.spread, 1.0 + of.computing.spread);
        let habits = Habits::draw(person, of, &mut dice);
        let hyperparameters = &manifest.hyperparameters;
        let seconds = |bytes: u64, multiply_adds: u64| {
            let reading = bytes as f64 / (kind.peak_gigabytes_per_second * of.computing.part_of_bandwidth * 1e9);
            reading.max(multiply_adds as f64 / (kind.gflops * 1e9 / 2.0)) * spread
        };
        let head = polyphony_model::Holds { embedding: false, layers: Default::default(), head: true };
        let guard = limits.map(|limits| Guard {
            policy: Policy::new(Limits {
                min_battery_percent: limits.min_battery_percent,
                max_temperature_celsius: limits.max_temperature_celsius,
            }),
            governor: Governor::new(limits.hold_temperature_celsius),
            duty: 1.0,
            withdrawn: None,
            grace: Grace::default(),
            lets_go_at: None,
        });
        Self {
            name: owned.name.clone(),
            kind,
            figures: of.body,
            computing: of.computing,
            habits,
            body: Body::new(of.body, kind.milliamp_hours, charge, of.room.celsius),
            guard,
            holding: Holding::default(),
            around: Circumstances::default(),
            away_since: None,
            power: Power::On,
            has_let_go: false,
            layer_seconds: seconds(manifest.layer_bytes(0), hyperparameters.multiply_adds_per_layer()),
            head_seconds: seconds(manifest.bytes_of(&head), hyperparameters.multiply_adds_of_head()),
        }
    }

    /// What its agent says when it joins: what it measured of itself at rest.
    pub fn join(&self) -> Join {
        let kind = &self.kind;
        let speed = Speed {
            backend: "cpu".into(),
            device: "simulated".into(),
            numerics: NUMERICS.into(),
            gflops: kind.gflops,
            batch_gflops: kind.gflops,
            prefill_gflops: kind.gflops,
            gigabytes_per_second: kind.peak_gigabytes_per_second * self.computing.part_of_bandwidth,
        };
        let memory = kind.memory_gibibytes * GIB;
        Join {
            version: version::CURRENT,
            phone: self.name.clone(),
            agent_version: "simulated".into(),
            hardware: Default::default(),
            ring_address: "127.0.0.1:1".into(),
            capacity_bytes: memory as u64,
            allocatable_bytes: (memory * self.computing.part_of_memory) as u64,
            backend: "cpu".into(),
            device: "simulated".into(),
            numerics: NUMERICS.into(),
            speeds: vec![speed],
            kv_caches: ["f32", "f16", "q8"].map(str::to_owned).into(),
            metrics_address: String::new(),
            instance: "1".into(),
        }
    }

    /// Seconds go by from `at` on, after the midnight that is `midnight`; it computes for so many of them.
    pub fn pass(&mut self, midnight: Instant, at: f64, seconds: f64, air_celsius: f64, computed_seconds: f64) {
        self.around = self.habits.at(at);
        let ring_watts = if self.holding.is_empty() { 0.0 } else { self.figures.ring_watts };
        let load_watts = match self.power {
            Power::On => self.computing.idle_watts + self.around.use_watts + ring_watts,
            Power::Off | Power::Booting { .. } => 0.0,
        };
        self.body.pass(
            seconds,
            Flows {
                air_celsius,
                load_watts: load_watts + self.computing_joules(computed_seconds) / seconds,
                charger_watts: self.around.charger_watts,
                sun_watts: self.around.sun_watts,
            },
        );
        let now = at + seconds;
        self.power = match self.power {
            _ if self.body.is_empty() => Power::Off,
            Power::Off if self.body.percent() >= self.figures.boot_percent => {
                Power::Booting { until: now + self.figures.boot_seconds }
            }
            Power::Booting { until } if now >= until => Power::On,
            power => power,
        };
        let was_away = self.away_since.take();
        self.away_since = self.around.is_away.then(|| was_away.unwrap_or(at));
        let reading = self.reading();
        if let Some(guard) = &mut self.guard {
            guard.look(&reading, midnight, now);
        }
        let lets_go_at = self.guard.as_ref().and_then(|guard| guard.lets_go_at);
        self.has_let_go = lets_go_at.is_some_and(|at| instant_of(midnight, now) >= at);
        if !self.is_here() || self.has_let_go {
            self.holding.let_go();
        }
        self.holding.pass(seconds);
    }

    /// As its agent's sensors tell it.
    fn reading(&self) -> Reading {
        let celsius = (self.body.shell_celsius * 10.0).round() / 10.0;
        Reading {
            battery: Battery {
                percent: Some(self.body.percent().clamp(0.0, 100.0) as u8),
                is_charging: Some(self.body.is_charging()),
                temperature_celsius: Some(celsius),
                discharge_watts: None,
            },
            shell_celsius: Some(celsius),
            wishes: Wishes { is_paused: self.around.is_paused, is_leaving: false },
            ..Reading::default()
        }
    }

    /// The same, as far as it looks and says it.
    pub fn said(&self) -> Option<Reading> {
        self.guard.as_ref().map(|_| self.reading())
    }

    pub fn withdrawal(&self) -> Option<&Withdrawal> {
        self.guard.as_ref()?.withdrawn.as_ref()
    }

    pub fn is_on(&self) -> bool {
        self.power == Power::On
    }

    /// Whether its agent runs and is reached.
    pub fn is_here(&self) -> bool {
        self.is_on() && self.away_since.is_none()
    }

    /// Whether what it is given is taken up.
    pub fn takes_segments(&self) -> bool {
        !self.has_let_go
    }

    /// What it computes of a token: so many layers, and the output matrix or not. Without rests.
    pub fn work_seconds(&self, n_layers: u32, head: bool) -> f64 {
        let beside = if self.around.use_watts > 0.0 { self.computing.beside_person } else { 1.0 };
        let whole = f64::from(n_layers) * self.layer_seconds + if head { self.head_seconds } else { 0.0 };
        whole / (self.body.speed() * beside)
    }

    /// The part of its time that it computes at most.
    pub fn duty(&self) -> f64 {
        self.guard.as_ref().map_or(1.0, |guard| guard.duty)
    }

    pub fn computing_joules(&self, computed_seconds: f64) -> f64 {
        computed_seconds * self.kind.computing_watts
    }

    pub fn ring_joules(&self, seconds: f64) -> f64 {
        if self.holding.is_empty() { 0.0 } else { self.figures.ring_watts * seconds }
    }
}

fn instant_of(midnight: Instant, seconds: f64) -> Instant {
    midnight + Duration::from_secs_f64(seconds)
}

// === impl Guard ===

impl Guard {
    /// As the agent's steward does it.
    fn look(&mut self, reading: &Reading, midnight: Instant, now: f64) {
        let instant = instant_of(midnight, now);
        self.withdrawn = self.policy.judge(reading, instant);
        self.lets_go_at = self.grace.hear(self.withdrawn.as_ref().map(|found| patience(found.reason)), instant);
        self.duty = self.governor.judge(reading.warmth(), instant);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::hub::WithdrawalReason;

    use super::*;
    use crate::model;

    #[test]
    fn a_phone_on_a_port_that_gives_less_than_it_computes_with_goes_seldom_and_is_back_with_more_charge() {
        let mut of = Parameters::of_the_file().unwrap();
        of.people.get_mut("hub").unwrap().charge_percent = [21.0, 21.0];
        let owned = Owned { name: "hub-1".into(), kind: "galaxy-s10e".into(), person: "hub".into() };
        let resolved = model::resolved(&of.model).unwrap();
        let mut phone = Phone::new(&owned, &of, &resolved.manifest, Some(of.limits), 1);
        let (midnight, mut was_low, mut turns) = (Instant::now(), false, Vec::new());
        for step in 0..2880 {
            // 3.4 W of the port's 2.5 while it takes part, and so few that heat has no say in it.
            let computed_seconds = if was_low { 0.0 } else { 3.0 };
            phone.pass(midnight, f64::from(step) * 5.0, 5.0, 20.0, computed_seconds);
            let reason = phone.withdrawal().map(|withdrawal| withdrawal.reason);
            assert!(matches!(reason, None | Some(WithdrawalReason::BatteryLow)), "{reason:?}");
            if reason.is_some() != was_low {
                was_low = reason.is_some();
                turns.push((step, phone.body.percent()));
            }
        }
        // In four hours: it takes 40 minutes to lose five points, and a quarter of an hour to get them.
        assert!((3..=12).contains(&turns.len()), "{turns:?}");
        assert!(turns.iter().all(|(_, percent)| (19.5..20.0).contains(percent) || *percent >= 25.0), "{turns:?}");
    }
}
