//! Tables of decisions: what happens in which world.

mod balancing;
mod change;
mod classes;
mod departures;
mod efficiency;
mod encoder;
mod failures;
mod fetching;
mod loss;
mod phones;
mod planning;
mod ready;
mod relayed;
mod restart;
mod setbacks;
mod sharing;
mod underway;
mod writing;

use super::fixtures::World;

/// Three phones of which two hold the model, and one deployment.
fn three_phones() -> World {
    World::new().with_phones(&[60, 60, 60]).with_deployment(|_| ())
}
