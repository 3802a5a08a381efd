//! What a bench makes of its samples: medians with intervals, goals met or missed, a table and a report. Pure.

pub mod answer;
pub mod budget;
pub mod energy;
pub mod goal;
pub mod kernel_line;
pub mod lab_report;
pub mod plan;
pub mod random_lab;
pub mod report;
pub mod round_line;
pub mod statistics;
pub mod steps;
