//! `/v1/log/holds`: records that nothing drops from the database.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use cortex_core::{HoldId, Scope};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::freezes::checked_reason;
use super::{App, body, page};
use crate::store::holds::{self, Hold, HoldError, NewHold};

/// Who may read holds.
const READERS: &[Role] = &[Role::Admin, Role::Auditor];

/// What is to be held.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HoldRequest)]
pub(super) struct Asked {
    /// Whose records, as for a freeze: `{"kind": "everything"}`, or `issuer` with `issuer`, `policy` with `policy`, `dag` with
    /// `dag_id`, `run` with `dag_id` and `run_id`, `principal` with `principal`, which holds whatever names them.
    #[schema(value_type = Object, example = json!({"kind": "dag", "dag_id": "finance_publish"}))]
    scope: Scope,
    /// Of what happened from then on (RFC 3339); none: from the beginning.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    from: Option<Timestamp>,
    /// Of what happened before then (RFC 3339); none: whenever.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    until: Option<Timestamp>,
    /// Why: whoever is to lift it reads this.
    #[schema(min_length = 1, max_length = 2000)]
    reason: String,
}

/// Hold records. When this answers, nothing of them that is there is dropped from the database, until another admin lifts the
/// hold.
#[utoipa::path(
    post, path = "/v1/log/holds", tag = "log", security(("bearer" = [])),
    request_body = Asked,
    responses(
        (status = 201, description = "The hold, in force.", body = Hold),
        (status = 422, description = "It ends before it begins, or has no reason.", body = Problem),
        (status = 429, description = "Too many are in force.", body = Problem),
    )
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Hold>), Problem> {
    caller.need(&[Role::Admin])?;
    let Asked { scope, from, until, reason } = body::json(&headers, &body)?;
    let reason = checked_reason(reason)?;
    // Nothing on record is from before 1970.
    let from = from.map(|from| from.max(Timestamp::UNIX_EPOCH));
    if until.is_some_and(|until| until <= from.unwrap_or(Timestamp::UNIX_EPOCH)) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "until is not after from"));
    }
    let new = NewHold { scope, from, until, reason, by: caller.subject() };
    let mut connection = app.broker.pool.acquire().await?;
    let hold = holds::set(&mut connection, new, app.broker.recorder.stamp()).await?;
    Ok((StatusCode::CREATED, Json(hold)))
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

/// A page of holds, newest first.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = HoldPage)]
pub(super) struct Page {
    /// The holds.
    holds: Vec<Hold>,
    /// What to send as `before` for the next page.
    #[schema(value_type = Option<Uuid>)]
    next: Option<HoldId>,
}

/// Holds, newest first.
#[utoipa::path(
    get, path = "/v1/log/holds", tag = "log", security(("bearer" = [])), params(ListQuery),
    responses((status = 200, description = "A page.", body = Page))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.need(READERS)?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let limit = page::size(query.limit)?;
    let before = query.before.as_deref().map(|text| page::id("a hold", text)).transpose()?;
    let holds = holds::list(&app.broker.pool, query.in_force.unwrap_or(false), before, limit).await?;
    let next = page::next(&holds, limit, |last| last.id);
    Ok(Json(Page { holds, next }))
}

/// One hold.
#[utoipa::path(
    get, path = "/v1/log/holds/{id}", tag = "log", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The hold.")),
    responses(
        (status = 200, description = "The hold.", body = Hold),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No such hold.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Hold>, Problem> {
    caller.need(READERS)?;
    let hold = holds::get(&app.broker.pool, page::id("a hold", &id)?).await?;
    hold.map(Json).ok_or_else(|| HoldError::NotFound.into())
}

/// Lift a hold that another admin has set. It stays on record.
#[utoipa::path(
    delete, path = "/v1/log/holds/{id}", tag = "log", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The hold.")),
    responses(
        (status = 200, description = "The hold, lifted.", body = Hold),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 403, description = "It is the caller's own, or the caller is no admin.", body = Problem),
        (status = 404, description = "No such hold.", body = Problem),
        (status = 409, description = "Lifted before.", body = Problem),
    )
)]
pub(super) async fn lift(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Hold>, Problem> {
    caller.need(&[Role::Admin])?;
    let id = page::id("a hold", &id)?;
    let mut connection = app.broker.pool.acquire().await?;
    let stamp = app.broker.recorder.stamp();
    Ok(Json(holds::lift(&mut connection, id, &caller.subject(), stamp).await?))
}

impl From<HoldError> for Problem {
    fn from(error: HoldError) -> Self {
        let status = match error {
            HoldError::NotFound => StatusCode::NOT_FOUND,
            HoldError::Lifted => StatusCode::CONFLICT,
            HoldError::Own => StatusCode::FORBIDDEN,
            HoldError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            HoldError::Store(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}
