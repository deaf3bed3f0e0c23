//! Errors on the wire: RFC 6749 and 8693 codes for runs, RFC 9457 problem details for people.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cortex_core::grant::NotAllowed;
use serde::Serialize;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Content, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};

use crate::denial::{NOT_FOR_YOU, Refused};
use crate::store::StoreError;
use crate::store::grants::GrantError;

const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

/// An error for a run (RFC 6749, section 5.2).
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct OAuthError {
    /// The code: `invalid_request`, `invalid_target`, `authorization_pending`, `access_denied`,
    /// `unsupported_grant_type`, `slow_down`, `temporarily_unavailable` or `server_error`.
    pub error: &'static str,
    /// What is the case and what to do, in words.
    pub error_description: String,
    /// What to quote to an admin: the decision is on record under it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    /// The grant, where it is about one.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<Box<str>>,
    /// What the grant's status can be asked with; good for nothing else.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_handle: Option<Box<str>>,
    /// How long to wait before asking again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl OAuthError {
    /// An error with a code and a sentence, and HTTP 400.
    pub fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            error,
            error_description: description.into(),
            decision_id: None,
            grant_id: None,
            grant_handle: None,
            interval: None,
            status: StatusCode::BAD_REQUEST,
            retry_after: None,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<Refused> for OAuthError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Request { description, decision_id } => Self {
                decision_id: decision_id.map(|id| id.to_string()),
                ..Self::new("invalid_request", description)
            },
            Refused::Unnamed { decision_id } => Self {
                decision_id: Some(decision_id.to_string()),
                ..Self::new("invalid_target", NOT_FOR_YOU)
            },
            Refused::Target { description, decision_id } => Self {
                decision_id: Some(decision_id.to_string()),
                ..Self::new("invalid_target", description)
            },
            Refused::Pending { grant_id, handle, interval_s } => Self {
                grant_id: Some(grant_id.to_string().into()),
                grant_handle: Some(handle.into()),
                interval: Some(interval_s),
                ..Self::new(
                    "authorization_pending",
                    format!("grant {grant_id} waits for approval; ask again"),
                )
            },
            Refused::GrantDenied { grant_id, description } => Self {
                grant_id: Some(grant_id.to_string().into()),
                ..Self::new("access_denied", description)
            },
            Refused::Unavailable { description, retry_after_s } => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                retry_after: Some(retry_after_s),
                ..Self::new("temporarily_unavailable", description)
            },
            Refused::Limited { description, retry_after_s } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after: Some(retry_after_s),
                ..Self::new("slow_down", description)
            },
            Refused::Failed { description } => {
                Self { status: StatusCode::BAD_GATEWAY, ..Self::new("server_error", description) }
            }
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            challenge(&mut response);
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An error for people and their tools (RFC 9457).
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// What kind of problem it is, for programs; none where the status says enough.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The HTTP status again.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// What is the case and what to do.
    pub detail: String,
    /// Every fault of a document, with its line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<DocumentFault>,
}

/// One fault of a document.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct DocumentFault {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl Problem {
    /// A problem with a status and a sentence.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: None,
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
            problems: Vec::new(),
        }
    }

    /// The same with a name for programs: `urn:cortex:problem:<name>`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { kind: Some(format!("urn:cortex:problem:{name}")), ..self }
    }

    /// There is no such thing, or not for this caller.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The request's values are at fault.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Cortex is at fault; what it was is in its log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Cortex failed; its log says how. Nothing was released.")
    }

    /// A document that is not accepted; nothing was changed.
    pub fn document(problems: Vec<cortex_core::policy::Problem>) -> Self {
        let fault = |p: cortex_core::policy::Problem| DocumentFault {
            line: p.line,
            column: p.column,
            message: p.message,
            remedy: p.remedy,
        };
        Self {
            problems: problems.into_iter().map(fault).collect(),
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the document was not accepted; nothing was changed",
            )
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::Guardrails(problems) = error {
            return Self::document(problems);
        }
        if let StoreError::Archived { .. } = error {
            return Self::new(StatusCode::GONE, error.to_string());
        }
        tracing::error!(%error, "the database failed a request");
        match error {
            StoreError::Database(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the database cannot be reached at the moment; nothing was changed, try again",
            ),
            _ => Self::internal(),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        let (status, name) = match error {
            GrantError::Store(error) => return error.into(),
            GrantError::NotFound => return Self::not_found(error.to_string()),
            GrantError::Decided(_) => (StatusCode::CONFLICT, "decided"),
            GrantError::PolicyChanged => (StatusCode::CONFLICT, "policy-changed"),
            GrantError::Stale { .. } => (StatusCode::PRECONDITION_FAILED, "stale"),
            GrantError::Voided(_) => (StatusCode::PRECONDITION_FAILED, "voided"),
            GrantError::NotAllowed(why @ NotAllowed::Again) => (StatusCode::CONFLICT, why.code()),
            GrantError::NotAllowed(why) => (StatusCode::FORBIDDEN, why.code()),
            GrantError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
        };
        Self::new(status, error.to_string()).named(name)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static(PROBLEM_JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            challenge(&mut response);
        }
        response
    }
}

/// Says how to authenticate (RFC 6750, section 3).
fn challenge(response: &mut Response) {
    let bearer = HeaderValue::from_static("Bearer realm=\"cortex\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
}

/// What every route for people may answer besides its own.
const TO_PEOPLE: [(&str, &str); 3] =
    [("401", "No person."), ("403", "Not for this role."), ("503", "Come back later.")];
/// What every route with a JSON body may answer besides its own.
const TO_BODIES: [(&str, &str); 3] =
    [("400", "The body cannot be read."), ("413", "The body is too large."), ("415", "Not JSON.")];
/// What every route with query parameters may answer besides its own.
const TO_QUERIES: [(&str, &str); 1] = [("400", "A parameter cannot be read.")];

/// Completes the description: the errors that many routes share, and the media type of problem details.
pub(super) fn describe(api: &mut OpenApi) {
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            add_shared_errors(operation);
            name_media_type(operation);
        }
    }
}

fn add_shared_errors(operation: &mut Operation) {
    let people = ["policies", "grants", "freezes", "revocations", "introspection", "people", "record", "log"];
    if !operation.tags.iter().flatten().any(|tag| people.contains(&tag.as_str())) {
        return;
    }
    let mut shared = TO_PEOPLE.to_vec();
    if operation.request_body.is_some() {
        shared.extend(TO_BODIES);
    }
    let in_query = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(p) if p.parameter_in == ParameterIn::Query);
    if operation.parameters.iter().flatten().any(in_query) {
        shared.extend(TO_QUERIES);
    }
    for (status, description) in shared {
        let mut response = ResponseBuilder::new().description(description);
        // A body that is too large is refused before a handler sees it, in plain text.
        if status != "413" {
            let problem = Ref::from_schema_name("Problem");
            response = response.content(JSON, ContentBuilder::new().schema(Some(problem)).build());
        }
        let response = response.build();
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
    }
}

fn name_media_type(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && response.content.get(JSON).is_some_and(is_problem)
            && let Some(content) = response.content.shift_remove(JSON)
        {
            response.content.insert(PROBLEM_JSON.to_owned(), content);
        }
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(content) = content else { return false };
    matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location.ends_with("/Problem"))
}
