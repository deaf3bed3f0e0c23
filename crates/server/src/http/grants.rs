//! `/v1/grants`: what waits for people, and their word on it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use cortex_core::GrantId;
use cortex_core::grant::Grant;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, body};
use crate::store::grants::{self, Word};

/// The longest comment, in bytes.
const COMMENT_MAX: usize = 1_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `requested`, `approved`, `denied` or `expired`.
    status: Option<String>,
    /// The last id of the page before.
    before: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A page of grants, newest first.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = GrantPage)]
pub(super) struct Page {
    /// The grants.
    #[schema(value_type = Vec<Object>)]
    grants: Vec<Grant>,
    /// What to send as `before` for the next page.
    next: Option<String>,
}

/// Grants, newest first.
#[utoipa::path(
    get, path = "/v1/grants", tag = "grants", security(("bearer" = [])), params(ListQuery),
    responses(
        (status = 200, description = "A page.", body = Page),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.need(&[Role::Approver, Role::Admin, Role::Auditor])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let limit = page_size(query.limit)?;
    if let Some(status) = &query.status
        && !["requested", "approved", "denied", "expired"].contains(&status.as_str())
    {
        return Err(Problem::bad_request("status is requested, approved, denied or expired"));
    }
    let before = query.before.as_deref().map(parse_id).transpose()?;
    let mut connection = app.broker.pool.acquire().await?;
    let now = app.broker.clock.now();
    let grants = grants::list(&mut connection, query.status.as_deref(), before, limit, now).await?;
    let full = i64::try_from(grants.len()).is_ok_and(|count| count == limit);
    let next = grants.last().filter(|_| full).map(|grant| grant.id.to_string());
    Ok(Json(Page { grants, next }))
}

pub(super) fn page_size(limit: Option<i64>) -> Result<i64, Problem> {
    let limit = limit.unwrap_or(50);
    if (1..=200).contains(&limit) { Ok(limit) } else { Err(Problem::bad_request("limit is 1 to 200")) }
}

pub(super) fn parse_id(text: &str) -> Result<GrantId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("a grant's id is a UUID"))
}

/// One grant, whole: what is asked, by whom, and where it stands.
#[utoipa::path(
    get, path = "/v1/grants/{id}", tag = "grants", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The grant.")),
    responses(
        (status = 200, description = "The grant.", body = Object),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Grant>, Problem> {
    caller.need(&[Role::Approver, Role::Admin, Role::Auditor])?;
    let mut connection = app.broker.pool.acquire().await?;
    let grant = grants::get(&mut connection, parse_id(&id)?, app.broker.clock.now()).await?;
    grant.map(Json).ok_or_else(|| Problem::not_found("there is no such grant"))
}

/// A person's word.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    /// Why, for the requester and the record; at most 1,000 bytes.
    #[schema(max_length = 1000)]
    comment: Option<String>,
}

/// Approve a grant. The approver is named by the policy and did not start the run.
#[utoipa::path(
    post, path = "/v1/grants/{id}/approve", tag = "grants", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The grant.")), request_body = Decision,
    responses(
        (status = 200, description = "The grant after this.", body = Object),
        (status = 403, description = "Not this person's to decide.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
        (status = 409, description = "Decided before.", body = Problem),
    )
)]
pub(super) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Grant>, Problem> {
    decide(&app, &caller, &id, true, &headers, &body).await
}

/// Deny a grant; the run is told who did, when and why.
#[utoipa::path(
    post, path = "/v1/grants/{id}/deny", tag = "grants", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The grant.")), request_body = Decision,
    responses(
        (status = 200, description = "The grant after this.", body = Object),
        (status = 403, description = "Not this person's to decide.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
        (status = 409, description = "Decided before.", body = Problem),
    )
)]
pub(super) async fn deny(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Grant>, Problem> {
    decide(&app, &caller, &id, false, &headers, &body).await
}

async fn decide(
    app: &App,
    caller: &Caller,
    id: &str,
    approve: bool,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<Json<Grant>, Problem> {
    caller.need(&[Role::Approver])?;
    let id = parse_id(id)?;
    let decision = if bytes.is_empty() { Decision::default() } else { body::json(headers, bytes)? };
    if decision.comment.as_ref().is_some_and(|comment| comment.len() > COMMENT_MAX || comment.contains('\0'))
    {
        return Err(Problem::bad_request(format!("a comment has at most {COMMENT_MAX} bytes and no NUL")));
    }
    let broker = &app.broker;
    let valid = SignedDuration::from_secs(broker.grants.approved_ttl_s);
    let approved_until = broker.clock.now().saturating_add(valid).unwrap_or(Timestamp::MAX);
    let word = Word { approve, comment: decision.comment, approved_until };
    let mut connection = broker.pool.acquire().await?;
    Ok(Json(grants::decide(&mut connection, id, &caller.person, word, broker.recorder.stamp()).await?))
}
