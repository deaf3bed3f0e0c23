//! The grant: where a policy wants people to approve, their approval of exactly this request.

use cortex_core::grant::{self, Approvers, State};
use cortex_core::record::GrantUse;
use cortex_core::{Decision, Digest};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::broker::Broker;
use crate::denial::{self, Refused};
use crate::exchange::{Context, Planned, decide};
use crate::store::grants::{self, GrantError, NewGrant};

/// Settles the approval: not needed, given, or still to wait for.
pub(crate) async fn settle(
    broker: &Broker,
    context: &Context,
    planned: &[Planned],
) -> Result<Option<GrantUse>, Refused> {
    if !planned.iter().any(|one| one.needs_grant) {
        return Ok(None);
    }
    let grant = find_or_request(broker, context, planned).await?;
    match grant.state {
        State::Approved { approvals, .. } => {
            // The policy has the last word, with the approval in hand.
            let permits =
                |one: &Planned| matches!(decide(context, &one.provider, true), Some(Decision::Permit { .. }));
            if !planned.iter().all(permits) {
                return Err(denial::unavailable("the policy changed while this was decided; ask again"));
            }
            let approvers = approvals.into_iter().map(|approval| approval.person).collect();
            Ok(Some(GrantUse { id: grant.id, approvers }))
        }
        State::Requested { .. } | State::Expired { .. } => {
            let handle = broker.keyring.grant_handle(grant.id);
            Err(Refused::Pending { grant_id: grant.id, handle, interval_s: broker.grants.poll_interval_s })
        }
        State::Denied { decided_at, by } => {
            let why = by.comment.unwrap_or_else(|| "no reason given".to_owned());
            let description = format!("{} denied this at {decided_at}: {why}", by.person);
            Err(Refused::GrantDenied { grant_id: grant.id, description })
        }
    }
}

async fn find_or_request(
    broker: &Broker,
    context: &Context,
    planned: &[Planned],
) -> Result<grant::Grant, Refused> {
    let away = |error: GrantError| {
        tracing::warn!(%error, "a grant could not be read or requested");
        match error {
            GrantError::TooMany(_) => denial::unavailable(&error.to_string()),
            _ => denial::unavailable("the grants cannot be read at the moment"),
        }
    };
    let new = new_grant(broker, context, planned)?;
    let mut connection = broker.pool.acquire().await.map_err(|e| away(e.into()))?;
    let found = grants::find(&mut connection, new.request_digest, context.now).await;
    match found.map_err(|e| away(e.into()))? {
        Some(grant) if !matches!(grant.state, State::Expired { .. }) => Ok(grant),
        _ => {
            let stamp = broker.recorder.stamp();
            grants::request(&mut connection, new, broker.grants.max_waiting, stamp).await.map_err(away)
        }
    }
}

fn new_grant(broker: &Broker, context: &Context, planned: &[Planned]) -> Result<NewGrant, Refused> {
    let (Some(run), Some(approval)) = (context.principal().as_run(), context.policy.approval()) else {
        return Err(denial::unavailable("the policy changed while this was decided; ask again"));
    };
    let scopes: Map<String, Value> =
        planned.iter().map(|one| (one.provider.clone(), one.plan.scope.clone())).collect();
    let request = grant::request(
        run,
        context.policy.name(),
        context.policy.digest(),
        &Value::Object(scopes),
        context.max_ttl().as_secs(),
    );
    let canonical = serde_json_canonicalizer::to_vec(&request).map_err(|e| Refused::Request {
        description: format!("the request has no canonical form: {e}"),
        decision_id: None,
    })?;
    let wait = SignedDuration::from_secs(broker.grants.request_ttl_s);
    Ok(NewGrant {
        principal: context.principal().clone(),
        request,
        request_digest: Digest::of(&canonical),
        policy: context.policy.name().clone(),
        policy_digest: context.policy.digest(),
        approvers: Approvers {
            groups: approval.approvers().groups().map(str::to_owned).collect(),
            people: approval.approvers().people().collect(),
            quorum: u32::from(approval.quorum()),
        },
        reason: context.request.reason.clone(),
        expires_at: context.now.saturating_add(wait).unwrap_or(Timestamp::MAX),
    })
}
