//! A body: what a phone's battery holds and how warm it is, by what flows in and out. Simulated, and pure.
//!
//! Two masses, one behind the other: a core (board and shields), in which power becomes heat, and a shell with the cells, which air and a table
//! cool. Sensors tell the shell. A battery takes what a charger has over, and gives what it is short of.

use crate::parameters::BodyFigures;

/// The nominal voltage of a cell.
const VOLTS: f64 = 3.85;

#[derive(Clone, Debug)]
pub struct Body {
    figures: BodyFigures,
    core_celsius: f64,
    pub shell_celsius: f64,
    capacity_joules: f64,
    charge_joules: f64,
    /// Since the last step.
    is_charge_falling: bool,
    is_plugged: bool,
}

/// What acts on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flows {
    pub air_celsius: f64,
    /// All that it takes, whatever for.
    pub load_watts: f64,
    /// What its charger can give; none where there is none.
    pub charger_watts: Option<f64>,
    pub sun_watts: f64,
}

// === impl Body ===

impl Body {
    pub fn new(figures: BodyFigures, milliamp_hours: f64, charge_percent: f64, celsius: f64) -> Self {
        let capacity_joules = milliamp_hours / 1000.0 * VOLTS * 3600.0;
        Self {
            figures,
            core_celsius: celsius,
            shell_celsius: celsius,
            capacity_joules,
            charge_joules: capacity_joules * charge_percent / 100.0,
            is_charge_falling: false,
            is_plugged: false,
        }
    }

    pub fn percent(&self) -> f64 {
        100.0 * self.charge_joules / self.capacity_joules
    }

    pub fn is_empty(&self) -> bool {
        self.charge_joules <= 0.0
    }

    /// Whether its battery gives power now, on a charger or not.
    pub fn is_draining(&self) -> bool {
        self.is_charge_falling
    }

    /// As the app says it: on power that keeps up.
    pub fn is_charging(&self) -> bool {
        self.is_plugged && !self.is_charge_falling
    }

    /// The part of its speed that heat leaves its processor.
    pub fn speed(&self) -> f64 {
        let of = &self.figures;
        let over =
            (self.shell_celsius - of.throttles_from_celsius) / (of.throttled_to_celsius - of.throttles_from_celsius);
        1.0 - (1.0 - of.throttled_part) * over.clamp(0.0, 1.0)
    }

    /// Seconds go by.
    pub fn pass(&mut self, seconds: f64, flows: Flows) {
        let of = self.figures;
        let into = self.battery_watts(flows);
        let charge = (self.charge_joules + into * seconds).clamp(0.0, self.capacity_joules);
        self.charge_joules = charge;
        self.is_charge_falling = into < 0.0;
        self.is_plugged = flows.charger_watts.is_some();
        let lost = into.max(0.0) * (1.0 / of.charge_efficiency - 1.0);
        // The quicker of its two time constants is 80 s: ten parts of a step of seconds are exact enough.
        let part = seconds / 10.0;
        for _ in 0..10 {
            let outwards = (self.core_celsius - self.shell_celsius) / of.core_kelvin_per_watt;
            let to_air = (self.shell_celsius - flows.air_celsius) / of.kelvin_per_watt;
            self.core_celsius += (flows.load_watts - outwards) / of.core_joules_per_kelvin * part;
            self.shell_celsius += (outwards + flows.sun_watts + lost - to_air) / of.shell_joules_per_kelvin * part;
        }
    }

    fn battery_watts(&self, flows: Flows) -> f64 {
        let over = flows.charger_watts.unwrap_or(0.0) - flows.load_watts;
        if over < 0.0 {
            return over;
        }
        let of = &self.figures;
        if self.shell_celsius >= of.charge_stops_celsius {
            return 0.0;
        }
        let room = (100.0 - self.percent()) / (100.0 - of.full_faster_percent);
        over * of.charge_efficiency * room.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::parameters::Parameters;

    fn body(percent: f64) -> Body {
        Body::new(Parameters::of_the_file().unwrap().body, 4000.0, percent, 20.0)
    }

    #[test]
    fn a_battery_gives_and_takes_what_flows() {
        let mut draining = body(50.0);
        // 15.4 Wh, of which 1.54 W take a tenth in an hour.
        (0..720).for_each(|_| draining.pass(5.0, Flows { air_celsius: 20.0, load_watts: 1.54, ..Flows::default() }));
        assert!((draining.percent() - 40.0).abs() < 1e-6, "{}", draining.percent());
        assert!(draining.is_draining() && !draining.is_charging());
        let mut on_a_port = body(50.0);
        on_a_port.pass(5.0, Flows { load_watts: 4.0, charger_watts: Some(2.5), ..Flows::default() });
        assert!(on_a_port.percent() < 50.0 && !on_a_port.is_charging(), "the port does not keep up");
        let mut full = body(100.0);
        full.pass(5.0, Flows { load_watts: 1.0, charger_watts: Some(15.0), ..Flows::default() });
        assert!((full.percent() - 100.0).abs() < 1e-9 && full.is_charging());
    }

    #[test]
    fn a_body_settles_where_as_much_leaves_as_comes() {
        let mut body = body(50.0);
        let flows = Flows { air_celsius: 22.0, load_watts: 3.0, sun_watts: 1.0, ..Flows::default() };
        (0..2000).for_each(|_| body.pass(5.0, flows));
        assert!((body.shell_celsius - (22.0 + 4.0 * 5.0)).abs() < 0.1, "{}", body.shell_celsius);
        assert!((body.core_celsius - body.shell_celsius - 3.0 * 2.0).abs() < 0.1);
        assert!((body.speed() - 1.0).abs() < 1e-9);
        (0..2000).for_each(|_| body.pass(5.0, Flows { sun_watts: 9.0, ..flows }));
        assert!((body.speed() - 0.4).abs() < 1e-9, "far over where it is throttled most");
    }
}
