//! An approval by people, bound to one exact request of one run.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Digest, GrantId, PolicyName};
use crate::principal::{Person, Run};

/// An approval, from request to decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// What is asked, whole: run, policy version, targets with their rendered scopes, lifetime.
    pub request: Value,
    /// The digest of `request`: what is approved.
    pub request_digest: Digest,
    /// The policy that wants the approval.
    pub policy: PolicyName,
    /// The policy's version: a new one voids the grant, for it changes the request's digest.
    pub policy_digest: Digest,
    /// Who started the run by hand, who may not approve it.
    pub triggering_user: Option<String>,
    /// Why, in the requester's words.
    pub reason: Option<String>,
    /// Who may approve, and how many of them it takes.
    pub approvers: Approvers,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
}

/// Who may approve, and how many of them it takes: a policy's words at the time of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvers {
    /// Groups, any member of which may approve.
    pub groups: BTreeSet<String>,
    /// People, each as `issuer/subject`.
    pub people: BTreeSet<String>,
    /// How many different people it takes, 1 or more.
    pub quorum: u32,
}

/// Where a grant stands. The table's CHECK says the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum State {
    /// Waiting for people.
    Requested {
        /// After this it is too late to approve.
        expires_at: Timestamp,
        /// Who approved so far, fewer than the quorum.
        approvals: Vec<Approval>,
    },
    /// Enough people said yes.
    Approved {
        /// When the last of them did.
        decided_at: Timestamp,
        /// After this nothing is issued under it.
        expires_at: Timestamp,
        /// Who they were.
        approvals: Vec<Approval>,
    },
    /// Somebody said no.
    Denied {
        /// When.
        decided_at: Timestamp,
        /// Who, and why.
        by: Approval,
    },
    /// Nobody decided in time, or the grant's time is over.
    Expired {
        /// When.
        at: Timestamp,
    },
}

/// One person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The person's principal.
    pub person: String,
    /// Their comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Why a person may not decide on a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The policy names others.
    #[error("the policy names other approvers")]
    NotAnApprover,
    /// They started the run themselves.
    #[error("nobody approves a run that they started themselves")]
    OwnRequest,
}

impl Grant {
    /// Whether `person` may approve or deny this.
    pub fn may_decide(&self, person: &Person) -> Result<(), NotAllowed> {
        if self.triggering_user.as_deref().is_some_and(|user| is_same(user, person)) {
            return Err(NotAllowed::OwnRequest);
        }
        let by_group = self.approvers.groups.iter().any(|group| person.groups.contains(group));
        let by_name = self.approvers.people.iter().any(|name| is_named(name, person));
        if by_group || by_name { Ok(()) } else { Err(NotAllowed::NotAnApprover) }
    }
}

/// Whether a policy's `people` names this person: by their exact subject or their whole address.
fn is_named(name: &str, person: &Person) -> bool {
    name == person.subject || person.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(name))
}

/// Whether a user name, as Airflow knows it, may be this person's: their subject, their address, or the part
/// of it before the `@`. Loose on purpose: a false match costs one approver, a miss lets one approve their own.
fn is_same(user: &str, person: &Person) -> bool {
    let email = person.email.as_deref();
    let local = email.and_then(|email| email.split_once('@')).map(|(local, _)| local);
    [Some(person.subject.as_str()), email, local]
        .into_iter()
        .flatten()
        .any(|name| name.eq_ignore_ascii_case(user))
}

/// What a run asks people to approve: everything that matters, and nothing that changes between two tries.
pub fn request(run: &Run, policy: &PolicyName, digest: Digest, targets: &Value, ttl_seconds: i64) -> Value {
    serde_json::json!({
        "issuer": run.issuer,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": run.task_id,
        "map_index": run.map_index,
        "triggering_user": run.triggering_user,
        "attestation": run.attestation,
        "policy": policy,
        "policy_digest": digest,
        "targets": targets,
        "ttl_seconds": ttl_seconds,
    })
}
