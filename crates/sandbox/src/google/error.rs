//! Google's two kinds of errors: RFC 6749's at the token service, its own JSON everywhere else.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error of the token service (RFC 6749, 5.2), always with status 400.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OauthError {
    pub(super) code: &'static str,
    pub(super) description: String,
}

impl OauthError {
    pub(super) fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = json!({"error": self.code, "error_description": self.description});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

/// An error of the other APIs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// The canonical code: `PERMISSION_DENIED`.
    name: &'static str,
    /// `BigQuery`'s own word, on which its clients decide whether to try again.
    reason: &'static str,
    message: String,
}

impl ApiError {
    pub(super) fn unauthenticated() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            name: "UNAUTHENTICATED",
            reason: "authError",
            message: "Request had invalid authentication credentials. Expected OAuth 2 access token."
                .to_owned(),
        }
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        let status = StatusCode::FORBIDDEN;
        Self { status, name: "PERMISSION_DENIED", reason: "accessDenied", message: message.into() }
    }

    pub(super) fn scope() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            name: "PERMISSION_DENIED",
            reason: "insufficientPermissions",
            message: "Request had insufficient authentication scopes.".to_owned(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self { status, name: "INVALID_ARGUMENT", reason: "invalid", message: message.into() }
    }

    pub(super) fn missing(what: &str) -> Self {
        let message = format!("Not found: {what}");
        Self { status: StatusCode::NOT_FOUND, name: "NOT_FOUND", reason: "notFound", message }
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        let status = StatusCode::CONFLICT;
        Self { status, name: "ABORTED", reason: "conflict", message: message.into() }
    }

    pub(super) fn exhausted() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            name: "RESOURCE_EXHAUSTED",
            reason: "rateLimitExceeded",
            message: "Quota exceeded.".to_owned(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let errors = json!([{"message": self.message, "domain": "global", "reason": self.reason}]);
        let body = json!({"error": {
            "code": self.status.as_u16(), "message": self.message, "status": self.name, "errors": errors,
        }});
        (self.status, Json(body)).into_response()
    }
}
