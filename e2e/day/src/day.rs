//! The day itself: step by step, what people and bodies do, what phones say, what the controller decides, and who is answered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use polyphony_api::inference_deployment::PowerPolicy;
use polyphony_controller::reconcile::generations::Generation;
use polyphony_controller::reconcile::observe::ObjectKey;
use polyphony_model::KvType;

use crate::books::Books;
use crate::holding::Sizes;
use crate::model::resolved;
use crate::news::News;
use crate::parameters::{Parameters, Room};
use crate::phone::Phone;
use crate::report::Report;
use crate::traffic::{Ring, Stage, Traffic};
use crate::world::{Done, World, is_there};

/// What is looked at on the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regard {
    /// Phones keep their limits, and the deployment has its power policy.
    Limits,
    /// Phones tell nothing of battery and heat, and keep no limits.
    Blind,
    /// Nobody asks for anything: what people alone do to their phones.
    Rest,
}

/// Lives through the day of a seed.
///
/// # Errors
/// When the parameters make no model, or a decision of the controller breaks down.
pub fn run(of: &Parameters, seed: u64, regard: Regard) -> Result<Report> {
    let resolved = resolved(&of.model)?;
    let manifest = &resolved.manifest;
    let mut spec = of.deployment.clone();
    if regard == Regard::Blind {
        spec.placement.power_policy = PowerPolicy::default();
    }
    let limits = Some(of.limits).filter(|_| regard != Regard::Blind);
    let mut phones: Vec<Phone> = of.phones.iter().map(|owned| Phone::new(owned, of, manifest, limits, seed)).collect();
    let hyperparameters = &manifest.hyperparameters;
    let kv_bytes = hyperparameters.kv_bytes_per_token_per_layer(KvType::F16) * u64::from(hyperparameters.n_layers);
    let (sizes, suspected_after) = (Sizes::of(manifest), Duration::from_secs_f64(of.network.suspected_after_seconds));
    let mut traffic = Traffic::new(of, kv_bytes, seed);
    let mut books = Books::new(of.limits, &phones);
    let mut world = World::new(Some(spec).filter(|_| regard != Regard::Rest), resolved.clone());
    let mut news = News::default();
    let (midnight, seconds) = (Instant::now(), of.step_seconds);
    let mut computed = vec![0.0; phones.len()];
    for step in 0..(of.hours * 3600.0 / seconds) as u64 {
        let at = step as f64 * seconds;
        for (phone, computed) in phones.iter_mut().zip(&computed) {
            let air = air_celsius(&of.room, phone, at);
            phone.pass(midnight, at, seconds, air, *computed);
        }
        world.see(&phones, at + seconds, seconds, suspected_after);
        let done = if news.are(&world.observed, at) { world.reconcile(&traffic)? } else { Done::default() };
        for phone in phones.iter_mut().filter(|phone| phone.is_here() && phone.takes_segments()) {
            let assigned = world.assigned(&phone.name);
            phone.holding.keep(&assigned, &sizes, &of.network);
        }
        let (rings, alive) = rings(&world, &phones);
        computed = match regard {
            Regard::Rest => vec![0.0; phones.len()],
            Regard::Limits | Regard::Blind => traffic.pass(at, seconds, &rings, &alive, phones.len()),
        };
        time(&world, &mut phones, &rings, &computed);
        books.note_plan(&done.created);
        books.note_told(done.told);
        books.note_answering(at, seconds, !rings.is_empty());
        for (place, phone) in phones.iter().enumerate() {
            let in_ring = rings.iter().flat_map(|ring| &ring.stages).any(|stage| stage.phone == place);
            books.note_phone(place, phone, in_ring || computed[place] > 0.0, computed[place], seconds);
        }
    }
    Ok(books.close(traffic.tally))
}

/// Coolest at four in the morning, warmest at four in the afternoon.
fn air_celsius(room: &Room, phone: &Phone, at: f64) -> f64 {
    if phone.around.is_away {
        return room.away_celsius;
    }
    let since_four = at / 3600.0 - 4.0;
    room.celsius - room.swing_celsius * (since_four / 24.0 * std::f64::consts::TAU).cos()
}

/// The rings that answer: the controller knows them ready, and their phones are there in truth. And those that are there, whatever is known of them.
fn rings(world: &World, phones: &[Phone]) -> (Vec<Ring>, BTreeSet<crate::traffic::RingKey>) {
    let (mut rings, mut alive): (Vec<Ring>, BTreeSet<_>) = Default::default();
    for generation in world.generations().iter().filter(|generation| is_there(generation, phones)) {
        alive.insert(generation.ring());
        if generation.is_served(&world.observed) {
            // The newest of a replica is the one that answers.
            rings.retain(|ring| ring.key.0 != generation.ring().0);
            rings.push(ring_of(generation, phones));
        }
    }
    (rings, alive)
}

fn ring_of(generation: &Generation<'_>, phones: &[Phone]) -> Ring {
    let stage = |placement: &&polyphony_api::SegmentPlacement| {
        let place = phones.iter().position(|phone| phone.name == placement.spec.phone)?;
        let holds = &placement.spec.holds;
        let work_seconds = phones[place].work_seconds(holds.to - holds.from, holds.head);
        Some(Stage { phone: place, work_seconds, seconds: work_seconds / phones[place].duty() })
    };
    let max_sessions = generation.segments.first().map_or(0, |first| first.spec.max_sessions);
    Ring {
        key: generation.ring(),
        stages: generation.segments.iter().filter_map(stage).collect(),
        max_sessions: max_sessions as usize,
    }
}

/// Who computed has timed it.
fn time(world: &World, phones: &mut [Phone], rings: &[Ring], computed: &[f64]) {
    for generation in world.generations() {
        if !rings.iter().any(|ring| ring.key == generation.ring()) {
            continue;
        }
        for placement in &generation.segments {
            let Some(place) = phones.iter().position(|phone| phone.name == placement.spec.phone) else { continue };
            if computed[place] > 0.0 {
                let phone = &mut phones[place];
                let seconds = phone.work_seconds(1, false) / phone.duty();
                phone.holding.time(&ObjectKey::of(*placement), seconds);
            }
        }
    }
}
