//! A grant as a row, and back.

use cortex_core::grant::{Approval, Asked, Grant, State, Uses};
use cortex_core::{Person, Principal};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::super::{StoreError, timestamp};
use super::corrupt;

#[derive(sqlx::FromRow)]
pub(super) struct GrantRow {
    id: Uuid,
    kind: String,
    request: Value,
    request_digest: Vec<u8>,
    policy: String,
    policy_digest: Vec<u8>,
    policy_version: i32,
    requester: Value,
    issuer: String,
    dag_id: String,
    tasks: Vec<String>,
    valid_for: Value,
    break_glass: bool,
    reason: Option<String>,
    ticket: Option<String>,
    approvers: Value,
    max_uses: Option<i32>,
    uses: i32,
    requested_at: i64,
    status: String,
    expires_at: i64,
    decided_at: Option<i64>,
    ended_at: Option<i64>,
    ended_by: Option<String>,
    ended_because: Option<String>,
    decisions: Value,
}

#[derive(serde::Deserialize)]
struct DecisionRow {
    person: String,
    on_record: String,
    account: Option<Person>,
    approve: bool,
    comment: Option<String>,
    at: i64,
}

/// The columns of a [`GrantRow`], its decisions among them.
macro_rules! select_grant {
    ($rest:literal) => {
        concat!(
            "SELECT g.id, g.kind, g.request, g.request_digest, g.policy, g.policy_digest, g.policy_version,
                    g.requester, g.issuer, g.dag_id, g.tasks, g.valid_for, g.break_glass, g.reason, g.ticket,
                    g.approvers, g.max_uses, g.uses, g.status, g.ended_by, g.ended_because,
                    (extract(epoch FROM g.requested_at) * 1000000)::int8 AS requested_at,
                    (extract(epoch FROM g.expires_at) * 1000000)::int8 AS expires_at,
                    (extract(epoch FROM g.decided_at) * 1000000)::int8 AS decided_at,
                    (extract(epoch FROM g.ended_at) * 1000000)::int8 AS ended_at,
                    COALESCE((SELECT jsonb_agg(jsonb_build_object('person', opened_principal(d.person),
                                     'on_record', d.person, 'account', opened_account(d.account),
                                     'approve', d.approve, 'comment', opened_text(d.comment),
                                     'at', (extract(epoch FROM d.decided_at) * 1000000)::int8)
                                     ORDER BY d.decided_at)
                              FROM grant_decision d WHERE d.grant_id = g.id), '[]') AS decisions
             FROM grant_request g ",
            $rest
        )
    };
}
pub(super) use select_grant;

impl GrantRow {
    /// The grant, as it stands at `now`: what is over is over before the supervisor has marked it.
    pub(super) fn grant(self, now: Timestamp) -> Result<Grant, StoreError> {
        let state = self.state(now)?;
        let asked = self.asked()?;
        let count = |number: i32| u32::try_from(number).map_err(corrupt);
        Ok(Grant {
            id: self.id.into(),
            request: self.request,
            request_digest: self.request_digest.as_slice().try_into().map_err(corrupt)?,
            policy: self.policy.parse().map_err(corrupt)?,
            policy_digest: self.policy_digest.as_slice().try_into().map_err(corrupt)?,
            policy_version: self.policy_version,
            asked,
            reason: self.reason,
            ticket: self.ticket,
            approvers: serde_json::from_value(self.approvers).map_err(corrupt)?,
            uses: Uses { max: self.max_uses.map(count).transpose()?, used: count(self.uses)? },
            requested_at: timestamp(self.requested_at)?,
            state,
        })
    }

    fn asked(&self) -> Result<Asked, StoreError> {
        let requester: Principal = serde_json::from_value(self.requester.clone()).map_err(corrupt)?;
        match (self.kind.as_str(), requester) {
            ("run", Principal::Run(requester)) => Ok(Asked::Run {
                requester,
                valid_for: serde_json::from_value(self.valid_for.clone()).map_err(corrupt)?,
                break_glass: self.break_glass,
            }),
            ("standing", Principal::Person(requester)) => Ok(Asked::Standing {
                requester,
                issuer: self.issuer.parse().map_err(corrupt)?,
                dag_id: self.dag_id.parse().map_err(corrupt)?,
                tasks: self
                    .tasks
                    .iter()
                    .map(|task| task.parse().map_err(corrupt))
                    .collect::<Result<_, _>>()?,
                until: self.until()?,
            }),
            (kind, _) => Err(corrupt(format!("a grant of kind {kind:?} with another kind's requester"))),
        }
    }

    /// When a standing approval ends: it is part of what was asked, whatever the request's own patience is.
    fn until(&self) -> Result<Timestamp, StoreError> {
        serde_json::from_value(self.request.get("until").cloned().unwrap_or_default()).map_err(corrupt)
    }

    fn state(&self, now: Timestamp) -> Result<State, StoreError> {
        let decisions: Vec<DecisionRow> = serde_json::from_value(self.decisions.clone()).map_err(corrupt)?;
        let expires_at = timestamp(self.expires_at)?;
        let decided_at = self.decided_at.map(timestamp).transpose()?;
        let ended_at = self.ended_at.map(timestamp).transpose()?;
        let (yes, no): (Vec<_>, Vec<_>) = decisions.into_iter().partition(|decision| decision.approve);
        let approvals = yes.into_iter().map(DecisionRow::word).collect::<Result<Vec<_>, _>>()?;
        let missing = || corrupt("a grant without the data of its status");
        Ok(match self.status.as_str() {
            "requested" | "approved" if expires_at <= now => State::Expired { at: expires_at, approvals },
            "requested" => State::Requested { expires_at, approvals },
            "approved" => {
                State::Approved { decided_at: decided_at.ok_or_else(missing)?, expires_at, approvals }
            }
            "denied" => State::Denied {
                decided_at: decided_at.ok_or_else(missing)?,
                by: no.into_iter().next().ok_or_else(missing)?.word()?,
            },
            "expired" => State::Expired { at: expires_at, approvals },
            "spent" => State::Spent { decided_at: decided_at.ok_or_else(missing)?, approvals },
            "withdrawn" => State::Withdrawn {
                by: Approval {
                    person: self.ended_by.clone().ok_or_else(missing)?,
                    on_record: self.ended_by.clone().ok_or_else(missing)?,
                    comment: self.ended_because.clone(),
                    at: ended_at.ok_or_else(missing)?,
                    account: None,
                },
            },
            "voided" => State::Voided {
                at: ended_at.ok_or_else(missing)?,
                because: self.ended_because.clone().ok_or_else(missing)?,
            },
            other => return Err(corrupt(format!("grant status {other:?}"))),
        })
    }
}

impl DecisionRow {
    fn word(self) -> Result<Approval, StoreError> {
        let Self { person, on_record, account, approve: _, comment, at } = self;
        Ok(Approval { person, on_record, comment, at: timestamp(at)?, account })
    }
}
