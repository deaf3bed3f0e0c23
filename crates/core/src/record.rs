//! What is written down: one [`Entry`] for each thing that happened, as exact canonical bytes.
//!
//! An entry is loggable by construction: none of its types can hold a secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::credential::{Lease, Revocation};
use crate::decision::Reason;
use crate::freeze::{Freeze, Scope};
use crate::ids::{
    DecisionId, Digest, FreezeId, GrantId, IssuanceId, IssuerName, NotificationId, PolicyName, RecordId,
    RevocationId, SessionId,
};
use crate::principal::{ClaimedRun, Principal};
use crate::revocation::Selector;

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

/// The kinds of entries, each with its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum What {
    /// A cloud is about to be asked for a credential.
    #[serde(rename = "issuance.intent")]
    Intent(Box<Opening>),
    /// A credential that Cortex signs itself: intent and outcome in one, for it has no effect outside.
    #[serde(rename = "issuance.issued")]
    Issued {
        /// What was asked and decided.
        #[serde(flatten)]
        opening: Box<Opening>,
        /// What left.
        lease: Lease,
    },
    /// How an intent ended; exactly one for each intent.
    #[serde(rename = "issuance.outcome")]
    Outcome {
        /// The intent that it ends.
        issuance_id: IssuanceId,
        /// How.
        outcome: Outcome,
    },
    /// A verified caller was denied.
    #[serde(rename = "denial")]
    Denial(Box<Denial>),
    /// Callers whose tokens could not be verified, counted: a flood of them is a handful of rows.
    #[serde(rename = "denials")]
    Denials {
        /// Why, as a short code.
        reason: String,
        /// The network that they came from: a /24 or a /48.
        network: String,
        /// How many.
        count: u64,
        /// The first of them.
        since: Timestamp,
    },
    /// A policy came into force.
    #[serde(rename = "policy.applied")]
    PolicyApplied(Change),
    /// A policy went out of force.
    #[serde(rename = "policy.retired")]
    PolicyRetired(Change),
    /// A guardrail came into force or, without a version, went out of it.
    #[serde(rename = "guardrails.applied")]
    GuardrailsApplied(Change),
    /// A run asked for an approval.
    #[serde(rename = "grant.requested")]
    GrantRequested {
        /// The grant.
        grant_id: GrantId,
        /// What is asked, whole.
        request: Value,
        /// Its digest: what is approved.
        request_digest: Digest,
        /// Who asks.
        principal: Principal,
        /// The policy that wants the approval.
        policy: PolicyName,
        /// The policy's version.
        policy_digest: Digest,
        /// Why, in the requester's words.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The ticket that it belongs to, in the requester's words.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ticket: Option<String>,
        /// It asks to be let in although the policy is closed.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        break_glass: bool,
    },
    /// A person asked others to approve the scheduled runs of a DAG before they run.
    #[serde(rename = "preapproval.made")]
    PreapprovalMade {
        /// The grant.
        grant_id: GrantId,
        /// What is asked, whole.
        request: Value,
        /// Its digest: what is approved.
        request_digest: Digest,
        /// Who asks.
        principal: Principal,
        /// The policy that wants the approval.
        policy: PolicyName,
        /// The policy's version.
        policy_digest: Digest,
        /// Why, in the requester's words.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The ticket that it belongs to, in the requester's words.
        #[serde(skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
    },
    /// A person approved or denied.
    #[serde(rename = "grant.decided")]
    GrantDecided {
        /// The grant.
        grant_id: GrantId,
        /// The policy that wants the approval.
        policy: PolicyName,
        /// The digest of what was decided on.
        request_digest: Digest,
        /// The DAG.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        dag_id: Option<String>,
        /// The DAG run that asked; none for an approval of scheduled runs.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        run_id: Option<String>,
        /// Who decided.
        by: Principal,
        /// Yes or no.
        approve: bool,
        /// Their comment.
        #[serde(skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
        /// The grant's status after this decision.
        status: String,
        /// It lets a run in although the policy is closed.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        break_glass: bool,
    },
    /// The requester's side, or an approver, took a grant back.
    #[serde(rename = "grant.withdrawn")]
    GrantWithdrawn(GrantEnd),
    /// A grant's time was over, before or after it was approved.
    #[serde(rename = "grant.expired")]
    GrantExpired(GrantEnd),
    /// A new version of the policy made a grant void.
    #[serde(rename = "grant.voided")]
    GrantVoided(GrantEnd),
    /// An approval of scheduled runs ended: it was withdrawn, its time was over, or the policy changed.
    #[serde(rename = "preapproval.ended")]
    PreapprovalEnded(GrantEnd),
    /// A notification was given up; it waits for an administrator.
    #[serde(rename = "notification.dead")]
    NotificationDead {
        /// The notification.
        notification_id: NotificationId,
        /// The endpoint, by its configured name.
        endpoint: String,
        /// The kind of the record that it tells of.
        event: String,
        /// That record.
        record_id: RecordId,
        /// How often it was tried.
        attempts: i32,
        /// Why the last try failed.
        error: String,
    },
    /// Something was stopped.
    #[serde(rename = "freeze.set")]
    FreezeSet(Freeze),
    /// A freeze was lifted.
    #[serde(rename = "freeze.lifted")]
    FreezeLifted {
        /// The freeze.
        freeze_id: FreezeId,
        /// What was frozen.
        scope: Scope,
        /// Who lifted it, as a principal.
        by: String,
    },
    /// Issuances are to be revoked.
    #[serde(rename = "revocation.requested")]
    RevocationRequested {
        /// The revocation.
        revocation_id: RevocationId,
        /// Which issuances.
        #[serde(flatten)]
        selector: Selector,
        /// No issuance of a later id is meant.
        up_to: IssuanceId,
        /// Why, in the words of whoever asks.
        reason: String,
        /// Who asks, as a principal.
        by: String,
    },
    /// It is known how the revocation of these issuances ends.
    #[serde(rename = "revocation.settled")]
    RevocationSettled(Settled),
    /// A person signed in at the console.
    #[serde(rename = "session.started")]
    SessionStarted {
        /// The session.
        session_id: SessionId,
        /// Who, with the groups that their roles come from while it lasts.
        by: Principal,
        /// When it ends at the latest.
        ends_at: Timestamp,
        /// The browser's address.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<std::net::IpAddr>,
    },
    /// A session is over.
    #[serde(rename = "session.ended")]
    SessionEnded {
        /// The session.
        session_id: SessionId,
        /// Whose it was, as principal.
        person: String,
        /// Why it is over.
        why: SessionEnd,
        /// Who ended it, as principal; none if its time was over.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Somebody known was not let in, or was stopped at the console's door.
    #[serde(rename = "session.refused")]
    SessionRefused {
        /// Why, as a short code: the verifier's own, `disabled` or `cross_site`.
        reason: String,
        /// Who, as principal, or as issuer and `sub`.
        person: String,
        /// The request's id.
        request_id: String,
        /// The browser's address.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<std::net::IpAddr>,
    },
    /// A person is no longer let in, whatever token they show.
    #[serde(rename = "person.disabled")]
    PersonDisabled(PersonChange),
    /// A person is let in again.
    #[serde(rename = "person.enabled")]
    PersonEnabled(PersonChange),
    /// A signing key was made, begins to sign, or is no longer published.
    #[serde(rename = "key.created")]
    KeyCreated(KeyChange),
    /// A new key takes over from a stated time.
    #[serde(rename = "key.rotated")]
    KeyRotated(KeyChange),
    /// A key is no longer published.
    #[serde(rename = "key.retired")]
    KeyRetired(KeyChange),
}

impl What {
    /// The kind's name, as stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Intent(_) => "issuance.intent",
            Self::Issued { .. } => "issuance.issued",
            Self::Outcome { .. } => "issuance.outcome",
            Self::Denial(_) => "denial",
            Self::Denials { .. } => "denials",
            Self::PolicyApplied(_) => "policy.applied",
            Self::PolicyRetired(_) => "policy.retired",
            Self::GuardrailsApplied(_) => "guardrails.applied",
            Self::GrantRequested { .. } => "grant.requested",
            Self::PreapprovalMade { .. } => "preapproval.made",
            Self::GrantDecided { .. } => "grant.decided",
            Self::GrantWithdrawn(_) => "grant.withdrawn",
            Self::GrantExpired(_) => "grant.expired",
            Self::GrantVoided(_) => "grant.voided",
            Self::PreapprovalEnded(_) => "preapproval.ended",
            Self::NotificationDead { .. } => "notification.dead",
            Self::FreezeSet(_) => "freeze.set",
            Self::FreezeLifted { .. } => "freeze.lifted",
            Self::RevocationRequested { .. } => "revocation.requested",
            Self::RevocationSettled(_) => "revocation.settled",
            Self::SessionStarted { .. } => "session.started",
            Self::SessionEnded { .. } => "session.ended",
            Self::SessionRefused { .. } => "session.refused",
            Self::PersonDisabled(_) => "person.disabled",
            Self::PersonEnabled(_) => "person.enabled",
            Self::KeyCreated(_) => "key.created",
            Self::KeyRotated(_) => "key.rotated",
            Self::KeyRetired(_) => "key.retired",
        }
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
    pub source: Option<std::net::IpAddr>,
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
