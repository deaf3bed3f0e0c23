//! What is configured of approvals, and what it demands of approvers.

use std::collections::BTreeSet;

use cortex_core::grant::{MfaProof, Rules, SignInRules};
use cortex_identity::{IssuerConfig, Kind};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Approvals.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrantsConfig {
    /// How long a request waits for people, in seconds, 60 to 2,592,000. Default 86,400.
    pub request_ttl_s: i64,
    /// How long a run may use an approval, in seconds, 60 to 2,592,000. Default 86,400.
    pub approved_ttl_s: i64,
    /// How far ahead an approval of scheduled runs may end, in seconds, 60 to 31,536,000. Default 7,776,000.
    pub max_preapproval_s: i64,
    /// How long a waiting caller is told to wait before it asks again, in seconds. Default 5.
    pub poll_interval_s: u32,
    /// How many requests may wait at once for one policy. Default 1,000.
    pub max_waiting: i64,
    /// Whether the person who put a policy's version in force may be the only one who approves what it asks for.
    /// Default false.
    pub author_may_approve: bool,
    /// Authentication methods (`amr`), one of which every approver has to have used. Default none: a policy with
    /// `mfa: true` then wants the method `mfa`. One of these or one of `require_acr` is enough.
    pub require_amr: BTreeSet<String>,
    /// Authentication context classes (`acr`), one of which every approver's sign-in has to have. Default none.
    pub require_acr: BTreeSet<String>,
    /// How long ago an approver may have signed in, in seconds by their `auth_time`. Default 0: any time.
    pub max_auth_age_s: u32,
}

impl Default for GrantsConfig {
    fn default() -> Self {
        Self {
            request_ttl_s: 86_400,
            approved_ttl_s: 86_400,
            max_preapproval_s: 7_776_000,
            poll_interval_s: 5,
            max_waiting: 1_000,
            author_may_approve: false,
            require_amr: BTreeSet::new(),
            require_acr: BTreeSet::new(),
            max_auth_age_s: 0,
        }
    }
}

impl GrantsConfig {
    /// What is wrong with it, each in one sentence.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (what, value, most) in [
            ("grants.request_ttl_s", self.request_ttl_s, 2_592_000),
            ("grants.approved_ttl_s", self.approved_ttl_s, 2_592_000),
            ("grants.max_preapproval_s", self.max_preapproval_s, 31_536_000),
        ] {
            if !(60..=most).contains(&value) {
                faults.push(format!("{what} is {value}: write 60 to {most} seconds"));
            }
        }
        faults
    }
}

/// What holds for every approver of this Cortex.
#[derive(Debug, Clone)]
pub struct ApproverRules {
    /// Whether a policy may name a group without its issuer: there is one issuer of people only.
    pub bare_groups: bool,
    /// How they have to have signed in.
    pub sign_in: SignInRules,
    /// Whether the author of a policy's version may be its only approver.
    pub author_may_approve: bool,
    /// How long a run may use an approval.
    pub approved_for: SignedDuration,
}

impl ApproverRules {
    /// The rules of a configuration.
    pub fn new(config: &GrantsConfig, issuers: &[IssuerConfig]) -> Self {
        let max_age =
            (config.max_auth_age_s > 0).then(|| SignedDuration::from_secs(i64::from(config.max_auth_age_s)));
        let proof = MfaProof { amr: config.require_amr.clone(), acr: config.require_acr.clone() };
        Self {
            bare_groups: issuers.iter().filter(|issuer| issuer.kind == Kind::Person).count() == 1,
            sign_in: SignInRules { proof, max_age },
            author_may_approve: config.author_may_approve,
            approved_for: SignedDuration::from_secs(config.approved_ttl_s),
        }
    }

    /// The rules for a grant of a policy whose version in force `author` applied.
    pub fn of_author<'a>(&'a self, author: &'a str) -> Rules<'a> {
        Rules {
            bare_groups: self.bare_groups,
            sign_in: &self.sign_in,
            author,
            author_may_approve: self.author_may_approve,
        }
    }
}
