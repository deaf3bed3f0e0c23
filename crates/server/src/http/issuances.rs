//! `/v1/issuances`: who got what, when, under which rule, approved by whom.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use super::App;
use super::auth::{Caller, Role};
use super::error::Problem;
use super::grants::page_size;
use crate::store::issuances::{self, Filter, Issuance};
use crate::store::revocations::{self, Hit};

#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// From this time on (RFC 3339).
    pub(crate) since: Option<String>,
    /// Before this time (RFC 3339).
    pub(crate) until: Option<String>,
    /// The DAG.
    pub(crate) dag_id: Option<String>,
    /// The DAG run.
    pub(crate) run_id: Option<String>,
    /// The task.
    pub(crate) task_id: Option<String>,
    /// The principal, as the record shows it.
    pub(crate) principal: Option<String>,
    /// The policy.
    pub(crate) policy: Option<String>,
    /// The provider.
    pub(crate) provider: Option<String>,
    /// `issued`, `failed`, `indeterminate`, `open` or `denied`.
    pub(crate) outcome: Option<String>,
    /// Somebody who approved, as principal.
    pub(crate) approver: Option<String>,
    /// The last id of the page before.
    pub(crate) before: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    pub(crate) limit: Option<i64>,
}

/// A page of the record, newest first.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = IssuancePage)]
pub(super) struct Page {
    /// Issuances and denials.
    issuances: Vec<Issuance>,
    /// What to send as `before` for the next page.
    next: Option<Uuid>,
}

/// Issuances and denials, newest first; every filter that is given has to fit.
#[utoipa::path(
    get, path = "/v1/issuances", tag = "record", security(("bearer" = [])), params(ListQuery),
    responses(
        (status = 200, description = "A page.", body = Page),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.need(&[Role::Auditor, Role::Admin])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let filter = filter(query)?;
    let issuances = issuances::list(&app.broker.pool, &filter).await?;
    let full = i64::try_from(issuances.len()).is_ok_and(|count| count == filter.limit);
    let next = issuances.last().filter(|_| full).map(|last| last.id);
    Ok(Json(Page { issuances, next }))
}

/// The search that a query means.
pub(crate) fn filter(query: ListQuery) -> Result<Filter, Problem> {
    let ListQuery {
        since,
        until,
        dag_id,
        run_id,
        task_id,
        principal,
        policy,
        provider,
        outcome,
        approver,
        before,
        limit,
    } = query;
    let outcomes = ["issued", "failed", "indeterminate", "open", "denied"];
    if let Some(outcome) = &outcome
        && !outcomes.contains(&outcome.as_str())
    {
        return Err(Problem::bad_request(format!("outcome is one of {}", outcomes.join(", "))));
    }
    let texts = [&dag_id, &run_id, &task_id, &principal, &policy, &provider, &approver];
    if texts.into_iter().flatten().any(|text| text.len() > 500 || text.contains('\0')) {
        return Err(Problem::bad_request("a filter has at most 500 bytes and no NUL"));
    }
    Ok(Filter {
        since: since.as_deref().map(time).transpose()?,
        until: until.as_deref().map(time).transpose()?,
        dag_id,
        run_id,
        task_id,
        principal,
        policy,
        provider,
        outcome,
        approver,
        before: before.as_deref().map(row).transpose()?,
        limit: page_size(limit)?,
    })
}

fn time(text: &str) -> Result<Timestamp, Problem> {
    let earliest: Timestamp = Timestamp::UNIX_EPOCH;
    text.parse()
        .ok()
        .filter(|at: &Timestamp| *at >= earliest)
        .ok_or_else(|| Problem::bad_request("a time is written as 2026-01-31T23:59:59Z"))
}

fn row(text: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(text).map_err(|_| Problem::bad_request("an id is a UUID"))
}

/// Everything on record about one issuance or one denial.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Entries {
    /// The entries themselves, oldest first.
    entries: Vec<Value>,
    /// How far its revocation has come, if it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<Hit>,
}

/// One issuance whole, by its id; or one denial, by its decision id.
#[utoipa::path(
    get, path = "/v1/issuances/{id}", tag = "record", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The issuance, the decision or the row.")),
    responses(
        (status = 200, description = "Everything on record about it.", body = Entries),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "Nothing is on record under it.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Entries>, Problem> {
    caller.need(&[Role::Auditor, Role::Admin])?;
    let id = row(&id)?;
    let entries = issuances::one(&app.broker.pool, id).await?;
    if entries.is_empty() {
        return Err(Problem::not_found("nothing is on record under this id"));
    }
    let revocation = revocations::of_issuance(&app.broker.pool, id).await?;
    Ok(Json(Entries { entries, revocation }))
}
