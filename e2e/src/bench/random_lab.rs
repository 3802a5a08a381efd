//! Random labs: four phones that nobody has chosen, the same for the same seed. Pure.
//!
//! Labs that are made by hand are made to show something. These say what is so of phones as they come.

use std::fmt::Write as _;

const N_PHONES: usize = 4;
/// Shares of a core of all phones together: what a lab may have on two cores is 1.6.
const MOST_CORES: f64 = 1.5;

/// A generator (splitmix64).
struct Random(u64);

// === impl Random ===

impl Random {
    /// From 0 to 1, without 1.
    fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// As likely within a doubling as within the next.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.part())
    }
}

/// The file of the lab of a seed, for `polyctl lab up`: shares of 0.1 to 0.8 of a core, 56 to 192 MiB, and ways to the access point of
/// 10 to 200 Mbit/s and 0.5 to 20 ms. Who is fast, near or large is each drawn by itself.
pub fn random_lab(seed: u64) -> String {
    let mut random = Random(seed);
    // Drawn anew until the machine can hold them together: no share is bent to fit.
    let shares = loop {
        let shares = [0; N_PHONES].map(|_| random.between(0.1, 0.8));
        if shares.iter().sum::<f64>() <= MOST_CORES {
            break shares;
        }
    };
    let (mut phones, mut links) = ("phones:\n".to_owned(), "profiles:\n  links:\n".to_owned());
    for (idx, share) in (1..).zip(shares) {
        let memory = random.between(56.0, 192.0).round();
        let [megabits, delay] = [random.between(10.0, 200.0), random.between(0.5, 20.0)];
        let (jitter, loss) = (delay / 8.0, random.between(0.001, 0.02));
        // Writing into a string cannot fail.
        let _ = writeln!(
            phones,
            "- {{name: phone-{idx}, cpu: {share:.2}, memory: {memory}Mi, backend: cpu, link: way-{idx}}}"
        );
        let _ = writeln!(
            links,
            "    way-{idx}: {{megabitsPerSecond: {megabits:.0}, delayMilliseconds: {delay:.1}, jitterMilliseconds: {jitter:.2}, \
             lossPercent: {loss:.3}}}"
        );
    }
    format!("# Random lab {seed}.\n{phones}{links}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use polyphony_farm::lab::Lab;

    use super::*;

    #[test]
    fn every_seed_is_a_lab_of_its_own_that_a_machine_of_two_cores_can_hold() {
        let labs: Vec<Lab> =
            (1..=20).map(|seed| Lab::parse(&random_lab(seed), Path::new("random.yaml")).unwrap()).collect();
        for (at, lab) in labs.iter().enumerate() {
            assert_eq!(lab.phones.len(), N_PHONES);
            let cores: f64 = lab.phones.iter().filter_map(|phone| phone.shape.cpu_cores).sum();
            assert!(cores <= 0.8 * 2.0, "{cores} cores");
            assert!(!labs[at + 1..].contains(lab));
        }
        assert_eq!(random_lab(7), random_lab(7));
        // Between them they hold what labs made by hand are made of: who is fastest is also who is farthest, and who is nearest.
        let fastest_is_farthest = |lab: &&Lab| {
            let most = |of: fn(&polyphony_farm::lab::Phone) -> f64| {
                lab.phones.iter().max_by(|a, b| of(a).total_cmp(&of(b))).map(|phone| &phone.name)
            };
            most(|phone| phone.shape.cpu_cores.unwrap())
                == most(|phone| phone.shape.link.as_ref().unwrap().delay.as_secs_f64())
        };
        assert!((1..20).contains(&labs.iter().filter(fastest_is_farthest).count()));
    }
}
