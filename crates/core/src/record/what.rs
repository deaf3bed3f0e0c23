//! The kinds of things that are written down.

use cortex_log::opening::{ChainOpened, ShardOpened};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Archived, Change, Denial, Dropped, Erasure, GrantEnd, KeyChange, Opening, Outcome, PersonChange,
    SessionEnd, Settled, Source,
};
use crate::credential::Lease;
use crate::freeze::Scope;
use crate::ids::{
    Digest, FreezeId, GrantId, HoldId, IssuanceId, NotificationId, PolicyName, RecordId, RevocationId,
    SessionId,
};
use crate::principal::Principal;
use crate::revocation::Selector;

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
    /// Callers whose tokens could not be verified, or who were turned away because too much was asked, counted: a flood
    /// of them is a handful of rows.
    #[serde(rename = "denials")]
    Denials {
        /// Why, as a short code.
        reason: String,
        /// The network that they came from: a /24 or a /48.
        network: String,
        /// The DAG whose runs they are, `issuer/dag`, where they were verified.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        dag: Option<String>,
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
    FreezeSet {
        /// The freeze.
        freeze_id: FreezeId,
        /// What is frozen.
        scope: Scope,
        /// Why, in the words of whoever set it.
        reason: String,
        /// Who set it, as a principal.
        by: String,
        /// When it ends by itself; none: when it is lifted.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        until: Option<Timestamp>,
    },
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
    /// A cloud has not confirmed, several times in a row, that it denies what is revoked; it is asked on.
    #[serde(rename = "revocation.failing")]
    RevocationFailing {
        /// The provider.
        provider: String,
        /// What it was asked to change, such as a role's ARN.
        target: String,
        /// How often it was asked in a row.
        attempts: i32,
        /// How many issuances wait for it.
        pending: i64,
        /// Why the last attempt failed.
        error: String,
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
        source: Option<Source>,
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
        source: Option<Source>,
    },
    /// A person is no longer let in, whatever token they show.
    #[serde(rename = "person.disabled")]
    PersonDisabled(PersonChange),
    /// A person is let in again.
    #[serde(rename = "person.enabled")]
    PersonEnabled(PersonChange),
    /// A person was erased: what the log has of them leads to nobody any more.
    #[serde(rename = "person.erased")]
    PersonErased(Erasure),
    /// A signing key was made, begins to sign, or is no longer published.
    #[serde(rename = "key.created")]
    KeyCreated(KeyChange),
    /// A new key takes over from a stated time.
    #[serde(rename = "key.rotated")]
    KeyRotated(KeyChange),
    /// A key is no longer published.
    #[serde(rename = "key.retired")]
    KeyRetired(KeyChange),
    /// A process began to write to the log, with a key that it alone has.
    #[serde(rename = "log.chain_opened")]
    ChainOpened(Box<ChainOpened>),
    /// A new tree begins: with a year, or after a recovery.
    #[serde(rename = "log.shard_opened")]
    ShardOpened(Box<ShardOpened>),
    /// Records are held: nothing drops them from the database until the hold is lifted.
    #[serde(rename = "log.hold_set")]
    HoldSet {
        /// The hold.
        hold_id: HoldId,
        /// Whose records.
        scope: Scope,
        /// Of what happened from then on; none: from the beginning.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        from: Option<Timestamp>,
        /// Of what happened before then; none: whenever.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        until: Option<Timestamp>,
        /// Why, in the words of whoever set it.
        reason: String,
        /// Who set it, as a principal.
        by: String,
    },
    /// A hold was lifted.
    #[serde(rename = "log.hold_lifted")]
    HoldLifted {
        /// The hold.
        hold_id: HoldId,
        /// Whose records it held.
        scope: Scope,
        /// Who lifted it, as a principal.
        by: String,
    },
    /// The log's beginning was archived.
    #[serde(rename = "log.archived")]
    Archived(Archived),
    /// Archived records are dropped from the database.
    #[serde(rename = "log.dropped")]
    Dropped(Dropped),
}

impl What {
    /// Every kind's name.
    pub const KINDS: &[&str] = &[
        "issuance.intent",
        "issuance.issued",
        "issuance.outcome",
        "denial",
        "denials",
        "policy.applied",
        "policy.retired",
        "guardrails.applied",
        "grant.requested",
        "preapproval.made",
        "grant.decided",
        "grant.withdrawn",
        "grant.expired",
        "grant.voided",
        "preapproval.ended",
        "notification.dead",
        "freeze.set",
        "freeze.lifted",
        "revocation.requested",
        "revocation.failing",
        "revocation.settled",
        "session.started",
        "session.ended",
        "session.refused",
        "person.disabled",
        "person.enabled",
        "person.erased",
        "key.created",
        "key.rotated",
        "key.retired",
        "log.chain_opened",
        "log.shard_opened",
        "log.hold_set",
        "log.hold_lifted",
        "log.archived",
        "log.dropped",
    ];

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
            Self::FreezeSet { .. } => "freeze.set",
            Self::FreezeLifted { .. } => "freeze.lifted",
            Self::RevocationRequested { .. } => "revocation.requested",
            Self::RevocationFailing { .. } => "revocation.failing",
            Self::RevocationSettled(_) => "revocation.settled",
            Self::SessionStarted { .. } => "session.started",
            Self::SessionEnded { .. } => "session.ended",
            Self::SessionRefused { .. } => "session.refused",
            Self::PersonDisabled(_) => "person.disabled",
            Self::PersonEnabled(_) => "person.enabled",
            Self::PersonErased(_) => "person.erased",
            Self::KeyCreated(_) => "key.created",
            Self::KeyRotated(_) => "key.rotated",
            Self::KeyRetired(_) => "key.retired",
            Self::ChainOpened(_) => "log.chain_opened",
            Self::ShardOpened(_) => "log.shard_opened",
            Self::HoldSet { .. } => "log.hold_set",
            Self::HoldLifted { .. } => "log.hold_lifted",
            Self::Archived(_) => "log.archived",
            Self::Dropped(_) => "log.dropped",
        }
    }
}
