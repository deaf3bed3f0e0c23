//! `generateAccessToken` of IAM credentials: act as a service account.

use std::collections::BTreeSet;

use axum::Json;
use axum::response::IntoResponse;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use super::error::ApiError;
use super::{Access, CLOUD_PLATFORM, Google, Member};
use crate::fault::Twist;
use crate::gate::{Answer, Call, Noted};
use crate::ledger::Cloud;

const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// The longest lifetime, in seconds, and what it is where the caller does not say.
const MAX_LIFETIME_S: i64 = 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    // Clients write null for what they leave out.
    scope: Option<Vec<String>>,
    lifetime: Option<String>,
    delegates: Option<Vec<String>>,
}

impl Request {
    fn lifetime(&self) -> Result<SignedDuration, ApiError> {
        let Some(text) = &self.lifetime else {
            return Ok(SignedDuration::from_secs(MAX_LIFETIME_S));
        };
        let seconds = text.strip_suffix('s').and_then(|text| text.parse::<f64>().ok());
        let seconds = seconds.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
        let allowed = SignedDuration::from_secs(1)..=SignedDuration::from_secs(MAX_LIFETIME_S);
        seconds.filter(|lifetime| allowed.contains(lifetime)).ok_or_else(|| {
            ApiError::invalid(format!("The access token lifetime cannot exceed {MAX_LIFETIME_S} seconds."))
        })
    }
}

impl Google {
    pub(super) fn generate_access_token(
        &self,
        call: &Call,
        email: &str,
        twist: Option<Twist>,
    ) -> Result<Answer, ApiError> {
        let holder = self.holder(call)?;
        if !holder.scopes.contains(CLOUD_PLATFORM) && !holder.scopes.contains(IAM_SCOPE) {
            return Err(ApiError::scope());
        }
        let request: Request = serde_json::from_slice(&call.body)
            .map_err(|error| ApiError::invalid(format!("Invalid JSON payload received: {error}")))?;
        let lifetime = request.lifetime()?;
        let scopes = request.scope.filter(|scopes| !scopes.is_empty());
        let scopes = scopes.ok_or_else(|| ApiError::invalid("The scope is required."))?;
        if request.delegates.is_some_and(|delegates| !delegates.is_empty()) {
            return Err(ApiError::invalid("The sandbox has no delegation chains."));
        }
        let users = self.service_accounts.get(email);
        if !users.is_some_and(|users| holder.is_one_of(users)) {
            return Err(ApiError::denied(
                "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
            ));
        }
        self.act_as(email, scopes, lifetime, &holder, twist)
    }

    fn act_as(
        &self,
        email: &str,
        scopes: Vec<String>,
        lifetime: SignedDuration,
        holder: &Access,
        twist: Option<Twist>,
    ) -> Result<Answer, ApiError> {
        let now = self.world.now();
        let expires_at = now.saturating_add(lifetime).unwrap_or(now);
        let access = Access {
            members: BTreeSet::from([Member::service_account(email)]),
            name: email.to_owned(),
            scopes: scopes.into_iter().collect(),
            expires_at,
        };
        let token = self.issue(access).ok_or_else(ApiError::exhausted)?;
        let lease = holder.name.rsplit_once("/subject/").map(|(_, subject)| subject.to_owned());
        let mint = self.world.note(Noted {
            cloud: Cloud::Google,
            operation: "generateAccessToken",
            subject: email.to_owned(),
            lease,
            expires_at,
        });
        let told = match twist {
            Some(Twist::LongerExpiry) => expires_at.saturating_add(lifetime).unwrap_or(expires_at),
            _ => expires_at,
        };
        // Google says this to the second.
        let mut body = json!({"expireTime": told.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        if twist != Some(Twist::MissingToken) {
            body["accessToken"] = token.into();
        }
        Ok(Answer { response: Json(body).into_response(), mint: Some(mint) })
    }
}
