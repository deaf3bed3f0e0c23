//! What is written down: one [`Entry`] for each thing that happened, as exact canonical bytes.
//!
//! An entry is loggable by construction: none of its types can hold a secret.

mod archive;
pub mod personal;
mod target;
mod what;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::credential::{Lease, Revocation};
use crate::decision::Reason;
use crate::ids::{DecisionId, Digest, GrantId, IssuanceId, IssuerName, PolicyName, RecordId};
use crate::principal::{ClaimedRun, Principal};

pub use archive::{Archived, Dropped, Extent};
pub use target::target;
pub use what::What;

/// The largest leaf, in bytes: C2SP tile bundles carry a 16-bit length.
pub const LEAF_MAX: usize = 65_535;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this format.
    pub v: u8,
    /// The entry's own id.
    pub id: RecordId,
    /// When it happened, by the replica's clock.
    pub at: Timestamp,
    /// The replica that wrote it.
    pub replica: String,
    /// The version of Cortex that wrote it.
    pub build: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// An entry that is larger than [`LEAF_MAX`] or has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the entry has no canonical form of at most {LEAF_MAX} bytes: {0}")]
pub struct LeafError(String);

impl Entry {
    /// The canonical bytes (RFC 8785): what is stored, hashed and, later, verified.
    pub fn leaf(&self) -> Result<Vec<u8>, LeafError> {
        let leaf = serde_json::to_value(self).and_then(canonical).map_err(|e| LeafError(e.to_string()))?;
        if leaf.len() > LEAF_MAX {
            return Err(LeafError(format!("{} bytes", leaf.len())));
        }
        Ok(leaf)
    }
}

/// RFC 8785 for what records are made of: where every key is ASCII and every number a whole one that a double
/// holds, sorted keys are all that it asks beyond what `serde_json` writes, at a fraction of the general way's
/// time.
fn canonical(mut value: Value) -> serde_json::Result<Vec<u8>> {
    if !is_plain(&value) {
        return serde_json_canonicalizer::to_vec(&value);
    }
    value.sort_all_objects();
    serde_json::to_vec(&value)
}

fn is_plain(value: &Value) -> bool {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => {
            number.as_i64().map(i64::unsigned_abs).is_some_and(|magnitude| magnitude <= EXACT)
        }
        Value::Array(values) => values.iter().all(is_plain),
        Value::Object(object) => object.iter().all(|(key, value)| key.is_ascii() && is_plain(value)),
    }
}

/// Where an ask came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The request's id, which all its targets share.
    pub request_id: String,
    /// The caller's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<std::net::IpAddr>,
    /// SHA-256 of the subject token.
    pub token_digest: Digest,
    /// SHA-256 of the token's `jti`, where its issuer is a single-use one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti_digest: Option<Digest>,
    /// The service that claimed the run, where the token was not the run's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
}

/// An address that a person came from, or the commitment to one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Source(String);

impl Source {
    pub(crate) fn text_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

impl From<std::net::IpAddr> for Source {
    fn from(address: std::net::IpAddr) -> Self {
        Self(address.to_string())
    }
}

/// What was asked and decided, before a credential exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// The issuance that this opens.
    pub issuance_id: IssuanceId,
    /// The decision that permitted it.
    pub decision_id: DecisionId,
    /// Who asks.
    pub principal: Principal,
    /// Who asks, as one string.
    pub subject: String,
    /// Where the ask came from.
    pub caller: Caller,
    /// The policy that permits it.
    pub policy: PolicyName,
    /// The policy's version.
    pub policy_digest: Digest,
    /// The guardrails that were in force.
    pub guardrails_digest: Digest,
    /// The rules that decided.
    pub rules: Vec<String>,
    /// The approval that it is issued under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantUse>,
    /// The provider.
    pub provider: String,
    /// The rendered scope.
    pub scope: Value,
    /// The lifetime that is asked for, in seconds.
    pub ttl_seconds: i64,
    /// No credential of this issuance lives longer.
    pub worst_case_expiry: Timestamp,
    /// How a credential of this issuance can be ended early.
    pub revocation: Revocation,
    /// Why, in the caller's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The ticket that it belongs to, in the caller's words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ticket: Option<String>,
}

/// How a grant ended without a decision on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantEnd {
    /// The grant.
    pub grant_id: GrantId,
    /// The policy that wanted the approval.
    pub policy: PolicyName,
    /// The digest of what was asked.
    pub request_digest: Digest,
    /// The DAG.
    pub dag_id: String,
    /// The DAG run that asked; none for an approval of scheduled runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Its status before: `requested` or `approved`.
    pub was: String,
    /// Its status now: `withdrawn`, `expired` or `voided`.
    pub status: String,
    /// Who ended it, where somebody did: a person's or a run's principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in their words, or what changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// The approval that an issuance rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantUse {
    /// The grant.
    pub id: GrantId,
    /// Who approved, as principals.
    pub approvers: Vec<String>,
    /// It was given for the scheduled runs of the DAG, before this one asked.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub standing: bool,
    /// It let the run in although the policy was closed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub break_glass: bool,
}

/// How an intent ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A credential left, or was ready to.
    Issued {
        /// Its loggable half.
        lease: Lease,
        /// The caller was gone before the answer was ready.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        undelivered: bool,
    },
    /// No credential left.
    Failed {
        /// A short code: the cloud's own, `unavailable` or `mismatch`.
        code: String,
        /// What was the case.
        message: String,
        /// When a credential that came back and was withheld ends.
        #[serde(skip_serializing_if = "Option::is_none")]
        withheld_until: Option<Timestamp>,
    },
    /// The cloud may have minted a credential that nobody has.
    Indeterminate {
        /// What was the case.
        message: String,
        /// When it ends at the latest.
        worst_case_expiry: Timestamp,
    },
}

impl Outcome {
    /// Every outcome's name.
    pub const NAMES: &[&str] = &["issued", "failed", "indeterminate"];

    /// The outcome's name, as stored.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Issued { .. } => "issued",
            Self::Failed { .. } => "failed",
            Self::Indeterminate { .. } => "indeterminate",
        }
    }
}

/// A denial of a verified caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Denial {
    /// What the caller quotes to an admin.
    pub decision_id: DecisionId,
    /// Why, as a short code: `bad_value`, `no_match`, `when`, `replay`, or the verifier's own.
    pub code: String,
    /// The rules that decided, if a policy did.
    pub reasons: Vec<Reason>,
    /// Who asked, where the token was a principal's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// Who asked: the principal as one string, or issuer and `sub` of a token that proved no principal.
    pub subject: String,
    /// The request's id.
    pub request_id: String,
    /// The caller's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The policy that was asked for, as the caller wrote it; bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The policy's version, where there is such a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<Digest>,
    /// The provider that was asked for, where it got that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The run that a service claimed, whether it was confirmed or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_run: Option<ClaimedRun>,
    /// The service that claimed it, where the claim was confirmed and the run is the principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
}

/// The end of the revocation of issuances that share a provider and a way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// The provider.
    pub provider: String,
    /// What the cloud was asked to change, such as a role's ARN; empty where no cloud was asked.
    pub target: String,
    /// How it ended.
    #[serde(flatten)]
    pub how: SettledHow,
    /// Each issuance, and when its credential expires; at most 500, so that an entry has room for them.
    pub issuances: Vec<(IssuanceId, Timestamp)>,
}

/// How the revocation of an issuance ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SettledHow {
    /// Whoever enforces it has confirmed it.
    Enforced {
        /// What was confirmed, and by whom.
        evidence: Value,
    },
    /// Nothing but its expiry ends it.
    ExpiresAt {
        /// Why it cannot be ended sooner.
        why: String,
    },
}

/// A change of a policy or a guardrail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The version that is in force from now on; none when it went out of force.
    pub version: Option<i32>,
    /// The digest of that version.
    pub digest: Option<Digest>,
    /// Who applied it: a person's principal, or `operator:` and the operating system's user name for the
    /// command line straight on the database.
    pub by: String,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// The person signed out.
    SignedOut,
    /// An admin ended it.
    Revoked,
    /// The person was disabled.
    Disabled,
    /// The person was erased.
    Erased,
    /// It was not used for too long, or its time was over.
    Expired,
}

/// A person who is let in no longer, or again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonChange {
    /// The issuer that vouches for them.
    pub issuer: IssuerName,
    /// The `sub` that it knows them by.
    pub subject: String,
    /// The admin who did it, as principal.
    pub by: String,
}

/// The erasure of a person: from here on nobody can say who the commitments stood for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The person, as principal by their commitment. It names nobody.
    pub person: String,
    /// The commitments to what Airflows and command lines call them, which were erased with them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub users: Vec<String>,
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// The admin who did it, as principal.
    pub by: String,
}

/// A change of a signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key.
    pub kid: String,
    /// When it begins to sign.
    pub active_from: Timestamp,
    /// Who did it.
    pub by: String,
}

#[cfg(test)]
mod tests;
