//! Ending credentials before they expire, and saying no more about it than is so.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::freeze::Scope;
use crate::ids::IssuanceId;

/// Which issuances are revoked: those that were opened before the revocation was committed, and no later ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Selector {
    /// One issuance.
    Issuance {
        /// The issuance.
        issuance_id: IssuanceId,
    },
    /// Every issuance within a scope.
    Within {
        /// The scope.
        scope: Scope,
        /// Only those that were opened at this time or later.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        since: Option<Timestamp>,
    },
}

/// How far the revocation of one issuance has come. It is never said to be enforced on Cortex's word alone where a
/// cloud has to enforce it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The cloud has not confirmed it yet. It is tried until it has, or until the credential has expired.
    Pending {
        /// How often the cloud was asked in vain since it last confirmed something.
        attempts: i32,
        /// Why the last attempt failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_error: Option<String>,
    },
    /// Whoever enforces it has confirmed it.
    Enforced {
        /// When.
        at: Timestamp,
        /// What was confirmed, by whom, and what it does not say: request ids, the delay until it is felt.
        evidence: Value,
    },
    /// Nothing but its expiry ends it.
    ExpiresAt {
        /// When it expires.
        time: Timestamp,
        /// Why it cannot be ended sooner.
        why: String,
    },
}
