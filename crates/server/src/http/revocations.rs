//! `/v1/revocations`: ending credentials before they expire, and how far that has come.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cortex_core::revocation::Selector;
use cortex_core::{IssuanceId, RevocationId, Scope};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::freezes::{checked_reason, know_at_once};
use super::{App, body, page};
use crate::revoking;
use crate::store::freezes::NewFreeze;
use crate::store::revocations::{self, Hit, NewRevocation, Preview, Revocation, RevocationError};

/// How long a run that was revoked stays frozen: longer than any run lasts.
const RUN_FROZEN: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many issuances one answer shows.
const SHOWN: i64 = 200;

/// What is to be revoked: `issuance_id`, or `scope`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevocationRequest)]
pub(crate) struct Asked {
    /// One issuance.
    #[schema(value_type = Option<Uuid>)]
    #[serde(default)]
    pub(crate) issuance_id: Option<IssuanceId>,
    /// Every issuance within a scope, written as for a freeze.
    #[schema(value_type = Option<Object>, example = json!({"kind": "dag", "dag_id": "finance_publish"}))]
    #[serde(default)]
    pub(crate) scope: Option<Scope>,
    /// With `scope`: only what was opened at this time or later (RFC 3339).
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    pub(crate) since: Option<Timestamp>,
    /// Why.
    #[schema(min_length = 1, max_length = 2000)]
    pub(crate) reason: String,
    /// Only say what it would hit.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// With `scope`: freeze the scope too, so that nothing new is issued in its place. A run is always frozen.
    #[serde(default)]
    pub(crate) freeze: bool,
}

/// A revocation, and the first of the issuances that it hits.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = RevocationWithIssuances)]
pub(crate) struct Shown {
    /// The revocation.
    #[serde(flatten)]
    pub(crate) revocation: Revocation,
    /// The issuances, each with its state.
    pub(crate) issuances: Vec<Hit>,
    /// What to send as `after` for the next page.
    #[schema(value_type = Option<Uuid>)]
    pub(crate) next: Option<IssuanceId>,
}

/// Revoke one issuance, or every one within a scope that was opened until now. When this answers, no lease handle
/// fetches them any more and introspection says that they are not active; `state` says what the clouds have confirmed.
#[utoipa::path(
    post, path = "/v1/revocations", tag = "revocations", security(("bearer" = [])),
    request_body = Asked,
    responses(
        (status = 200, description = "With `dry_run`: what it would hit.", body = Preview),
        (status = 202, description = "The revocation, begun.", body = Shown),
        (status = 404, description = "No such issuance.", body = Problem),
        (status = 422, description = "Not one thing to revoke, or no reason.", body = Problem),
        (status = 429, description = "Too many revocations, or freezes.", body = Problem),
    )
)]
pub(super) async fn request(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.need(&[Role::Admin])?;
    let asked: Asked = body::json(&headers, &body)?;
    if asked.dry_run {
        return Ok(Json(preview(&app, &caller, asked).await?).into_response());
    }
    let id = begin(&app, &caller, asked).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&app, id, None, SHOWN).await?)).into_response())
}

/// What a revocation would hit, for the API and the console alike.
pub(crate) async fn preview(app: &App, caller: &Caller, asked: Asked) -> Result<Preview, Problem> {
    caller.need(&[Role::Admin])?;
    let now = app.broker.clock.now();
    let (selector, _) = selector(asked, now)?;
    let mut connection = app.broker.pool.acquire().await?;
    Ok(revocations::preview(&mut connection, &selector, &app.broker.live().revokers, now).await?)
}

/// Revokes, for the API and the console alike.
pub(crate) async fn begin(app: &App, caller: &Caller, asked: Asked) -> Result<RevocationId, Problem> {
    caller.need(&[Role::Admin])?;
    let freeze = asked.freeze;
    let now = app.broker.clock.now();
    let (selector, reason) = selector(asked, now)?;
    let by = caller.subject();
    let freeze = frozen_along(&selector, freeze, &reason, &by, now)?;
    let new = NewRevocation { selector, reason, by, freeze };
    let mut connection = app.broker.pool.acquire().await?;
    let id = revocations::request(&mut connection, new, app.broker.recorder.stamp()).await?;
    drop(connection);
    know_at_once(app).await;
    // The first page at once; the others are found by whichever worker is free.
    revoking::spread(&app.broker, Some(id)).await?;
    Ok(id)
}

fn selector(asked: Asked, now: Timestamp) -> Result<(Selector, String), Problem> {
    let unclear = |detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let Asked { issuance_id, scope, since, reason, dry_run: _, freeze: _ } = asked;
    let reason = checked_reason(reason)?;
    let since_is_past = since.is_none_or(|since| (Timestamp::UNIX_EPOCH..=now).contains(&since));
    match (issuance_id, scope, since) {
        (Some(issuance_id), None, None) => Ok((Selector::Issuance { issuance_id }, reason)),
        (None, Some(scope), since) if since_is_past => Ok((Selector::Within { scope, since }, reason)),
        (None, Some(_), _) => Err(unclear("since is not in the past")),
        _ => Err(unclear("name either issuance_id, or scope and perhaps since")),
    }
}

/// What is frozen along with the revocation. A run is: it gets nothing in the place of what was revoked.
fn frozen_along(
    selector: &Selector,
    asked: bool,
    reason: &str,
    by: &str,
    now: Timestamp,
) -> Result<Option<NewFreeze>, Problem> {
    let (scope, until) = match selector {
        Selector::Issuance { .. } if asked => {
            let detail = "freeze goes with a scope; an issuance is not issued twice";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        Selector::Within { scope: scope @ Scope::Run { .. }, .. } => {
            (scope, Some(now.saturating_add(RUN_FROZEN).unwrap_or(Timestamp::MAX)))
        }
        Selector::Within { scope, .. } if asked => (scope, None),
        Selector::Within { .. } | Selector::Issuance { .. } => return Ok(None),
    };
    Ok(Some(NewFreeze { scope: scope.clone(), reason: reason.to_owned(), by: by.to_owned(), until }))
}

/// A revocation with the first of its issuances.
pub(crate) async fn shown(
    app: &App,
    id: RevocationId,
    after: Option<IssuanceId>,
    limit: i64,
) -> Result<Shown, Problem> {
    let pool = &app.broker.pool;
    let revocation = revocations::get(pool, id).await?;
    let revocation = revocation.ok_or_else(|| Problem::not_found("there is no such revocation"))?;
    let issuances = revocations::hits(pool, id, after, limit).await?;
    let next = page::next(&issuances, limit, |last| last.issuance_id);
    Ok(Shown { revocation, issuances, next })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The last id of the page before.
    before: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A page of revocations, newest first.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = RevocationPage)]
pub(super) struct Page {
    /// The revocations.
    revocations: Vec<Revocation>,
    /// What to send as `before` for the next page.
    #[schema(value_type = Option<Uuid>)]
    next: Option<RevocationId>,
}

/// Revocations, newest first, with how many of their issuances are in which state.
#[utoipa::path(
    get, path = "/v1/revocations", tag = "revocations", security(("bearer" = [])), params(ListQuery),
    responses((status = 200, description = "A page.", body = Page))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let limit = page::size(query.limit)?;
    let before = query.before.as_deref().map(|text| page::id("a revocation", text)).transpose()?;
    let revocations = revocations::list(&app.broker.pool, before, limit).await?;
    let next = page::next(&revocations, limit, |last| last.id);
    Ok(Json(Page { revocations, next }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    /// The last issuance of the page before.
    after: Option<String>,
    /// How many issuances, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// One revocation with its issuances, in the order in which they were opened.
#[utoipa::path(
    get, path = "/v1/revocations/{id}", tag = "revocations", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The revocation."), ShowQuery),
    responses(
        (status = 200, description = "The revocation.", body = Shown),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No such revocation.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<Shown>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let after = query.after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Problem::bad_request("an issuance's id is a UUID"))?;
    Ok(Json(shown(&app, page::id("a revocation", &id)?, after, page::size(query.limit)?).await?))
}

impl From<RevocationError> for Problem {
    fn from(error: RevocationError) -> Self {
        let status = match error {
            RevocationError::NoIssuance => StatusCode::NOT_FOUND,
            RevocationError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            RevocationError::Freeze(error) => return error.into(),
            RevocationError::Store(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}
