//! `GET /v1/aws/{policy}`: the container-credentials protocol that every AWS SDK speaks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::Body;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::credentials::exchange_detached;
use super::error::OAuthError;
use super::{App, Client};
use crate::exchange::{Item, Request};
use crate::leases::{HANDLE_PREFIX, LiveLease};
use crate::recall;

/// The header with the receipt of the issuance: JSON in base64.
const RECEIPT: &str = "cortex-receipt";

/// AWS credentials under a policy, for AWS SDKs: set `AWS_CONTAINER_CREDENTIALS_FULL_URI` to this URL and
/// `AWS_CONTAINER_AUTHORIZATION_TOKEN` to a lease's handle or the run's token.
#[utoipa::path(
    get, path = "/v1/aws/{policy}", tag = "runs", security(("bearer" = [])),
    params(("policy" = String, Path, description = "The policy.", max_length = 64)),
    responses(
        (status = 200, description = "AccessKeyId, SecretAccessKey, Token, Expiration, AccountId."),
        (status = 400, description = "Refused; code and message say why."),
        (status = 401, description = "No token."),
        (status = 429, description = "Too many asks; Retry-After says when to come back."),
        (status = 502, description = "AWS answered what was not asked."),
        (status = 503, description = "Come back later."),
    )
)]
pub(super) async fn container_credentials(
    State(app): State<App>,
    client: Client,
    Path(policy): Path<String>,
    parts: Parts,
) -> Response {
    match fetch(&app, client, policy, &parts).await {
        Ok(response) => response,
        Err(error) => {
            // JavaScript's SDK reads the capital names, Rust's and Go's the small ones.
            let (code, message) = (error.error, &error.error_description);
            let body = json!({
                "code": code, "message": message, "Code": code, "Message": message,
                "decision_id": error.decision_id, "grant_id": error.grant_id,
            });
            (error.status(), Json(body)).into_response()
        }
    }
}

async fn fetch(app: &App, client: Client, policy: String, parts: &Parts) -> Result<Response, OAuthError> {
    let Some(token) = authorization(parts) else {
        app.broker.noise.count("request", client.source, app.broker.clock.now());
        return Err(OAuthError::new(
            "invalid_request",
            "send a lease's handle or the run's token as Authorization",
        )
        .with_status(StatusCode::UNAUTHORIZED));
    };
    if token.starts_with(HANDLE_PREFIX) {
        let lease =
            recall::by_handle(&app.broker, &token, &policy, client.source, &client.request_id).await?;
        return answer(&lease);
    }
    let bundle = exchange_detached(app, |gone| Request {
        token,
        claim: None,
        policy,
        providers: Some(vec!["aws".to_owned()]),
        ttl: None,
        reason: None,
        ticket: None,
        break_glass: false,
        request_id: client.request_id,
        source: client.source,
        gone,
    })
    .await?;
    match bundle.items.into_iter().next() {
        Some(Item::Issued(lease)) => answer(&lease),
        Some(Item::Refused { refused, .. }) => Err(refused.into()),
        None => Err(OAuthError::new("invalid_target", "nothing was asked for")),
    }
}

/// The SDKs send the token verbatim; `Bearer ` in front of it is welcome.
fn authorization(parts: &Parts) -> Option<Zeroizing<String>> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?.trim();
    if values.next().is_some() || value.is_empty() {
        return None;
    }
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) => return None,
        None => value,
    };
    Some(Zeroizing::new(token.to_owned()))
}

fn answer(lease: &LiveLease) -> Result<Response, OAuthError> {
    let Body::AwsKeys { access_key_id, secret_access_key, session_token } = &lease.body else {
        return Err(OAuthError::new("invalid_target", "this lease is not one of AWS"));
    };
    // SDKs want whole seconds and a `Z`.
    let expiration = lease.lease.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body: Value = json!({
        "AccessKeyId": access_key_id,
        "SecretAccessKey": secret_access_key.as_str(),
        "Token": session_token.as_str(),
        "Expiration": expiration,
        "AccountId": lease.details.get("account"),
    });
    let mut response = Json(body).into_response();
    // The SDKs' protocol has no room for it in the body.
    let receipt = serde_json::to_vec(&lease.receipt).map(|json| STANDARD.encode(json));
    if let Some(receipt) = receipt.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(RECEIPT, receipt);
    }
    Ok(response)
}
