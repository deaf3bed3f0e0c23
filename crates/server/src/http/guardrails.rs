//! `/v1/guardrails`: organisation-wide forbids that no policy overrides.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use cortex_core::policy::Guardrails;
use cortex_core::{Digest, PolicyName};
use serde::Deserialize;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::policies::READERS;
use super::{App, body};
use crate::store::documents::{self, Applied, Document, Kind, Version};

/// Guardrails to put in force, all or none.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Guardrail {
    /// The file's name without its ending: a-z, 0-9 and hyphens.
    #[schema(max_length = 64, example = "production")]
    name: String,
    /// The file's text: Cedar `forbid` policies, each with an `@id`.
    #[schema(min_length = 1, max_length = 65536)]
    source: String,
}

/// The guardrails in force.
#[utoipa::path(
    get, path = "/v1/guardrails", tag = "policies", security(("bearer" = [])),
    responses(
        (status = 200, description = "The guardrails.", body = [Version]),
    )
)]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<Version>>, Problem> {
    caller.need(&READERS)?;
    Ok(Json(documents::list(&app.broker.pool, Kind::Guardrail, "", 1_000).await?))
}

/// Put guardrails in force on every replica; all of them, or none.
#[utoipa::path(
    post, path = "/v1/guardrails", tag = "policies", security(("bearer" = [])),
    request_body = Vec<Guardrail>,
    responses(
        (status = 200, description = "What changed.", body = [Applied]),
        (status = 422, description = "Not accepted; nothing changed.", body = Problem),
    )
)]
pub(super) async fn apply(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Vec<Applied>>, Problem> {
    caller.need(&[Role::Admin])?;
    let guardrails: Vec<Guardrail> = body::json(&headers, &body)?;
    let mut documents = Vec::with_capacity(guardrails.len());
    for Guardrail { name, source } in guardrails {
        documents.push(check(&name, source)?);
    }
    let mut connection = app.broker.pool.acquire().await?;
    let stamp = app.broker.recorder.stamp();
    Ok(Json(documents::apply(&mut connection, &documents, &caller.subject(), stamp).await?))
}

fn check(name: &str, source: String) -> Result<Document, Problem> {
    let name = name
        .parse::<PolicyName>()
        .map_err(|e| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()))?;
    Guardrails::compile(&[(name.as_str(), source.as_str())]).map_err(Problem::document)?;
    let digest = Digest::of(source.as_bytes());
    Ok(Document { kind: Kind::Guardrail, name: name.to_string(), digest, source })
}

/// One guardrail.
#[utoipa::path(
    get, path = "/v1/guardrails/{name}", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The guardrail.", max_length = 64)),
    responses(
        (status = 200, description = "The guardrail.", body = Version),
        (status = 404, description = "No such guardrail.", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Version>, Problem> {
    caller.need(&READERS)?;
    super::policies::head(&app, Kind::Guardrail, &name).await.map(Json)
}

/// Take a guardrail out of force.
#[utoipa::path(
    delete, path = "/v1/guardrails/{name}", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The guardrail.", max_length = 64)),
    responses(
        (status = 200, description = "What changed.", body = Applied),
        (status = 404, description = "No such guardrail.", body = Problem),
    )
)]
pub(super) async fn retire(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Applied>, Problem> {
    super::policies::retire_document(&app, &caller, Kind::Guardrail, &name).await.map(Json)
}
