//! Cortex as an OIDC issuer: what the clouds read.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use cortex_core::jwt::SigningAlgorithm;
use serde_json::{Value, json};

use super::App;

fn metadata(app: &App) -> Value {
    let url = &app.issuer_url;
    let issuer = app.broker.keyring.issuer();
    let signs = |algorithm: &SigningAlgorithm| issuer.key_for(*algorithm).is_some();
    let algorithms: Vec<_> = SigningAlgorithm::ALL.into_iter().filter(signs).collect();
    json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "token_endpoint": format!("{url}/v1/token"),
        "token_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint": format!("{url}/v1/introspect"),
        "introspection_endpoint_auth_methods_supported": ["bearer"],
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti"],
    })
}

/// OIDC discovery (OpenID Connect Discovery 1.0).
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = "issuer",
    responses((status = 200, description = "The metadata.", body = Object))
)]
pub(super) async fn openid_configuration(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(metadata(&app)))
}

/// Authorization server metadata (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "issuer",
    responses((status = 200, description = "The metadata.", body = Object))
)]
pub(super) async fn authorization_server(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(metadata(&app)))
}

/// The keys that Cortex signs with (RFC 7517): the current, the next and those that may still be needed.
#[utoipa::path(
    get, path = "/jwks", tag = "issuer",
    responses((status = 200, description = "The key set.", body = Object))
)]
pub(super) async fn jwks(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json((*app.broker.keyring.jwks()).clone()))
}
