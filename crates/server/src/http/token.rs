//! `POST /v1/token`: OAuth 2.0 token exchange (RFC 8693), which Google's client libraries speak natively.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cortex_core::Body;
use cortex_log::receipt::Receipt;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::body::media_type;
use super::credentials::exchange_detached;
use super::error::OAuthError;
use super::{App, Client};
use crate::exchange::{Item, Request};
use crate::leases::LiveLease;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TYPE_AWS: &str = "urn:cortex:params:oauth:token-type:aws-credentials";

/// The form (RFC 8693, section 2.1).
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "describes the form; it is read by hand, for duplicates have to be refused")]
pub(super) struct TokenForm {
    /// `urn:ietf:params:oauth:grant-type:token-exchange`.
    grant_type: String,
    /// The run's token.
    subject_token: String,
    /// `urn:ietf:params:oauth:token-type:jwt` or `:id_token`.
    subject_token_type: String,
    /// The policy and the provider: `urn:cortex:<policy>:<provider>`.
    audience: String,
    /// What to issue, if it matters: an access token or AWS credentials.
    requested_token_type: Option<String>,
    /// Taken note of only: the policy decides the scope.
    scope: Option<String>,
}

/// The answer (RFC 8693, section 2.2.1).
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct TokenAnswer<'a> {
    /// The credential. For AWS it is a JSON document with the three keys.
    access_token: &'a str,
    /// What kind of credential it is.
    issued_token_type: &'static str,
    /// `Bearer`, or `N_A` for AWS.
    token_type: &'static str,
    /// How long it lives, in seconds.
    expires_in: i64,
    /// Its scope, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    /// What fetches the same credential again while it lives.
    lease_handle: &'a str,
    /// The issuance on record.
    issuance_id: String,
    /// The log's promise that the record of it will be in the log: its name, the leaf's hash, when it was sealed,
    /// by when it is in a checkpoint, and the seal, a signed note. `cortex log prove` makes a proof of it.
    #[schema(value_type = Object)]
    receipt: &'a Receipt,
}

/// Exchange a run's token for one credential.
#[utoipa::path(
    post, path = "/v1/token", tag = "runs",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The credential.", body = TokenAnswer),
        (status = 400, description = "Refused; the code says how.", body = OAuthError),
        (status = 413, description = "The form is too large."),
        (status = 415, description = "Not a form.", body = OAuthError),
        (status = 429, description = "Too many asks; Retry-After says when to come back.", body = OAuthError),
        (status = 502, description = "A cloud answered what was not asked.", body = OAuthError),
        (status = 503, description = "Come back later.", body = OAuthError),
    )
)]
pub(super) async fn token(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, OAuthError> {
    let count = |error: OAuthError| {
        app.broker.noise.count("request", client.source, app.broker.clock.now());
        error
    };
    let form = read_form(&headers, &body).map_err(count)?;
    let ask = Ask::parse(form).map_err(count)?;
    let requested = ask.requested_token_type.clone();
    let bundle = exchange_detached(&app, |gone| ask.request(client, gone)).await?;
    match bundle.items.into_iter().next() {
        Some(Item::Issued(lease)) => answer(&app, &lease, requested.as_deref()),
        Some(Item::Refused { refused, .. }) => Err(refused.into()),
        None => Err(OAuthError::new("invalid_target", "nothing was asked for")),
    }
}

/// The form's parameters; a parameter that comes twice is refused (RFC 6749, section 3.2).
pub(super) fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<BTreeMap<String, String>, OAuthError> {
    if media_type(headers) != Some("application/x-www-form-urlencoded") {
        return Err(OAuthError::new("invalid_request", "send a form: application/x-www-form-urlencoded")
            .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let mut form = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        if form.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(OAuthError::new("invalid_request", format!("{name:.32} is given twice")));
        }
    }
    Ok(form)
}

pub(super) struct Ask {
    token: Zeroizing<String>,
    pub(super) policy: String,
    pub(super) provider: String,
    requested_token_type: Option<String>,
}

impl Ask {
    pub(super) fn parse(mut form: BTreeMap<String, String>) -> Result<Self, OAuthError> {
        let mut take = |name: &str| {
            let missing = || OAuthError::new("invalid_request", format!("{name} is missing"));
            form.remove(name).filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        if take("grant_type")? != GRANT_TYPE {
            return Err(OAuthError::new("unsupported_grant_type", format!("only {GRANT_TYPE}")));
        }
        let token = Zeroizing::new(take("subject_token")?);
        if ![TYPE_JWT, TYPE_ID_TOKEN].contains(&take("subject_token_type")?.as_str()) {
            let description = format!("subject_token_type is {TYPE_JWT} or {TYPE_ID_TOKEN}");
            return Err(OAuthError::new("invalid_request", description));
        }
        let audience = take("audience")?;
        let requested_token_type = take("requested_token_type").ok();
        if let Some(requested) = &requested_token_type
            && ![TYPE_ACCESS_TOKEN, TYPE_JWT, TYPE_AWS].contains(&requested.as_str())
        {
            return Err(OAuthError::new("invalid_request", "this requested_token_type is not issued"));
        }
        if form.contains_key("actor_token") || form.contains_key("actor_token_type") {
            return Err(OAuthError::new("invalid_request", "acting for others is not supported"));
        }
        if form.contains_key("resource") {
            return Err(OAuthError::new("invalid_target", "name policy and provider in audience"));
        }
        let (policy, provider) = split_audience(&audience)
            .ok_or_else(|| OAuthError::new("invalid_target", "audience is urn:cortex:<policy>:<provider>"))?;
        Ok(Self { token, policy, provider, requested_token_type })
    }

    fn request(self, client: Client, gone: CancellationToken) -> Request {
        Request {
            token: self.token,
            claim: None,
            policy: self.policy,
            providers: Some(vec![self.provider]),
            ttl: None,
            reason: None,
            ticket: None,
            break_glass: false,
            request_id: client.request_id,
            source: client.source,
            gone,
        }
    }
}

fn split_audience(audience: &str) -> Option<(String, String)> {
    let (policy, provider) = audience.strip_prefix("urn:cortex:")?.split_once(':')?;
    (!provider.contains(':')).then(|| (policy.to_owned(), provider.to_owned()))
}

fn answer(app: &App, lease: &LiveLease, requested: Option<&str>) -> Result<Response, OAuthError> {
    let keys;
    let (access_token, issued_token_type, token_type) = match &lease.body {
        Body::Token(token) => (token.as_str(), TYPE_ACCESS_TOKEN, "Bearer"),
        Body::AwsKeys { access_key_id, secret_access_key, session_token } => {
            keys = Zeroizing::new(
                json!({
                    "access_key_id": access_key_id,
                    "secret_access_key": secret_access_key.as_str(),
                    "session_token": session_token.as_str(),
                })
                .to_string(),
            );
            (keys.as_str(), TYPE_AWS, "N_A")
        }
    };
    let fits = requested
        .is_none_or(|wanted| wanted == issued_token_type || (wanted == TYPE_JWT && token_type == "Bearer"));
    if !fits {
        return Err(OAuthError::new("invalid_request", format!("this provider issues {issued_token_type}")));
    }
    let answer = TokenAnswer {
        access_token,
        issued_token_type,
        token_type,
        expires_in: lease.remaining(app.broker.clock.now()).as_secs().max(0),
        scope: lease.details.get("scope").and_then(Value::as_str),
        lease_handle: &lease.handle,
        issuance_id: lease.lease.issuance_id.to_string(),
        receipt: &lease.receipt,
    };
    Ok(Json(answer).into_response())
}
