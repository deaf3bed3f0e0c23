//! `GET /v1/grants/{id}/status`: where a grant stands, for the one who waits for it. What waits (an Airflow
//! trigger) has no identity of its own, so it shows the grant's handle, which is good for nothing else.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use cortex_core::GrantId;
use cortex_core::grant::{Approval, Approvers, Grant, State as GrantState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::bearer;
use super::error::Problem;
use super::grants::parse_id;
use super::{App, Client};
use crate::store::grants;

/// The longest wait, in seconds: shorter than any request may take.
const WAIT_MAX_S: u64 = 20;
/// How often a waiting request looks, beside the time that the database takes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusQuery {
    /// How long to wait for a decision, in seconds, at most 20; 0 by default.
    #[param(minimum = 0, maximum = 20)]
    #[serde(default)]
    wait: u64,
}

/// Where a grant stands.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct GrantStatus {
    /// The grant.
    grant_id: String,
    /// The policy that wants it.
    policy: String,
    /// `requested`, `approved`, `denied` or `expired`.
    status: &'static str,
    /// When it was decided.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<Timestamp>,
    /// Who approved or denied it so far.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decided_by: Vec<String>,
    /// Who may approve it, and how many of them it takes, while it waits.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    approvers: Option<Approvers>,
    /// What they said, where they said something.
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    /// When the request or, once approved, the approval ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl From<Grant> for GrantStatus {
    fn from(grant: Grant) -> Self {
        let waits = matches!(grant.state, GrantState::Requested { .. });
        let (status, decided_at, words, expires_at) = match grant.state {
            GrantState::Requested { expires_at, approvals } => {
                ("requested", None, approvals, Some(expires_at))
            }
            GrantState::Approved { decided_at, expires_at, approvals } => {
                ("approved", Some(decided_at), approvals, Some(expires_at))
            }
            GrantState::Denied { decided_at, by } => ("denied", Some(decided_at), vec![by], None),
            GrantState::Expired { at, .. } => ("expired", None, Vec::new(), Some(at)),
            // What waits knows four words; these three say to it what it has to do.
            GrantState::Spent { decided_at, approvals } => ("approved", Some(decided_at), approvals, None),
            GrantState::Withdrawn { by } => ("denied", Some(by.at), vec![by], None),
            GrantState::Voided { at, because } => {
                let cortex = "cortex".to_owned();
                let (person, on_record) = (cortex.clone(), cortex);
                let word = Approval { person, on_record, comment: Some(because), at, account: None };
                ("expired", Some(at), vec![word], None)
            }
        };
        let comments: Vec<&str> = words.iter().filter_map(|word| word.comment.as_deref()).collect();
        Self {
            grant_id: grant.id.to_string(),
            policy: grant.policy.to_string(),
            status,
            approvers: waits.then_some(grant.approvers),
            decided_at,
            comment: (!comments.is_empty()).then(|| comments.join("; ")),
            decided_by: words.into_iter().map(|Approval { person, .. }| person).collect(),
            expires_at,
        }
    }
}

/// Where a grant stands. The bearer is the grant's handle, which came with `authorization_pending`.
#[utoipa::path(
    get, path = "/v1/grants/{id}/status", tag = "runs", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The grant."), StatusQuery),
    responses(
        (status = 200, description = "Where it stands now, or after the wait.", body = GrantStatus),
        (status = 400, description = "Not an id, or too long a wait.", body = Problem),
        (status = 401, description = "Not this grant's handle.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
    )
)]
pub(super) async fn status(
    State(app): State<App>,
    client: Client,
    Path(id): Path<String>,
    query: Result<Query<StatusQuery>, axum::extract::rejection::QueryRejection>,
    parts: Parts,
) -> Result<Json<GrantStatus>, Problem> {
    let id = parse_id(&id)?;
    if !bearer(&parts).is_some_and(|handle| app.broker.keyring.is_grant_handle(id, handle)) {
        app.broker.noise.count("grant", client.source, app.broker.clock.now());
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "send Authorization: Bearer and the grant's handle",
        ));
    }
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    if query.wait > WAIT_MAX_S {
        return Err(Problem::bad_request(format!("wait is 0 to {WAIT_MAX_S}")));
    }
    let grant = settled(&app, id, Duration::from_secs(query.wait)).await?;
    grant.map(|grant| Json(grant.into())).ok_or_else(|| Problem::not_found("there is no such grant"))
}

/// The grant as soon as it no longer waits for people, or as it is when `patience` is over.
async fn settled(app: &App, id: GrantId, patience: Duration) -> Result<Option<Grant>, Problem> {
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        let grant = {
            let mut connection = app.broker.pool.acquire().await?;
            grants::get(&mut connection, id, app.broker.clock.now()).await?
        };
        let waits = grant.as_ref().is_some_and(|grant| matches!(grant.state, GrantState::Requested { .. }));
        let next = tokio::time::Instant::now() + LOOK_EVERY;
        if !waits || next > give_up {
            return Ok(grant);
        }
        tokio::select! {
            () = app.stopping.cancelled() => return Ok(grant),
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
