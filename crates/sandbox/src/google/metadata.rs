//! The metadata server of a machine: tokens of the service account that the machine runs as.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use serde_json::json;

use super::{Access, CLOUD_PLATFORM, Google, Member};
use crate::gate::Call;

pub(super) const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// The header that keeps a page in a browser from asking.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

impl Google {
    pub(super) fn metadata_token(&self, call: &Call) -> Response {
        let flavored = call.header(FLAVOR.0) == Some(FLAVOR.1) && call.header("x-forwarded-for").is_none();
        if call.method != Method::GET || !flavored {
            return (StatusCode::FORBIDDEN, [FLAVOR], "Missing required header").into_response();
        }
        let Some(email) = &self.machine else {
            return (StatusCode::NOT_FOUND, [FLAVOR], "no service account").into_response();
        };
        let now = self.world.now();
        let token = self.issue(Access {
            members: BTreeSet::from([Member::service_account(email)]),
            name: email.clone(),
            scopes: BTreeSet::from([CLOUD_PLATFORM.to_owned()]),
            expires_at: now.saturating_add(LIFETIME).unwrap_or(now),
        });
        let Some(token) = token else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        let body = json!({"access_token": token, "expires_in": LIFETIME.as_secs(), "token_type": "Bearer"});
        ([FLAVOR], Json(body)).into_response()
    }
}
