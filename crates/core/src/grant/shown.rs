//! A grant as people and their tools read it: everything that bears on the decision.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Approvers, Asked, Grant, State};
use crate::ids::{Digest, GrantId, PolicyName};
use crate::policy::ValidFor;
use crate::principal::Attestation;

#[derive(Serialize)]
struct Shown<'a> {
    id: GrantId,
    #[serde(flatten)]
    asked: &'a Asked,
    request: &'a Value,
    request_digest: Digest,
    policy: &'a PolicyName,
    policy_digest: Digest,
    policy_version: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    approvers: &'a Approvers,
    uses: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses_left: Option<u32>,
    warnings: Vec<String>,
    requested_at: Timestamp,
    #[serde(flatten)]
    state: &'a State,
}

impl Serialize for Grant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shown {
            id: self.id,
            asked: &self.asked,
            request: &self.request,
            request_digest: self.request_digest,
            policy: &self.policy,
            policy_digest: self.policy_digest,
            policy_version: self.policy_version,
            reason: self.reason.as_deref(),
            ticket: self.ticket.as_deref(),
            approvers: &self.approvers,
            uses: self.uses.used,
            max_uses: self.uses.max,
            uses_left: self.uses.left(),
            warnings: self.warnings(),
            requested_at: self.requested_at,
            state: &self.state,
        }
        .serialize(serializer)
    }
}

impl Grant {
    /// What an approver should not overlook, each in one sentence.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match &self.asked {
            Asked::Standing { until, tasks, .. } => {
                let tasks = if tasks.is_empty() { "every task" } else { "the named tasks" };
                warnings.push(format!(
                    "This approves {tasks} of every scheduled run of the DAG until {until}, before they ask."
                ));
            }
            Asked::Run { requester, valid_for, break_glass } => {
                if *break_glass {
                    warnings.push(
                        "This breaks the glass: the run is let in although the policy is closed at this hour."
                            .to_owned(),
                    );
                }
                match valid_for {
                    ValidFor::Task => {}
                    ValidFor::Run => warnings.push("This approves every task of the DAG run.".to_owned()),
                    ValidFor::Window { seconds } => warnings.push(format!(
                        "This approves every run of the DAG for {} minutes from the approval on.",
                        seconds / 60
                    )),
                }
                let by_hand = requester.run_type.as_ref().is_some_and(|kind| kind.as_str() == "manual");
                if by_hand && requester.triggering_user.is_none() {
                    warnings.push(
                        "The run was started by hand and does not say by whom: make sure that it was not you."
                            .to_owned(),
                    );
                }
                if requester.attestation != Attestation::Issuer {
                    warnings.push(format!(
                        "The run's identity was proven by {}, not by its Airflow.",
                        requester.attestation.as_str()
                    ));
                }
            }
        }
        warnings
    }
}
