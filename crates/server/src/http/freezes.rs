//! `/v1/freezes`: the kill switch.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use cortex_core::{FreezeId, Scope};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, body, page};
use crate::store::freezes::{self, FreezeError, NewFreeze, StoredFreeze};

/// The longest reason, in bytes.
const REASON_MAX: usize = 2_000;

/// What is to be stopped.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FreezeRequest)]
pub(crate) struct Asked {
    /// `{"kind": "everything"}`, or `issuer` with `issuer`, `policy` with `policy`, `dag` with `dag_id`, `run` with
    /// `dag_id` and `run_id`, `principal` with `principal`. With `dag` and `run`, `issuer` names one Airflow.
    #[schema(value_type = Object, example = json!({"kind": "dag", "dag_id": "finance_publish"}))]
    pub(crate) scope: Scope,
    /// Why: whoever meets the freeze reads it.
    #[schema(min_length = 1, max_length = 2000)]
    pub(crate) reason: String,
    /// When it ends by itself (RFC 3339); none: when it is lifted.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    pub(crate) until: Option<Timestamp>,
}

/// Stop something. When this answers, nothing within the scope is issued, handed out again or renewed any more, at
/// whichever replica.
#[utoipa::path(
    post, path = "/v1/freezes", tag = "freezes", security(("bearer" = [])),
    request_body = Asked,
    responses(
        (status = 201, description = "The freeze, in force.", body = StoredFreeze),
        (status = 422, description = "It ends before it begins, or has no reason.", body = Problem),
        (status = 429, description = "Too many are in force.", body = Problem),
    )
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<StoredFreeze>), Problem> {
    caller.need(&[Role::Admin])?;
    let freeze = put(&app, &caller, body::json(&headers, &body)?).await?;
    Ok((StatusCode::CREATED, Json(freeze)))
}

/// Stops something, for the API and the console alike.
pub(crate) async fn put(app: &App, caller: &Caller, asked: Asked) -> Result<StoredFreeze, Problem> {
    caller.need(&[Role::Admin])?;
    let Asked { scope, reason, until } = asked;
    let reason = checked_reason(reason)?;
    if until.is_some_and(|until| until <= app.broker.clock.now()) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "until is over already"));
    }
    let new = NewFreeze { scope, reason, by: caller.subject(), until };
    let mut connection = app.broker.pool.acquire().await?;
    let freeze = freezes::set(&mut connection, new, app.broker.recorder.stamp()).await?;
    drop(connection);
    know_at_once(app).await;
    Ok(freeze)
}

/// A reason that people can read.
pub(super) fn checked_reason(reason: String) -> Result<String, Problem> {
    let readable = reason.chars().all(|c| !c.is_control() || c == '\n');
    if readable && !reason.trim().is_empty() && reason.len() <= REASON_MAX {
        return Ok(reason);
    }
    let detail = format!("the reason has 1 to {REASON_MAX} bytes and no control characters");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `true`: only those that are in force.
    in_force: Option<bool>,
    /// The last id of the page before.
    before: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A page of freezes, newest first.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = FreezePage)]
pub(super) struct Page {
    /// The freezes.
    freezes: Vec<StoredFreeze>,
    /// What to send as `before` for the next page.
    #[schema(value_type = Option<Uuid>)]
    next: Option<FreezeId>,
}

/// Freezes, newest first.
#[utoipa::path(
    get, path = "/v1/freezes", tag = "freezes", security(("bearer" = [])), params(ListQuery),
    responses((status = 200, description = "A page.", body = Page))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor, Role::Approver])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let limit = page::size(query.limit)?;
    let before = query.before.as_deref().map(|text| page::id("a freeze", text)).transpose()?;
    let now = app.broker.clock.now();
    let in_force = query.in_force.unwrap_or(false);
    let freezes = freezes::list(&app.broker.pool, in_force, before, limit, now).await?;
    let next = page::next(&freezes, limit, |last| last.freeze.id);
    Ok(Json(Page { freezes, next }))
}

/// One freeze.
#[utoipa::path(
    get, path = "/v1/freezes/{id}", tag = "freezes", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The freeze.")),
    responses(
        (status = 200, description = "The freeze.", body = StoredFreeze),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No such freeze.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<StoredFreeze>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor, Role::Approver])?;
    let freeze = freezes::get(&app.broker.pool, page::id("a freeze", &id)?, app.broker.clock.now()).await?;
    freeze.map(Json).ok_or_else(|| FreezeError::NotFound.into())
}

/// Lift a freeze. It stays on record.
#[utoipa::path(
    delete, path = "/v1/freezes/{id}", tag = "freezes", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The freeze.")),
    responses(
        (status = 200, description = "The freeze, lifted.", body = StoredFreeze),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No such freeze.", body = Problem),
        (status = 409, description = "Lifted before.", body = Problem),
    )
)]
pub(super) async fn lift(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<StoredFreeze>, Problem> {
    lift_one(&app, &caller, &id).await.map(Json)
}

/// Lets something go on, for the API and the console alike.
pub(crate) async fn lift_one(app: &App, caller: &Caller, id: &str) -> Result<StoredFreeze, Problem> {
    caller.need(&[Role::Admin])?;
    let id = page::id("a freeze", id)?;
    let mut connection = app.broker.pool.acquire().await?;
    let lifted = freezes::lift(&mut connection, id, &caller.subject(), app.broker.recorder.stamp()).await?;
    drop(connection);
    know_at_once(app).await;
    Ok(lifted)
}

/// This replica need not wait for the notification, which reaches it as well.
pub(super) async fn know_at_once(app: &App) {
    if let Err(error) = app.broker.barriers.refresh(&app.broker.pool).await {
        tracing::warn!(%error, "a change of freezes will be known with its notification");
    }
}

impl From<FreezeError> for Problem {
    fn from(error: FreezeError) -> Self {
        let status = match error {
            FreezeError::NotFound => StatusCode::NOT_FOUND,
            FreezeError::Lifted => StatusCode::CONFLICT,
            FreezeError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            FreezeError::Store(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}
