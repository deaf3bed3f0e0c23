//! `POST /v1/introspect`: whether an API's access token is active (RFC 7662).

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use cortex_core::Principal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::App;
use super::auth::Bearer;
use super::body::media_type;
use super::error::Problem;
use crate::introspection;

/// What is asked.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = IntrospectionRequest)]
#[expect(
    dead_code,
    reason = "it describes the form, which is read leniently, as RFC 6749, section 3.2, wants it"
)]
pub(super) struct Asked {
    /// The access token.
    #[schema(max_length = 16384)]
    token: String,
    /// What kind of token it is; only access tokens are known here.
    token_type_hint: Option<String>,
}

/// Whether the token is active, and if so, its claims.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Introspection {
    /// Whether Cortex issued it, it has not expired and it is not revoked.
    active: bool,
    /// Its claims, as members of their own; none of a token that is not active.
    #[serde(flatten)]
    claims: Map<String, Value>,
}

/// Whether an access token that Cortex issued for an API is active. It is for the APIs: they show a token of a `service`
/// issuer. A revoked token is inactive from the moment at which its revocation was answered.
#[utoipa::path(
    post, path = "/v1/introspect", tag = "introspection", security(("bearer" = [])),
    request_body(content = Asked, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "Whether it is active.", body = Introspection))
)]
pub(super) async fn introspect(
    State(app): State<App>,
    caller: Bearer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Introspection>, Problem> {
    if !matches!(caller.verified.principal(), Principal::Service(_)) {
        let detail = "this is for services that are shown Cortex's tokens";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if media_type(&headers) != Some("application/x-www-form-urlencoded") {
        let detail = "send the token as application/x-www-form-urlencoded";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let mut pairs = form_urlencoded::parse(&body).filter(|(key, _)| key == "token");
    let (Some((_, token)), None) = (pairs.next(), pairs.next()) else {
        return Err(Problem::bad_request("send one token"));
    };
    let claims = introspection::active(&app.broker, &app.issuer_url, &token).await?;
    let active = claims.is_some();
    let mut claims = claims.unwrap_or_default();
    if active {
        claims.insert("token_type".to_owned(), json!("Bearer"));
    }
    Ok(Json(Introspection { active, claims }))
}
