//! The grant: where a policy wants people to approve, their approval of exactly this request.

mod rules;

use cortex_core::grant::{self, Approvers, Asked, Grant, State, Wanted};
use cortex_core::policy::{self, BreakGlass, Demand, ValidFor};
use cortex_core::record::GrantUse;
use cortex_core::{Decision, Digest, Run};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use sqlx::PgConnection;

use crate::broker::Broker;
use crate::denial::{self, Refused};
use crate::exchange::{Context, Planned, decide};
use crate::store::grants::{self, GrantError, NewGrant};

pub use rules::{ApproverRules, GrantsConfig};

/// Settles the approval: not needed, given, or still to wait for.
pub(crate) async fn settle(
    broker: &Broker,
    context: &Context,
    planned: &[Planned],
) -> Result<Option<GrantUse>, Refused> {
    if !planned.iter().any(|one| one.needs_grant) {
        return Ok(None);
    }
    let terms = Terms::of(context)?;
    let mut connection = broker.pool.acquire().await.map_err(|e| away(e.into()))?;
    let run = grants::run_on_record(&mut connection, terms.run, broker.recorder.stamp()).await;
    let run = run.map_err(|error| away(error.into()))?;
    let new = new_grant(broker, context, planned, &terms, &run)?;
    let grant = find(&mut connection, context, &terms, new.request_digest).await.map_err(away)?;
    match grant {
        Some(grant) if is_usable(broker, context, planned, &grant) => approved(context, planned, &grant),
        Some(Grant { id, state: State::Denied { decided_at, by }, .. }) => {
            let why = by.comment.unwrap_or_else(|| "no reason given".to_owned());
            let description = format!("{} denied this at {decided_at}: {why}", by.person);
            Err(Refused::GrantDenied { grant_id: id, description })
        }
        Some(grant) if matches!(grant.state, State::Requested { .. }) => Err(pending(broker, &grant)),
        _ => {
            if let Some(missing) = terms.missing(context) {
                drop(connection);
                return Err(denial::of_missing(broker, context, missing).await);
            }
            let stamp = broker.recorder.stamp();
            let grant = grants::request(&mut connection, new, broker.live().grants.max_waiting, stamp).await;
            let grant = grant.map_err(away)?;
            announce(context, &grant);
            Err(pending(broker, &grant))
        }
    }
}

/// What the policy says about this approval.
struct Terms<'a> {
    run: &'a Run,
    approvers: &'a policy::Approvers,
    quorum: u8,
    valid_for: ValidFor,
    uses: Option<u16>,
    require: &'a [Demand],
}

impl<'a> Terms<'a> {
    fn of(context: &'a Context) -> Result<Self, Refused> {
        let changed = || denial::unavailable("the policy changed while this was decided; ask again");
        let run = context.principal().as_run().ok_or_else(changed)?;
        if context.request.break_glass {
            let way = context.policy.break_glass().ok_or_else(changed)?;
            return Ok(Self {
                run,
                approvers: way.approvers(),
                quorum: BreakGlass::QUORUM,
                valid_for: ValidFor::Task,
                uses: None,
                require: &[Demand::Reason],
            });
        }
        let approval = context.policy.approval().ok_or_else(changed)?;
        Ok(Self {
            run,
            approvers: approval.approvers(),
            quorum: approval.quorum(),
            valid_for: approval.valid_for(),
            uses: approval.uses(),
            require: approval.require(),
        })
    }

    /// What the policy demands of a request and this one does not have.
    fn missing(&self, context: &Context) -> Option<Demand> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
        self.require.iter().copied().find(|demand| match demand {
            Demand::Reason => !given(&context.request.reason),
            Demand::Ticket => !given(&context.request.ticket),
        })
    }
}

/// The grant that answers this request: that of exactly this request, or one that was given to the DAG's scheduled
/// runs. Where people said no to exactly this, that is the answer.
async fn find(
    connection: &mut PgConnection,
    context: &Context,
    terms: &Terms<'_>,
    digest: Digest,
) -> Result<Option<Grant>, GrantError> {
    let exact = grants::find(connection, digest, context.now).await?;
    let speaks = |grant: &Grant| match grant.state {
        State::Approved { .. } => true,
        State::Denied { .. } => grant.denial_holds(context.now),
        _ => false,
    };
    let scheduled = terms.run.run_type.as_ref().is_some_and(|kind| kind.as_str() == "scheduled");
    if exact.as_ref().is_some_and(speaks) || !scheduled || context.request.break_glass {
        return Ok(exact.filter(|grant| !matches!(grant.state, State::Denied { .. }) || speaks(grant)));
    }
    let standing = grants::find_standing(connection, context.policy.digest(), terms.run, context.now).await?;
    Ok(standing.or_else(|| exact.filter(|grant| !matches!(grant.state, State::Denied { .. }))))
}

/// Whether `grant` lets this through. Where its uses are gone, it still lets the run have what it has already.
fn is_usable(broker: &Broker, context: &Context, planned: &[Planned], grant: &Grant) -> bool {
    match grant.state {
        State::Approved { .. } => true,
        State::Spent { .. } => planned.iter().all(|one| broker.leases.again(one.ask, context.now).is_some()),
        _ => false,
    }
}

/// The policy has the last word, with the approval in hand.
fn approved(context: &Context, planned: &[Planned], grant: &Grant) -> Result<Option<GrantUse>, Refused> {
    let permits =
        |one: &Planned| matches!(decide(context, &one.provider, true), Some(Decision::Permit { .. }));
    if !planned.iter().all(permits) {
        return Err(denial::unavailable("the policy changed while this was decided; ask again"));
    }
    Ok(Some(GrantUse {
        id: grant.id,
        approvers: grant.approvals().iter().map(|approval| approval.on_record.clone()).collect(),
        standing: matches!(grant.asked, Asked::Standing { .. }),
        break_glass: grant.is_break_glass(),
    }))
}

fn pending(broker: &Broker, grant: &Grant) -> Refused {
    let handle = broker.keyring.grant_handle(grant.id);
    Refused::Pending { grant_id: grant.id, handle, interval_s: broker.live().grants.poll_interval_s }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn away(error: GrantError) -> Refused {
    tracing::warn!(%error, "a grant could not be read or requested");
    match error {
        GrantError::TooMany(_) | GrantError::PolicyChanged => denial::unavailable(&error.to_string()),
        _ => denial::unavailable("the grants cannot be read at the moment"),
    }
}

/// Breaking the glass is loud.
fn announce(context: &Context, grant: &Grant) {
    if grant.is_break_glass() {
        metrics::counter!("cortex_break_glass_requests_total").increment(1);
        tracing::error!(
            grant_id = %grant.id,
            policy = %grant.policy,
            run = context.subject,
            reason = grant.reason.as_deref().unwrap_or_default(),
            "BREAK GLASS requested: two people can let this run in although the policy is closed"
        );
    }
}

fn new_grant(
    broker: &Broker,
    context: &Context,
    planned: &[Planned],
    terms: &Terms<'_>,
    on_record: &Run,
) -> Result<NewGrant, Refused> {
    let scope = |one: &Planned| match terms.valid_for {
        ValidFor::Task => one.plan.scope.clone(),
        ValidFor::Run | ValidFor::Window { .. } => one.plan.scope_of_any_task(),
    };
    let scopes: Map<String, Value> = planned.iter().map(|one| (one.provider.clone(), scope(one))).collect();
    // What people approve is in the log for ever, with its digest: neither may name who started the run.
    let request = grant::request(
        on_record,
        &Wanted {
            policy: context.policy.name(),
            policy_digest: context.policy.digest(),
            targets: &Value::Object(scopes),
            ttl_seconds: context.max_ttl().as_secs(),
            valid_for: terms.valid_for,
            uses: terms.uses,
            break_glass: context.request.break_glass,
        },
    );
    let canonical = serde_json_canonicalizer::to_vec(&request).map_err(|e| Refused::Request {
        description: format!("the request has no canonical form: {e}"),
        decision_id: None,
    })?;
    let wait = SignedDuration::from_secs(broker.live().grants.request_ttl_s);
    let asked = Asked::Run {
        requester: terms.run.clone(),
        valid_for: terms.valid_for,
        break_glass: context.request.break_glass,
    };
    Ok(NewGrant {
        asked,
        request,
        request_digest: Digest::of(&canonical),
        policy: context.policy.name().clone(),
        policy_digest: context.policy.digest(),
        policy_version: context.policy_version(),
        approvers: approvers(terms.approvers, terms.quorum),
        max_uses: terms.uses,
        reason: context.request.reason.clone(),
        ticket: context.request.ticket.clone(),
        expires_at: context.now.saturating_add(wait).unwrap_or(Timestamp::MAX),
    })
}

/// A policy's approvers, as a grant keeps them.
pub(crate) fn approvers(named: &policy::Approvers, quorum: u8) -> Approvers {
    Approvers {
        groups: named.groups().map(str::to_owned).collect(),
        people: named.people().collect(),
        quorum: u32::from(quorum),
        mfa: named.mfa(),
    }
}
