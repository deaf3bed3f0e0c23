//! `POST /v1/preapprovals`: people's approval of a DAG's scheduled runs, asked for before they run. What comes of it
//! is a grant like any other: others decide on it, it is listed and withdrawn under `/v1/grants`.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cortex_core::grant::{Asked, WantedStanding, standing_request};
use cortex_core::ids::InvalidId;
use cortex_core::policy::{Demand, Policy};
use cortex_core::principal::Ident;
use cortex_core::{Digest, PolicyName};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::auth::{Caller, Role};
use super::credentials::{REASON_MAX, TICKET_MAX};
use super::error::Problem;
use super::grants::Shown;
use super::{App, body};
use crate::approval;
use crate::store::grants::{self, NewGrant};

/// The most tasks of one approval.
const TASKS_MAX: usize = 128;

/// What a person asks others to approve.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Preapproval {
    /// The policy, at the version in force. A new version ends the approval.
    #[schema(max_length = 64, example = "finance-data-publish")]
    policy: String,
    /// The DAG whose scheduled runs are approved.
    #[schema(min_length = 1, max_length = 250)]
    dag_id: String,
    /// Its tasks; every task where this is missing.
    #[schema(min_items = 1, max_items = 128)]
    tasks: Option<Vec<String>>,
    /// When it ends (RFC 3339).
    #[schema(example = "2026-12-31T00:00:00Z")]
    until: String,
    /// Why, for the approvers and the record; at most 500 bytes.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// The ticket that it belongs to; at most 200 bytes.
    #[schema(max_length = 200)]
    ticket: Option<String>,
}

/// Ask others to approve the scheduled runs of a DAG until an end date. The policy's approvers decide on it as on
/// any grant; whoever asks is not one of them.
#[utoipa::path(
    post, path = "/v1/preapprovals", tag = "grants", security(("bearer" = [])), request_body = Preapproval,
    responses(
        (status = 201, description = "The grant that waits for people.", body = Object),
        (status = 404, description = "No such policy.", body = Problem),
        (status = 409, description = "The policy changed.", body = Problem),
        (status = 422, description = "The policy does not allow this.", body = Problem),
        (status = 429, description = "Too many requests wait.", body = Problem),
    )
)]
pub(super) async fn make(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.need(&[Role::Approver, Role::Admin])?;
    let preapproval: Preapproval = body::json(&headers, &body)?;
    let new = new_grant(&app, &caller, preapproval)?;
    let broker = &app.broker;
    let mut connection = broker.pool.acquire().await?;
    let stamp = broker.recorder.stamp();
    let grant = grants::request(&mut connection, new, broker.live().grants.max_waiting, stamp).await?;
    Ok((StatusCode::CREATED, Shown::from(grant)).into_response())
}

fn new_grant(app: &App, caller: &Caller, preapproval: Preapproval) -> Result<NewGrant, Problem> {
    let Preapproval { policy, dag_id, tasks, until, reason, ticket } = preapproval;
    body::bounded("reason", reason.as_deref(), REASON_MAX)?;
    body::bounded("ticket", ticket.as_deref(), TICKET_MAX)?;
    let (dag_id, tasks) = (ident("dag_id", &dag_id)?, tasks_of(tasks)?);
    let broker = &app.broker;
    let until = until_of(&until, broker.clock.now(), broker.live().grants.max_preapproval_s)?;
    let catalogue = broker.library.catalogue();
    let none = || Problem::not_found("there is no such policy");
    let shelved = catalogue.policy(&policy.parse::<PolicyName>().map_err(|_| none())?).ok_or_else(none)?;
    let policy = shelved.policy().ok_or_else(Problem::internal)?;
    let terms = terms(policy, reason.as_deref(), ticket.as_deref())?;
    let targets: Map<String, Value> =
        policy.targets().map(|(provider, target)| (provider.to_owned(), target.clone())).collect();
    let request = standing_request(&WantedStanding {
        policy: policy.name(),
        policy_digest: policy.digest(),
        targets: &Value::Object(targets),
        ttl_seconds: policy.max_ttl().as_secs(),
        issuer: policy.issuer(),
        dag_id: &dag_id,
        tasks: &tasks,
        until,
    });
    let canonical = serde_json_canonicalizer::to_vec(&request).map_err(|_| Problem::internal())?;
    let wait = SignedDuration::from_secs(broker.live().grants.request_ttl_s);
    let patience = broker.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
    Ok(NewGrant {
        request,
        request_digest: Digest::of(&canonical),
        policy: policy.name().clone(),
        policy_digest: policy.digest(),
        policy_version: shelved.version(),
        approvers: approval::approvers(terms.approvers(), terms.quorum()),
        asked: Asked::Standing {
            requester: caller.person.clone(),
            issuer: policy.issuer().clone(),
            dag_id,
            tasks,
            until,
        },
        max_uses: None,
        reason,
        ticket,
        expires_at: patience.min(until),
    })
}

/// What the policy says about approvals, where it has any that can be given beforehand.
fn terms<'a>(
    policy: &'a Policy,
    reason: Option<&str>,
    ticket: Option<&str>,
) -> Result<&'a cortex_core::policy::Approval, Problem> {
    let refuse = |why: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    let approval =
        policy.approval().ok_or_else(|| refuse(format!("{} wants no approvals", policy.name())))?;
    if approval.uses().is_some() {
        let why = format!("{} counts the uses of each approval, so none is given beforehand", policy.name());
        return Err(refuse(why));
    }
    let given = |demand: &Demand| {
        let text = match demand {
            Demand::Reason => reason,
            Demand::Ticket => ticket,
        };
        text.is_some_and(|text| !text.trim().is_empty())
    };
    match approval.require().iter().find(|demand| !given(demand)) {
        Some(missing) => Err(refuse(format!("{} wants a {} with this", policy.name(), missing.as_str()))),
        None => Ok(approval),
    }
}

fn ident(what: &str, text: &str) -> Result<Ident, Problem> {
    text.parse().map_err(|why: InvalidId| Problem::bad_request(format!("{what}: {}", why.0)))
}

fn tasks_of(tasks: Option<Vec<String>>) -> Result<BTreeSet<Ident>, Problem> {
    let Some(tasks) = tasks else { return Ok(BTreeSet::new()) };
    if tasks.is_empty() || tasks.len() > TASKS_MAX {
        return Err(Problem::bad_request(format!("name 1 to {TASKS_MAX} tasks, or leave them out for all")));
    }
    tasks.iter().map(|task| ident("tasks", task)).collect()
}

fn until_of(text: &str, now: Timestamp, most_s: i64) -> Result<Timestamp, Problem> {
    let until: Timestamp =
        text.parse().map_err(|_| Problem::bad_request("until is written as 2026-12-31T00:00:00Z"))?;
    let latest = now.saturating_add(SignedDuration::from_secs(most_s)).unwrap_or(Timestamp::MAX);
    if until <= now || until > latest {
        return Err(Problem::bad_request(format!("until lies between now and {latest}")));
    }
    // Whole seconds: what is approved is written the same everywhere.
    Timestamp::from_second(until.as_second()).map_err(|_| Problem::internal())
}
