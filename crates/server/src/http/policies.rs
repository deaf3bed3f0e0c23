//! `/v1/policies`: what admins write, and everybody with a role may read.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use cortex_core::policy::{self, Ask, Policy};
use cortex_core::{Decision, PolicyName, Principal, Run};
use cortex_providers::BuiltIns;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, body};
use crate::library::Catalogue;
use crate::store::documents::{self, Applied, Document, Kind, Version};

/// Who may read policies.
pub(crate) const READERS: [Role; 3] = [Role::Admin, Role::Approver, Role::Auditor];

/// The most documents in one application.
const DOCUMENTS_MAX: usize = 1_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The last name of the page before.
    after: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// The policies in force, by name.
#[utoipa::path(
    get, path = "/v1/policies", tag = "policies", security(("bearer" = [])), params(ListQuery),
    responses(
        (status = 200, description = "A page.", body = [Version]),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<Version>>, Problem> {
    caller.need(&READERS)?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let after = query.after.unwrap_or_default();
    if !after.is_empty() {
        name(&after).map_err(|_| Problem::bad_request("after is the name of a policy"))?;
    }
    let limit = super::page::size(query.limit)?;
    Ok(Json(documents::list(&app.broker.pool, Kind::Policy, &after, limit).await?))
}

/// Policies to put in force.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Application {
    /// The documents, in YAML; all of them come into force, or none.
    #[schema(max_items = 1000)]
    documents: Vec<String>,
    /// Only check them; nothing changes.
    #[serde(default)]
    dry_run: bool,
}

/// What an application did or would do.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Applications {
    /// Each document.
    applied: Vec<Applied>,
    /// What changes against the versions in force, as unified diffs.
    diff: String,
}

/// Put policies in force on every replica, within a second.
#[utoipa::path(
    post, path = "/v1/policies", tag = "policies", security(("bearer" = [])), request_body = Application,
    responses(
        (status = 200, description = "What changed.", body = Applications),
        (status = 422, description = "Not accepted, each fault with its line; nothing changed.", body = Problem),
    )
)]
pub(super) async fn apply(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Applications>, Problem> {
    caller.need(&[Role::Admin])?;
    let application: Application = body::json(&headers, &body)?;
    if application.documents.len() > DOCUMENTS_MAX {
        return Err(Problem::bad_request(format!("at most {DOCUMENTS_MAX} documents at once")));
    }
    let mut documents = Vec::with_capacity(application.documents.len());
    let mut diff = String::new();
    for source in application.documents {
        let policy = Policy::compile(&source, &BuiltIns).map_err(Problem::document)?;
        let name = policy.name().to_string();
        let old = documents::head(&app.broker.pool, Kind::Policy, &name).await?;
        let old = old.filter(|old| !old.retired).map_or_else(String::new, |old| old.source);
        diff.push_str(&policy::diff(&old, &source));
        documents.push(Document { kind: Kind::Policy, name, digest: policy.digest(), source });
    }
    let mut applied = Vec::new();
    if !application.dry_run {
        let mut connection = app.broker.pool.acquire().await?;
        let stamp = app.broker.recorder.stamp();
        applied = documents::apply(&mut connection, &documents, &caller.subject(), stamp).await?;
    }
    Ok(Json(Applications { applied, diff }))
}

/// One policy, at the version in force.
#[utoipa::path(
    get, path = "/v1/policies/{name}", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64)),
    responses(
        (status = 200, description = "The policy.", body = Version),
        (status = 404, description = "No such policy.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Version>, Problem> {
    caller.need(&READERS)?;
    head(&app, Kind::Policy, &name).await.map(Json)
}

/// Take a policy out of force; its versions stay on record.
#[utoipa::path(
    delete, path = "/v1/policies/{name}", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64)),
    responses(
        (status = 200, description = "What changed.", body = Applied),
        (status = 404, description = "No such policy.", body = Problem),
    )
)]
pub(super) async fn retire(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Applied>, Problem> {
    retire_document(&app, &caller, Kind::Policy, &name).await.map(Json)
}

pub(super) async fn retire_document(
    app: &App,
    caller: &Caller,
    kind: Kind,
    name: &str,
) -> Result<Applied, Problem> {
    caller.need(&[Role::Admin])?;
    let name = self::name(name)?;
    let mut connection = app.broker.pool.acquire().await?;
    let stamp = app.broker.recorder.stamp();
    let retired = documents::retire(&mut connection, kind, name.as_str(), &caller.subject(), stamp).await?;
    retired.ok_or_else(none)
}

fn none() -> Problem {
    Problem::not_found("there is no document of this name in force")
}

/// A name that cannot be one belongs to no document.
fn name(text: &str) -> Result<PolicyName, Problem> {
    text.parse().map_err(|_| none())
}

pub(crate) async fn head(app: &App, kind: Kind, name: &str) -> Result<Version, Problem> {
    let name = self::name(name)?;
    let head = documents::head(&app.broker.pool, kind, name.as_str()).await?;
    head.filter(|head| !head.retired).ok_or_else(none)
}

/// Every version of a policy, newest first.
#[utoipa::path(
    get, path = "/v1/policies/{name}/history", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64)),
    responses(
        (status = 200, description = "The versions.", body = [Version]),
        (status = 404, description = "No such policy.", body = Problem),
    )
)]
pub(super) async fn history(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<Version>>, Problem> {
    caller.need(&READERS)?;
    versions(&app, &name).await.map(Json)
}

/// Every version of a policy, newest first.
pub(crate) async fn versions(app: &App, name: &str) -> Result<Vec<Version>, Problem> {
    let name = self::name(name)?;
    let versions = documents::history(&app.broker.pool, Kind::Policy, name.as_str()).await?;
    if versions.is_empty() { Err(none()) } else { Ok(versions) }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// The older version; the one before `to` where this is missing.
    from: Option<i32>,
    /// The newer version; the newest where this is missing.
    to: Option<i32>,
}

/// What changed between two versions.
#[utoipa::path(
    get, path = "/v1/policies/{name}/diff", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64), DiffQuery),
    responses(
        (status = 200, description = "A unified diff.", body = String, content_type = "text/plain"),
        (status = 404, description = "No such policy or version.", body = Problem),
    )
)]
pub(super) async fn diff(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<String, Problem> {
    caller.need(&READERS)?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let versions = versions(&app, &name).await?;
    let newest = versions.first().map_or(1, |version| version.version);
    let to = query.to.unwrap_or(newest);
    let from = query.from.unwrap_or_else(|| to.saturating_sub(1));
    let source = |wanted: i32| match versions.iter().find(|version| version.version == wanted) {
        Some(version) => Ok(version.source.as_str()),
        None if wanted == 0 => Ok(""),
        None => Err(Problem::not_found(format!("there is no version {wanted}"))),
    };
    Ok(policy::diff(source(from)?, source(to)?))
}

/// The Cedar text that a policy compiles to.
#[utoipa::path(
    get, path = "/v1/policies/{name}/explain", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64)),
    responses(
        (status = 200, description = "Cedar.", body = String, content_type = "text/plain"),
        (status = 404, description = "No such policy.", body = Problem),
    )
)]
pub(super) async fn explain(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<String, Problem> {
    caller.need(&READERS)?;
    let catalogue = app.broker.library.catalogue();
    Ok(in_force(&catalogue, &name)?.cedar())
}

/// The policy as it is in force in this replica.
pub(crate) fn in_force<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a Policy, Problem> {
    let policy = catalogue.policy(&self::name(name)?).and_then(|shelved| shelved.policy());
    policy.map(|policy| &**policy).ok_or_else(none)
}

/// A question to a policy: could this run get this now?
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The run, with the fields that the record shows: `issuer`, `dag_id`, `run_id`, `task_id`, `try_number`,
    /// `attestation` and, where they matter, the others.
    #[schema(value_type = Object)]
    pub(crate) run: Value,
    /// The provider.
    pub(crate) provider: String,
    /// The caller's address.
    #[schema(value_type = Option<String>)]
    pub(crate) source: Option<std::net::IpAddr>,
    /// When; now where this is missing.
    pub(crate) at: Option<String>,
    /// As if an approval were active.
    #[serde(default)]
    pub(crate) approved: bool,
    /// As if it asked to be let in although the policy is closed.
    #[serde(default)]
    pub(crate) break_glass: bool,
}

/// Ask a policy without a token: nothing is issued, nothing is recorded.
#[utoipa::path(
    post, path = "/v1/policies/{name}/dry-run", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64)), request_body = Question,
    responses(
        (status = 200, description = "The decision, with the rules that decide.", body = Object),
        (status = 404, description = "No such policy.", body = Problem),
        (status = 503, description = "The guardrails cannot be read.", body = Problem),
    )
)]
pub(super) async fn dry_run(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Decision>, Problem> {
    caller.need(&READERS)?;
    in_force(&app.broker.library.catalogue(), &name)?;
    ask(&app, &name, body::json(&headers, &body)?).map(Json)
}

/// Asks a policy a question, for the API and the console alike.
pub(crate) fn ask(app: &App, name: &str, question: Question) -> Result<Decision, Problem> {
    let catalogue = app.broker.library.catalogue();
    let policy = in_force(&catalogue, name)?;
    let run: Run =
        serde_json::from_value(question.run).map_err(|e| Problem::bad_request(format!("run: {e}")))?;
    let at = question.at.map(|at| at.parse::<Timestamp>()).transpose();
    let at = at.map_err(|_| Problem::bad_request("at is written as 2026-01-31T23:59:59Z"))?;
    let guardrails = catalogue.guardrails().ok_or_else(|| {
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "the guardrails cannot be read")
    })?;
    let ttl: SignedDuration = policy.max_ttl();
    let ask = Ask {
        principal: &Principal::Run(run),
        provider: &question.provider,
        source_ip: question.source,
        now: at.unwrap_or_else(|| app.broker.clock.now()),
        ttl,
        approved: question.approved,
        break_glass: question.break_glass,
    };
    Ok(policy.decide(guardrails, &ask))
}
