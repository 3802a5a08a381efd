//! The verbs, one a file: each is its flags and what it does with them.

pub mod api_resources;
pub mod apply;
pub mod certs;
pub mod chat;
pub mod completion;
pub mod cordon;
pub mod delete;
pub mod describe;
pub mod down;
pub mod drain;
pub mod edit;
pub mod explain;
pub mod get;
pub mod join_command;
pub mod key;
pub mod lab;
pub mod logs;
pub mod model;
pub mod phone;
pub mod plan;
pub mod scale;
pub mod token;
pub mod top;
pub mod up;
pub mod version;
pub mod wait;
