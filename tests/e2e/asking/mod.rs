//! What auditors ask, and what they are answered.

mod questions;
mod reports;

pub(crate) use questions::known;
