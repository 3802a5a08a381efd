//! The verbs, one a file: each is its flags and what it does with them.

pub mod apply;
pub mod chat;
pub mod delete;
pub mod describe;
pub mod down;
pub mod get;
pub mod logs;
pub mod up;
pub mod version;
pub mod wait;
