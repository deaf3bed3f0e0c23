//! Where the command's clients fetch credentials: a port of 127.0.0.1 that wants the process's own key.
//!
//! AWS SDKs speak the container-credentials protocol; google-auth exchanges a subject token, which here is the key,
//! for an access token (RFC 8693).

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::clock::SystemClock;
use cortex_core::{Clock as _, Digest};
use cortex_server::random::{Random as _, SystemRandom};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::held::{Absent, Held};
use crate::ask::{Credential, aws_keys};
use crate::error::Error;

/// The largest form, in bytes.
const BODY_MAX: usize = 16 << 10;

/// What google-auth says that it wants.
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The open port; it closes when this is dropped.
pub(super) struct Endpoint {
    base: String,
    key: Zeroizing<String>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    held: Arc<Held>,
    key: Digest,
}

impl Endpoint {
    /// Opens a free port, with a key of 256 random bits.
    pub(super) async fn start(held: Arc<Held>) -> Result<Self, Error> {
        let mut bits = Zeroizing::new([0_u8; 32]);
        SystemRandom.fill(bits.as_mut_slice());
        let key = Zeroizing::new(format!("cortex_exec_{}", URL_SAFE_NO_PAD.encode(bits.as_slice())));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let router = Router::new()
            .route("/aws", get(aws))
            .route("/google/subject", get(google_subject))
            .route("/google/token", post(google_token))
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .with_state(Shared { held, key: Digest::of(key.as_bytes()) });
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { base, key, serving })
    }

    /// The address of one of its paths.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What a client has to show.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    /// Compared by digest, so that time tells nothing about the key.
    fn knows(&self, shown: &str) -> bool {
        Digest::of(shown.as_bytes()) == self.key
    }

    /// Whether the request's one Authorization header shows the key, with or without `Bearer` before it.
    fn authorizes(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
            return false;
        };
        self.knows(value.strip_prefix("Bearer ").unwrap_or(value))
    }
}

/// `GET /aws`: the keys, in the words of the container-credentials protocol.
async fn aws(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if !shared.authorizes(&headers) {
        return aws_error(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "this endpoint wants the key of its own command",
        );
    }
    match shared.held.wanted_credential("aws") {
        Ok(credential) => secret(StatusCode::OK, aws_keys(&credential, "Token")),
        Err(Absent::Over(why)) => aws_error(StatusCode::FORBIDDEN, "AccessDenied", &why),
        Err(Absent::Ended) => aws_error(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", NOT_RENEWED),
    }
}

const NOT_RENEWED: &str =
    "the credential has ended and is not renewed yet; what `cortex exec` prints says why";

/// JavaScript's SDK reads the capital names, Rust's and Go's the small ones.
fn aws_error(status: StatusCode, code: &str, message: &str) -> Response {
    secret(status, json!({"code": code, "message": message, "Code": code, "Message": message}))
}

/// `GET /google/subject`: the key again, as a subject token.
async fn google_subject(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(key) if shared.authorizes(&headers) => no_store(key.to_owned().into_response()),
        _ => secret(StatusCode::UNAUTHORIZED, json!({"error": "invalid_token"})),
    }
}

/// `POST /google/token`: the key for the token.
async fn google_token(State(shared): State<Shared>, Form(form): Form<HashMap<String, String>>) -> Response {
    let is_known = form.get("subject_token").is_some_and(|key| shared.knows(key));
    if form.get("grant_type").map(String::as_str) != Some(EXCHANGE) || !is_known {
        return secret(StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}));
    }
    match shared.held.wanted_credential("bigquery") {
        Ok(credential) => secret(StatusCode::OK, google_answer(&credential)),
        Err(Absent::Over(why)) => {
            secret(StatusCode::BAD_REQUEST, json!({"error": "invalid_grant", "error_description": why}))
        }
        Err(Absent::Ended) => {
            let error = json!({"error": "temporarily_unavailable", "error_description": NOT_RENEWED});
            secret(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }
}

fn google_answer(credential: &Credential) -> Value {
    json!({
        "access_token": credential.field("token"),
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": credential.expires_at.duration_since(SystemClock.now()).as_secs().max(0),
    })
}

fn secret(status: StatusCode, body: Value) -> Response {
    no_store((status, Json(body)).into_response())
}

fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
