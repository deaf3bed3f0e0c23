//! An approval by people of one exact request: what it is for, who gives it, and how it goes on and ends.
//!
//! ```text
//! requested -> approved | denied | expired | withdrawn | voided
//! approved  -> spent | expired | withdrawn | voided
//! ```

mod rules;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Digest, GrantId, IssuerName, PolicyName};
use crate::policy::{BreakGlass, ValidFor};
use crate::principal::{Ident, Person, Run};

pub use rules::{MfaProof, NotAllowed, Rules, SignInRules};

/// An approval, from request to end.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// What is asked, whole, as it is approved.
    pub request: Value,
    /// The digest of `request`: what is approved.
    pub request_digest: Digest,
    /// The policy that wants the approval.
    pub policy: PolicyName,
    /// The policy's version: a new one voids the grant.
    pub policy_digest: Digest,
    /// The number of that version, from 1.
    pub policy_version: i32,
    /// Whom it is for, and who asked.
    pub asked: Asked,
    /// Why, in the requester's words.
    pub reason: Option<String>,
    /// The ticket that it belongs to, in the requester's words.
    pub ticket: Option<String>,
    /// Who may approve, and how many of them it takes.
    pub approvers: Approvers,
    /// How many exchanges may use it.
    pub uses: Uses,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// Where it stands.
    pub state: State,
}

/// Whom a grant is for, and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Asked {
    /// A run asked for itself.
    Run {
        /// The try that asked first.
        requester: Run,
        /// What the approval holds for.
        valid_for: ValidFor,
        /// Whether it asks to be let in although the policy is closed.
        break_glass: bool,
    },
    /// A person asked for the scheduled runs of a DAG, before they run.
    Standing {
        /// Who asked.
        requester: Person,
        /// The Airflow of the runs.
        issuer: IssuerName,
        /// The DAG.
        dag_id: Ident,
        /// The tasks; none for every task of the DAG.
        tasks: BTreeSet<Ident>,
        /// When it ends.
        until: Timestamp,
    },
}

/// Who may approve, and how many of them it takes: a policy's words at the time of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvers {
    /// Groups, any member of which may approve, each as `issuer/group` or, where there is one issuer of people, as
    /// the group alone.
    pub groups: BTreeSet<String>,
    /// People, each as `issuer/subject`.
    pub people: BTreeSet<String>,
    /// How many different people it takes, 1 or more.
    pub quorum: u32,
    /// Whether they have to have signed in with more than one factor.
    #[serde(default)]
    pub mfa: bool,
}

/// How many exchanges may use a grant, and how many did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// How many may; none: any number.
    pub max: Option<u32>,
    /// How many did: exchanges that were let through, whether or not the cloud then answered.
    pub used: u32,
}

impl Uses {
    /// How many are left; none: any number.
    pub fn left(self) -> Option<u32> {
        self.max.map(|max| max.saturating_sub(self.used))
    }
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
        /// Who had approved.
        approvals: Vec<Approval>,
    },
    /// Its last use was made.
    Spent {
        /// When it was approved.
        decided_at: Timestamp,
        /// Who approved.
        approvals: Vec<Approval>,
    },
    /// The requester's side, or an approver, took it back.
    Withdrawn {
        /// When, who and why.
        by: Approval,
    },
    /// The policy has changed: this was never, or is no longer, what its new version asks for.
    Voided {
        /// When.
        at: Timestamp,
        /// What changed, in one sentence.
        because: String,
    },
}

impl State {
    /// The name of the status, as stored and as shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested { .. } => "requested",
            Self::Approved { .. } => "approved",
            Self::Denied { .. } => "denied",
            Self::Expired { .. } => "expired",
            Self::Spent { .. } => "spent",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Voided { .. } => "voided",
        }
    }

    /// Every status.
    pub const NAMES: [&'static str; 7] =
        ["requested", "approved", "denied", "expired", "spent", "withdrawn", "voided"];
}

/// One person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The person's principal.
    pub person: String,
    /// The same as the log has it; not shown.
    #[serde(skip)]
    pub on_record: String,
    /// Their comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The person, to tell whether a second account is theirs too; not shown.
    #[serde(skip)]
    pub account: Option<Person>,
}

impl Grant {
    /// Whether this is for breaking the glass.
    pub fn is_break_glass(&self) -> bool {
        matches!(self.asked, Asked::Run { break_glass: true, .. })
    }

    /// The DAG whose runs it is for.
    pub fn dag_id(&self) -> &Ident {
        match &self.asked {
            Asked::Run { requester, .. } => &requester.dag_id,
            Asked::Standing { dag_id, .. } => dag_id,
        }
    }

    /// The DAG run that asked; none where a person did for scheduled runs.
    pub fn run_id(&self) -> Option<&Ident> {
        match &self.asked {
            Asked::Run { requester, .. } => Some(&requester.run_id),
            Asked::Standing { .. } => None,
        }
    }

    /// Whether a denial still speaks for the same request at `now`: for a task or a run it is the last word, for
    /// longer times it holds as long as an approval would have.
    pub fn denial_holds(&self, now: Timestamp) -> bool {
        let State::Denied { decided_at, .. } = &self.state else { return false };
        let holds = match &self.asked {
            Asked::Run { break_glass: true, .. } => BreakGlass::LONGEST,
            Asked::Run { valid_for: ValidFor::Window { seconds }, .. } => SignedDuration::from_secs(*seconds),
            Asked::Run { .. } => return true,
            Asked::Standing { .. } => return false,
        };
        now < decided_at.saturating_add(holds).unwrap_or(Timestamp::MAX)
    }

    /// How long it holds once it is approved at `now`, where a run's approval holds for `for_run`.
    pub fn holds_until(&self, now: Timestamp, for_run: SignedDuration) -> Timestamp {
        let long = match &self.asked {
            Asked::Standing { until, .. } => return *until,
            Asked::Run { break_glass: true, .. } => for_run.min(BreakGlass::LONGEST),
            Asked::Run { valid_for: ValidFor::Window { seconds }, .. } => SignedDuration::from_secs(*seconds),
            Asked::Run { .. } => for_run,
        };
        now.saturating_add(long).unwrap_or(Timestamp::MAX)
    }
}

/// What a run asks for, as far as people approve it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The policy.
    pub policy: &'a PolicyName,
    /// The policy's version.
    pub policy_digest: Digest,
    /// The rendered scope of each target. For a run or a window: without what merely names the task that asks.
    pub targets: &'a Value,
    /// The lifetime, in seconds.
    pub ttl_seconds: i64,
    /// What the approval is to hold for.
    pub valid_for: ValidFor,
    /// How many exchanges may use it; none: any number.
    pub uses: Option<u16>,
    /// Whether it asks to be let in although the policy is closed.
    pub break_glass: bool,
}

/// What a run asks people to approve: everything that the approval is bound to, and nothing that changes between
/// two asks that it is meant to cover. So what is shown is what is approved.
pub fn request(run: &Run, wanted: &Wanted<'_>) -> Value {
    let mut request = serde_json::json!({
        "issuer": run.issuer,
        "dag_id": run.dag_id,
        "triggering_user": run.triggering_user,
        "attestation": run.attestation,
        "policy": wanted.policy,
        "policy_digest": wanted.policy_digest,
        "targets": wanted.targets,
        "ttl_seconds": wanted.ttl_seconds,
        "valid_for": wanted.valid_for,
    });
    let mut bind = |name: &str, value: Value| {
        if let Some(object) = request.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
    };
    if wanted.valid_for == ValidFor::Task {
        bind("task_id", run.task_id.as_str().into());
        bind("map_index", run.map_index.into());
    }
    if !matches!(wanted.valid_for, ValidFor::Window { .. }) {
        bind("run_id", run.run_id.as_str().into());
    }
    if let Some(uses) = wanted.uses {
        bind("uses", uses.into());
    }
    if wanted.break_glass {
        bind("break_glass", true.into());
    }
    request
}

/// What a person asks for the scheduled runs of a DAG.
#[derive(Debug, Clone, Copy)]
pub struct WantedStanding<'a> {
    /// The policy.
    pub policy: &'a PolicyName,
    /// The policy's version.
    pub policy_digest: Digest,
    /// The targets as the policy has them, with their holes.
    pub targets: &'a Value,
    /// The longest lifetime, in seconds.
    pub ttl_seconds: i64,
    /// The Airflow of the runs.
    pub issuer: &'a IssuerName,
    /// The DAG.
    pub dag_id: &'a Ident,
    /// The tasks; none for every task of the DAG.
    pub tasks: &'a BTreeSet<Ident>,
    /// When it ends.
    pub until: Timestamp,
}

/// What a person asks others to approve for the scheduled runs of a DAG, whole.
pub fn standing_request(wanted: &WantedStanding<'_>) -> Value {
    serde_json::json!({
        "issuer": wanted.issuer,
        "dag_id": wanted.dag_id,
        "tasks": wanted.tasks,
        "run_types": ["scheduled"],
        "policy": wanted.policy,
        "policy_digest": wanted.policy_digest,
        "targets": wanted.targets,
        "ttl_seconds": wanted.ttl_seconds,
        "until": wanted.until,
    })
}
