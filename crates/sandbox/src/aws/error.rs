//! AWS's errors: a code, an HTTP status and a sentence.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::xml::{Xml, respond};

/// An error as AWS answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AwsError {
    pub(crate) code: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl AwsError {
    fn new(code: &'static str, status: StatusCode, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into() }
    }

    /// An error of status 400.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, StatusCode::BAD_REQUEST, message)
    }

    /// An error of status 403.
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, StatusCode::FORBIDDEN, message)
    }

    /// An error of status 404.
    pub(crate) fn missing(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, StatusCode::NOT_FOUND, message)
    }

    /// An error of status 409.
    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, StatusCode::CONFLICT, message)
    }

    /// What S3 says where the condition of a request does not hold.
    pub(crate) fn precondition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold";
        Self::new("PreconditionFailed", StatusCode::PRECONDITION_FAILED, message)
    }

    /// What S3 says when it is called too often.
    pub(crate) fn slow_down() -> Self {
        Self::new("SlowDown", StatusCode::SERVICE_UNAVAILABLE, "Please reduce your request rate.")
    }

    /// What KMS says where its own cryptography fails.
    pub(crate) fn kms_internal() -> Self {
        Self::new("KMSInternalException", StatusCode::INTERNAL_SERVER_ERROR, "")
    }

    /// Something that AWS can do and the sandbox cannot.
    pub(crate) fn not_in_sandbox(what: &str) -> Self {
        let message = format!("The sandbox does not implement {what}.");
        Self::new("NotImplemented", StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::bad("ValidationError", message)
    }

    /// The answer of a query API (STS, IAM) with its namespace.
    pub(crate) fn query_response(&self, request_id: &str, namespace: &str) -> Response {
        let fault = if self.status.is_server_error() { "Receiver" } else { "Sender" };
        let error = Xml::default().text("Type", fault).text("Code", self.code).text("Message", &self.message);
        let body = Xml::default().element("Error", &error).text("RequestId", request_id);
        respond(self.status, request_id, body.document("ErrorResponse", namespace))
    }

    /// The answer of an API that speaks JSON (KMS).
    pub(crate) fn json_response(&self, request_id: &str) -> Response {
        let body = json!({"__type": self.code, "message": self.message});
        (self.status, [("x-amzn-requestid", request_id)], Json(body)).into_response()
    }

    /// The answer of S3.
    pub(crate) fn s3_response(&self, request_id: &str, resource: &str) -> Response {
        let body = Xml::default()
            .text("Code", self.code)
            .text("Message", &self.message)
            .text("Resource", resource)
            .text("RequestId", request_id);
        respond(self.status, request_id, body.document("Error", ""))
    }
}
