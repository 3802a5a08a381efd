//! A simulated day of phones: what the product decides, over models of batteries, heat, people and time.
//!
//! Real are the controller's decisions ([`polyphony_controller::reconcile::decide`]), the planner, and of each phone its policy and its
//! governor of duty. All else is a model here: batteries, bodies, habits, networks, computing, requests. A day is the same for the same seed.

mod body;
mod books;
mod day;
mod dice;
mod habits;
mod hand;
mod holding;
mod model;
mod news;
mod parameters;
mod phone;
mod planner;
mod report;
mod traffic;
mod world;

pub use day::{Regard, run};
pub use parameters::Parameters;
pub use report::{PhoneRow, Report};
