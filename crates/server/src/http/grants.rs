//! `/v1/grants`: what waits for people, and their word on it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use cortex_core::grant::{Asked, Grant, NotAllowed, State as GrantState};
use cortex_core::policy::ValidFor;
use cortex_core::{Digest, GrantId, Principal, Run};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::{Bearer, Caller, Role};
use super::error::Problem;
use super::{App, body, page};
use crate::store::RecordError;
use crate::store::grants::{self, Filter, GrantError, Word};

/// The longest comment, in bytes.
const COMMENT_MAX: usize = 1_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `requested`, `approved`, `denied`, `expired`, `spent`, `withdrawn` or `voided`.
    status: Option<String>,
    /// `run`: asked by a run for itself. `standing`: asked by a person for scheduled runs to come.
    kind: Option<String>,
    /// The policy.
    policy: Option<String>,
    /// The DAG.
    dag_id: Option<String>,
    /// The DAG run.
    run_id: Option<String>,
    /// The last id of the page before.
    before: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

impl ListQuery {
    fn filter(self) -> Result<Filter, Problem> {
        let Self { status, kind, policy, dag_id, run_id, before, limit } = self;
        if status.as_deref().is_some_and(|status| !GrantState::NAMES.contains(&status)) {
            return Err(Problem::bad_request(format!("status is one of {}", GrantState::NAMES.join(", "))));
        }
        if kind.as_deref().is_some_and(|kind| !["run", "standing"].contains(&kind)) {
            return Err(Problem::bad_request("kind is run or standing"));
        }
        for text in [&policy, &dag_id, &run_id] {
            body::bounded("filter", text.as_deref(), 500)?;
        }
        let before = before.as_deref().map(parse_id).transpose()?;
        Ok(Filter { status, kind, policy, dag_id, run_id, before, limit: page::size(limit)? })
    }
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

/// A grant as it is answered: its `ETag` is the digest of what is approved, for `If-Match`.
pub(super) struct Shown(Grant);

impl IntoResponse for Shown {
    fn into_response(self) -> axum::response::Response {
        let tag = HeaderValue::from_str(&format!("\"{}\"", self.0.request_digest)).ok();
        (AppendHeaders(tag.map(|tag| (header::ETAG, tag))), Json(self.0)).into_response()
    }
}

impl From<Grant> for Shown {
    fn from(grant: Grant) -> Self {
        Self(grant)
    }
}

/// Grants, newest first; every filter that is given has to fit.
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
    let filter = query.filter()?;
    let mut connection = app.broker.pool.acquire().await?;
    let grants = grants::list(&mut connection, &filter, app.broker.clock.now()).await?;
    let next = page::next(&grants, filter.limit, |grant| grant.id.to_string());
    Ok(Json(Page { grants, next }))
}

/// A grant's id, as a caller wrote it.
pub(crate) fn parse_id(text: &str) -> Result<GrantId, Problem> {
    page::id("a grant", text)
}

/// One grant, whole: what is asked, by whom, for how long, who approved it, and where it stands. Its `ETag` is what
/// a decision sends back in `If-Match`.
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
) -> Result<Shown, Problem> {
    caller.need(&[Role::Approver, Role::Admin, Role::Auditor])?;
    let mut connection = app.broker.pool.acquire().await?;
    let grant = grants::get(&mut connection, parse_id(&id)?, app.broker.clock.now()).await?;
    grant.map(Shown).ok_or_else(|| Problem::not_found("there is no such grant"))
}

/// A person's word.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    /// Why, for the requester and the record; at most 1,000 bytes.
    #[schema(max_length = 1000)]
    comment: Option<String>,
    /// The `request_digest` of the grant as the person saw it, where `If-Match` does not say it.
    request_digest: Option<String>,
}

/// Approve a grant. The approver is named by the policy and did not start the run. What they saw comes with it, as
/// `If-Match` or `request_digest`.
#[utoipa::path(
    post, path = "/v1/grants/{id}/approve", tag = "grants", security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The grant."),
        ("If-Match" = Option<String>, Header, description = "The grant's ETag: what is approved."),
    ),
    request_body = Decision,
    responses(
        (status = 200, description = "The grant after this.", body = Object),
        (status = 403, description = "Not this person's to decide; `type` says why.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
        (status = 409, description = "Decided before.", body = Problem),
        (status = 412, description = "Not what the person saw, or void.", body = Problem),
        (status = 428, description = "Say what you saw.", body = Problem),
    )
)]
pub(super) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Shown, Problem> {
    decide(&app, &caller, &id, true, &headers, &body).await
}

/// Deny a grant; the run is told who did, when and why. What was seen comes with it, as in an approval.
#[utoipa::path(
    post, path = "/v1/grants/{id}/deny", tag = "grants", security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The grant."),
        ("If-Match" = Option<String>, Header, description = "The grant's ETag: what is denied."),
    ),
    request_body = Decision,
    responses(
        (status = 200, description = "The grant after this.", body = Object),
        (status = 403, description = "Not this person's to decide; `type` says why.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
        (status = 409, description = "Decided before.", body = Problem),
        (status = 412, description = "Not what the person saw, or void.", body = Problem),
        (status = 428, description = "Say what you saw.", body = Problem),
    )
)]
pub(super) async fn deny(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Shown, Problem> {
    decide(&app, &caller, &id, false, &headers, &body).await
}

async fn decide(
    app: &App,
    caller: &Caller,
    id: &str,
    approve: bool,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<Shown, Problem> {
    caller.need(&[Role::Approver])?;
    let decision = if bytes.is_empty() { Decision::default() } else { body::json(headers, bytes)? };
    let id = said_on(id, decision.comment.as_deref())?;
    let seen = seen(headers, decision.request_digest.as_deref())?;
    say(app, caller, id, Word { approve, comment: decision.comment, seen }).await.map(Shown)
}

/// The grant that is decided on, and a comment that is not too long.
pub(crate) fn said_on(id: &str, comment: Option<&str>) -> Result<GrantId, Problem> {
    body::bounded("comment", comment, COMMENT_MAX)?;
    parse_id(id)
}

/// A person's word on a grant, for the API and the console alike.
pub(crate) async fn say(app: &App, caller: &Caller, id: GrantId, word: Word) -> Result<Grant, Problem> {
    caller.need(&[Role::Approver])?;
    let broker = &app.broker;
    let mut connection = broker.pool.acquire().await?;
    let stamp = broker.recorder.stamp();
    Ok(grants::decide(&mut connection, id, &caller.person, word, &broker.live().approvers, stamp).await?)
}

/// The digest of what the person saw: `If-Match` (RFC 9110, section 13.1.1), one strong tag, or the body's. A
/// decision on whatever is there now is none.
fn seen(headers: &HeaderMap, in_body: Option<&str>) -> Result<Digest, Problem> {
    let mut tags = headers.get_all(header::IF_MATCH).iter();
    let in_header = match (tags.next(), tags.next()) {
        (None, _) => None,
        (Some(tag), None) => {
            let tag = tag.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
            Some(tag.ok_or_else(|| Problem::bad_request("If-Match is one ETag in quotes"))?)
        }
        _ => return Err(Problem::bad_request("send one If-Match")),
    };
    let parse = |text: &str| {
        text.parse::<Digest>()
            .map_err(|_| Problem::bad_request("a request's digest is sha256: and 64 hex digits"))
    };
    match (in_header.map(parse).transpose()?, in_body.map(parse).transpose()?) {
        (Some(seen), None) | (None, Some(seen)) => Ok(seen),
        (Some(one), Some(other)) if one == other => Ok(one),
        (Some(_), Some(_)) => Err(Problem::bad_request("If-Match and request_digest differ")),
        (None, None) => Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "say what you decide on: send the grant's ETag in If-Match, or its request_digest in the body",
        )),
    }
}

/// Why a grant is taken back.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {
    /// Why, for the record; at most 1,000 bytes.
    #[schema(max_length = 1000)]
    comment: Option<String>,
}

/// Take back a grant that waits or holds; nothing more is issued under it. For an admin, an approver whom it names,
/// the person who asked for it, and the run that did, with a token of its own.
#[utoipa::path(
    post, path = "/v1/grants/{id}/withdraw", tag = "grants", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The grant.")), request_body = Withdrawal,
    responses(
        (status = 200, description = "The grant after this.", body = Object),
        (status = 403, description = "Not this caller's to take back.", body = Problem),
        (status = 404, description = "No such grant.", body = Problem),
        (status = 409, description = "It has ended before.", body = Problem),
    )
)]
pub(super) async fn withdraw(
    State(app): State<App>,
    bearer: Bearer,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Shown, Problem> {
    let grant_id = parse_id(&id)?;
    let withdrawal = if body.is_empty() { Withdrawal::default() } else { body::json(&headers, &body)? };
    spend(&app, &bearer).await?;
    let roles = bearer.roles(&app);
    let comment = withdrawal.comment.as_deref();
    take_back(&app, bearer.verified.principal(), &roles, grant_id, comment).await.map(Shown)
}

/// Takes a grant back, for the API and the console alike.
pub(crate) async fn take_back(
    app: &App,
    principal: &Principal,
    roles: &[Role],
    id: GrantId,
    comment: Option<&str>,
) -> Result<Grant, Problem> {
    body::bounded("comment", comment, COMMENT_MAX)?;
    let broker = &app.broker;
    let may = |grant: &Grant| may_withdraw(app, principal, roles, grant);
    let by = principal.subject();
    let mut connection = broker.pool.acquire().await?;
    let stamp = broker.recorder.stamp();
    Ok(grants::withdraw(&mut connection, id, &by, comment, may, stamp).await?)
}

/// A run's token is good for one thing.
async fn spend(app: &App, bearer: &Bearer) -> Result<(), Problem> {
    let Some(replay) = bearer.verified.replay() else { return Ok(()) };
    match app.broker.recorder.spend(replay, None).await {
        Ok(()) => Ok(()),
        Err(RecordError::Replayed) => {
            Err(Problem::new(StatusCode::UNAUTHORIZED, "the token was used before; send a fresh one"))
        }
        Err(error) => {
            tracing::warn!(%error, "a token could not be spent");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the record cannot be written at the moment"))
        }
    }
}

/// Whether this caller may take the grant back.
pub(crate) fn may_withdraw(
    app: &App,
    principal: &Principal,
    roles: &[Role],
    grant: &Grant,
) -> Result<(), GrantError> {
    match principal {
        Principal::Person(person) => {
            let named = || grant.is_named(person, app.broker.live().approvers.bare_groups);
            let asked = matches!(&grant.asked, Asked::Standing { requester, .. } if requester.may_be(person));
            if roles.contains(&Role::Admin) || asked || (roles.contains(&Role::Approver) && named()) {
                Ok(())
            } else {
                Err(NotAllowed::NotAnApprover.into())
            }
        }
        // Another run learns no more than that there is nothing for it.
        Principal::Run(run) if is_of(run, grant) => Ok(()),
        Principal::Run(_) | Principal::Service(_) => Err(GrantError::NotFound),
    }
}

/// Whether a run is the one that asked, or one of the tasks that the grant is for.
fn is_of(run: &Run, grant: &Grant) -> bool {
    let Asked::Run { requester, valid_for, .. } = &grant.asked else { return false };
    let same_dag = run.issuer == requester.issuer && run.dag_id == requester.dag_id;
    let same_run = same_dag && run.run_id == requester.run_id && run.attestation == requester.attestation;
    match valid_for {
        ValidFor::Task => {
            same_run && run.task_id == requester.task_id && run.map_index == requester.map_index
        }
        ValidFor::Run | ValidFor::Window { .. } => same_run,
    }
}
