//! When a cloud account that does not answer is left alone.

use jiff::SignedDuration;
use jiff::fmt::serde::duration::friendly::compact::required as friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Faults;

/// A circuit breaker: an account whose calls fail is not called for a while, and then one call tries whether it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// How many mints in a row may fail until an account is left alone; half of the last 32 do the same. A refusal is no
    /// failure. Default 5.
    pub failures: u32,
    /// How long it is left alone the first time, such as `5s`; twice as long each further time, with some chance in it.
    /// Default: 5 s.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub open_for: SignedDuration,
    /// How long it is left alone at the most, such as `1m`. Default: 1 minute.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub open_at_most: SignedDuration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let (open_for, open_at_most) = (SignedDuration::from_secs(5), SignedDuration::from_mins(1));
        Self { failures: 5, open_for, open_at_most }
    }
}

impl Faults {
    /// The faults of what holds for each account of `provider`.
    pub(super) fn account(&mut self, provider: &str, per_second: u32, at_once: u32, breaker: &BreakerConfig) {
        let range = 1..=100_000;
        let fault = "has to be 1 to 100,000";
        self.unless(range.contains(&per_second), &format!("{provider}.max_calls_per_second"), fault);
        self.unless(range.contains(&at_once), &format!("{provider}.max_concurrent_calls"), fault);
        let failures = format!("{provider}.breaker.failures");
        self.unless((1..=32).contains(&breaker.failures), &failures, "has to be 1 to 32");
        let (least, most) = (SignedDuration::from_millis(10), SignedDuration::from_hours(1));
        self.between(&format!("{provider}.breaker.open_for"), breaker.open_for, least, most);
        self.between(&format!("{provider}.breaker.open_at_most"), breaker.open_at_most, least, most);
    }
}
