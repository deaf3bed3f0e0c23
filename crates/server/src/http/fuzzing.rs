//! The readers of request bodies, for the fuzz targets in `fuzz/`, which have no server to send them to.

use axum::http::{HeaderMap, HeaderValue, header};

use super::{credentials, token};

fn of_type(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

/// Reads a body of `POST /v1/token`; on success the policy and the provider that it names.
pub fn token_form(body: &[u8]) -> Option<(String, String)> {
    let form = token::read_form(&of_type("application/x-www-form-urlencoded"), body).ok()?;
    let ask = token::Ask::parse(form).ok()?;
    Some((ask.policy, ask.provider))
}

/// Reads a body of `POST /v1/credentials`; on success the lifetime that it asks for, in seconds.
pub fn credentials_body(body: &[u8]) -> Option<i64> {
    credentials::read(&of_type("application/json"), body).ok()?.ttl_seconds
}
