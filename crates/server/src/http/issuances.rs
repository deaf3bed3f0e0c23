//! `/v1/issuances`: who got what, when, under which rule, approved by whom.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use cortex_core::Digest;
use cortex_core::record::What;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, page};
use crate::store::issuances::{self, Filter, Issuance, OfficeHours};
use crate::store::revocations::{self, Hit};
use crate::store::{StoreError, questions};

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
    /// The kinds of records, with commas between them, such as `grant.decided`; issuances and denials by default.
    pub(crate) kinds: Option<String>,
    /// What was accessed, whole: an AWS role's ARN, a Google project, a Snowflake account and role with a slash between
    /// them, or an audience.
    pub(crate) target: Option<String>,
    /// A rule that denied, such as `finance-data-publish#when`, or a guardrail's id.
    pub(crate) rule: Option<String>,
    /// The version of the policy that it was decided under: `sha256:` and 64 hexadecimal digits.
    pub(crate) policy_digest: Option<String>,
    /// Who started the run by hand, as its Airflow calls them.
    pub(crate) triggering_user: Option<String>,
    /// `true`: only what let a run in although the policy was closed, or asked to.
    pub(crate) break_glass: Option<bool>,
    /// Only what was outside of these hours, or on Saturday or Sunday: `09:00-18:00`.
    pub(crate) outside_hours: Option<String>,
    /// The time zone of `outside_hours`, such as Europe/Paris; UTC by default.
    pub(crate) timezone: Option<String>,
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
    /// Issuances and denials, or the kinds of records that were asked for.
    issuances: Vec<Issuance>,
    /// How many of the newest records this answer does not know yet, where that is so: `target`, `rule`, `policy_digest`,
    /// `triggering_user` and `break_glass` are known of a record about a second after it is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<i64>,
    /// What to send as `before` for the next page.
    next: Option<Uuid>,
}

/// Issuances and denials, or records of other kinds, newest first; every filter that is given has to fit.
#[utoipa::path(
    get, path = "/v1/issuances", tag = "record", security(("bearer" = [])), params(ListQuery),
    responses(
        (status = 200, description = "A page.", body = Page),
        (status = 400, description = "A filter that cannot be.", body = Problem),
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
    let (issuances, behind) = found(&app, &filter).await?;
    let next = page::next(&issuances, filter.limit, |last| last.id);
    Ok(Json(Page { issuances, behind, next }))
}

/// What a search finds, and how many of the newest records it does not know yet.
pub(crate) async fn found(app: &App, filter: &Filter) -> Result<(Vec<Issuance>, Option<i64>), Problem> {
    let pool = &app.broker.pool;
    // Counted first: what is known by then is in the answer.
    let behind = if filter.asks_facts() { Some(questions::behind(pool).await?) } else { None };
    let found = issuances::list(pool, filter).await.map_err(|error| match error {
        StoreError::UnknownTimezone => Problem::bad_request("the database does not know this time zone"),
        other => other.into(),
    })?;
    Ok((found, behind.filter(|behind| *behind > 0)))
}

/// The search that a query means.
pub(crate) fn filter(query: ListQuery) -> Result<Filter, Problem> {
    let outcomes = ["issued", "failed", "indeterminate", "open", "denied"];
    if query.outcome.as_deref().is_some_and(|outcome| !outcomes.contains(&outcome)) {
        return Err(Problem::bad_request(format!("outcome is one of {}", outcomes.join(", "))));
    }
    let digest =
        |text: String| text.parse::<Digest>().map_err(|error| Problem::bad_request(error.to_string()));
    let zone = query.timezone.as_deref().unwrap_or("UTC");
    let filter = Filter {
        kinds: query.kinds.as_deref().map(kinds_of).transpose()?.unwrap_or_default(),
        policy_digest: query.policy_digest.map(digest).transpose()?,
        break_glass: query.break_glass.unwrap_or_default(),
        outside: query.outside_hours.map(|hours| office_hours(&hours, zone)).transpose()?,
        since: query.since.as_deref().map(time).transpose()?,
        until: query.until.as_deref().map(time).transpose()?,
        before: query.before.as_deref().map(row).transpose()?,
        limit: page::size(query.limit)?,
        target: query.target,
        rule: query.rule,
        triggering_user: query.triggering_user,
        dag_id: query.dag_id,
        run_id: query.run_id,
        task_id: query.task_id,
        principal: query.principal,
        policy: query.policy,
        provider: query.provider,
        outcome: query.outcome,
        approver: query.approver,
    };
    let Filter { target, rule, triggering_user, dag_id, run_id, task_id, principal, policy, .. } = &filter;
    let Filter { provider, approver, .. } = &filter;
    let texts =
        [target, rule, triggering_user, dag_id, run_id, task_id, principal, policy, provider, approver];
    if texts.into_iter().flatten().any(|text| text.len() > 500 || text.contains('\0')) {
        return Err(Problem::bad_request("a filter has at most 500 bytes and no NUL"));
    }
    Ok(filter)
}

fn kinds_of(text: &str) -> Result<Vec<String>, Problem> {
    let kinds: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    match kinds.iter().find(|kind| !What::KINDS.contains(&kind.as_str())) {
        Some(unknown) => Err(Problem::bad_request(format!(
            "{unknown:?} is no kind of record: write some of {}",
            What::KINDS.join(", ")
        ))),
        None => Ok(kinds),
    }
}

fn office_hours(hours: &str, timezone: &str) -> Result<OfficeHours, Problem> {
    let form = || Problem::bad_request("office hours are written as 09:00-18:00, and end after they begin");
    let time = |text: &str| civil::Time::strptime("%H:%M", text).map_err(|_| form());
    let (open, close) = hours.split_once('-').ok_or_else(form)?;
    let (open, close) = (time(open)?, time(close)?);
    if open >= close {
        return Err(form());
    }
    let zone = TimeZone::get(timezone)
        .map_err(|_| Problem::bad_request("a time zone is written as Europe/Paris"))?;
    let timezone = zone.iana_name().unwrap_or("UTC").to_owned();
    Ok(OfficeHours { open, close, timezone })
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
