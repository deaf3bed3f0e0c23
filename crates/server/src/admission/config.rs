//! `[admission]`: how much is let in. A 0 lifts the limit that it stands for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much is let in, by this replica. What is turned away is told when to come back; a 0 lifts a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// How many requests of any kind are under way at once. Default 4,096. Probes, measurements and Cortex's keys are always answered.
    pub max_requests: usize,
    /// How many exchanges are under way at once. Default 1,024.
    pub max_exchanges: usize,
    /// How many more exchanges wait for their turn. Default 2,048.
    pub max_waiting: usize,
    /// How long an exchange waits for its turn, in milliseconds. Default 2,000.
    pub max_wait_ms: u64,
    /// How long an exchange waits for the quota of a cloud account, in milliseconds. Default 3,000.
    pub max_quota_wait_ms: u64,
    /// How many exchanges the tokens of one issuer may begin in a second. Default 1,000.
    pub issuer_per_second: u32,
    /// How many of them at once, after a rest. Default 10,000.
    pub issuer_burst: u32,
    /// How many exchanges the runs of one DAG may begin in a second. Default 200.
    pub dag_per_second: u32,
    /// How many of them at once, after a rest. Default 5,000.
    pub dag_burst: u32,
    /// How many credentials the runs of one DAG may have that live. Default 20,000.
    pub dag_active_leases: u32,
    /// How many exchanges one run, which is one try of one task, may begin in a second. Default 20.
    pub run_per_second: u32,
    /// How many of them at once, after a rest. Default 200.
    pub run_burst: u32,
    /// How many exchanges of one run are under way at once. Default 32.
    pub run_exchanges: u32,
    /// How many credentials one run may have that live. Default 256.
    pub run_active_leases: u32,
    /// How many exchanges may begin under one policy in a second. Default 500.
    pub policy_per_second: u32,
    /// How many of them at once, after a rest. Default 10,000.
    pub policy_burst: u32,
    /// How many exchanges under one policy are under way at once. Default 512.
    pub policy_exchanges: u32,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            max_requests: 4_096,
            max_exchanges: 1_024,
            max_waiting: 2_048,
            max_wait_ms: 2_000,
            max_quota_wait_ms: 3_000,
            issuer_per_second: 1_000,
            issuer_burst: 10_000,
            dag_per_second: 200,
            dag_burst: 5_000,
            dag_active_leases: 20_000,
            run_per_second: 20,
            run_burst: 200,
            run_exchanges: 32,
            run_active_leases: 256,
            policy_per_second: 500,
            policy_burst: 10_000,
            policy_exchanges: 512,
        }
    }
}

impl AdmissionConfig {
    /// No limit on who asks how often; what is under way stays bounded.
    pub fn unmetered() -> Self {
        Self {
            issuer_per_second: 0,
            dag_per_second: 0,
            dag_active_leases: 0,
            run_per_second: 0,
            run_exchanges: 0,
            run_active_leases: 0,
            policy_per_second: 0,
            policy_exchanges: 0,
            ..Self::default()
        }
    }

    /// What cannot work, each in one sentence that names the option.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (option, value) in [("max_requests", self.max_requests), ("max_exchanges", self.max_exchanges)] {
            if !(1..=1_000_000).contains(&value) {
                faults.push(format!("admission.{option} is {value}: write 1 to 1,000,000"));
            }
        }
        for (option, value) in
            [("max_wait_ms", self.max_wait_ms), ("max_quota_wait_ms", self.max_quota_wait_ms)]
        {
            if value > 30_000 {
                faults.push(format!("admission.{option} is {value}: write 0 to 30,000 milliseconds"));
            }
        }
        for (option, per_second, burst) in [
            ("issuer", self.issuer_per_second, self.issuer_burst),
            ("dag", self.dag_per_second, self.dag_burst),
            ("run", self.run_per_second, self.run_burst),
            ("policy", self.policy_per_second, self.policy_burst),
        ] {
            if per_second > 0 && burst == 0 {
                faults.push(format!(
                    "admission.{option}_burst is 0: write 1 or more, or lift {option}_per_second"
                ));
            }
        }
        faults
    }
}
