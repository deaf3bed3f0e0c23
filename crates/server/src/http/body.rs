//! Request bodies: one content type each, strict, with an error that says what is wrong.

use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::error::Problem;

/// Reads a JSON body.
pub(super) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if media_type(headers) != Some("application/json") {
        let detail = "send the body as application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    serde_json::from_slice(body).map_err(|e| Problem::bad_request(format!("the body cannot be read: {e}")))
}

/// The content type without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// Refuses a text that is longer than `most` bytes or has a NUL, which Postgres does not store.
pub(super) fn bounded(what: &str, text: Option<&str>, most: usize) -> Result<(), Problem> {
    if text.is_some_and(|text| text.len() > most || text.contains('\0')) {
        return Err(Problem::bad_request(format!("a {what} has at most {most} bytes and no NUL")));
    }
    Ok(())
}
