//! Integration tests of the kernels: every engine against the oracle, and against itself.

#![allow(clippy::unwrap_used)]

mod it {
    pub mod cache;
    pub mod engines;
    pub mod experts;
    pub mod family_twins;
    pub mod fused;
    pub mod int8;
    pub mod known_answers;
    pub mod kv_types;
    pub mod lending;
    pub mod mixed;
    pub mod orders;
    pub mod random;
    pub mod refusals;
    pub mod rounding;
    pub mod same_bits;
    pub mod twins;
}
