//! `POST /v1/token`: a token of Cortex for a federated access token (RFC 8693).

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::http::header;
use axum::response::IntoResponse;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::error::OauthError;
use super::{Access, Google, Member, WorkloadPool};
use crate::fault::Twist;
use crate::gate::{Answer, Call, Noted};
use crate::jwks::Claims;
use crate::ledger::Cloud;

const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A federated token lives an hour at the most, and never longer than the token that it was exchanged for.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// A subject token may be a day old at the most.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How far into the future `iat` may lie.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// The longest `google.subject`, in bytes.
const MAX_SUBJECT: usize = 127;

/// What all mapped attributes may take together, in bytes.
const MAX_MAPPED: usize = 8_192;

/// The token service's parameters, from a form or from JSON (there in camel case).
struct Exchange(BTreeMap<String, String>);

impl Exchange {
    fn read(call: &Call) -> Result<Self, OauthError> {
        let bad = || OauthError::new("invalid_request", "The request does not read.");
        let is_json = call.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        if !is_json {
            return Ok(Self(form_urlencoded::parse(&call.body).into_owned().collect()));
        }
        let Some(Value::Object(members)) = call.json() else {
            return Err(bad());
        };
        let text = |(name, value): (String, Value)| Some((snake_case(&name), value.as_str()?.to_owned()));
        members.into_iter().map(text).collect::<Option<_>>().map(Self).ok_or_else(bad)
    }

    fn required(&self, name: &str) -> Result<&str, OauthError> {
        let value = self.0.get(name).filter(|value| !value.is_empty());
        value.map(String::as_str).ok_or_else(|| {
            OauthError::new("invalid_request", format!("The required parameter is missing: {name}"))
        })
    }

    /// Requires that a parameter is one of `allowed`.
    fn one_of(&self, name: &str, allowed: &[&str], code: &'static str) -> Result<(), OauthError> {
        let value = self.required(name)?;
        if allowed.contains(&value) {
            return Ok(());
        }
        Err(OauthError::new(code, format!("Invalid value for {name:?}")))
    }
}

fn snake_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
        out
    })
}

/// Whom a subject token proves, mapped.
#[derive(Debug, PartialEq, Eq)]
struct Federated {
    subject: String,
    members: BTreeSet<Member>,
}

impl Google {
    pub(super) async fn token(&self, call: &Call, twist: Option<Twist>) -> Result<Answer, OauthError> {
        if call.headers.contains_key(header::AUTHORIZATION) {
            return Err(OauthError::new(
                "invalid_request",
                "The token service takes no Authorization header.",
            ));
        }
        let exchange = Exchange::read(call)?;
        exchange.one_of("grant_type", &[EXCHANGE], "unsupported_grant_type")?;
        let access_token = format!("{TOKEN_TYPE}access_token");
        exchange.one_of("requested_token_type", &[&access_token], "invalid_request")?;
        let (jwt, id_token) = (format!("{TOKEN_TYPE}jwt"), format!("{TOKEN_TYPE}id_token"));
        exchange.one_of("subject_token_type", &[&jwt, &id_token], "invalid_request")?;
        let audience = exchange.required("audience")?;
        let scope = exchange.required("scope")?;
        let pool = self.pools.iter().find(|pool| pool.audience() == audience).ok_or_else(|| {
            OauthError::new(
                "invalid_target",
                "The target service indicated by the \"audience\" parameters is invalid.",
            )
        })?;
        let token = exchange.required("subject_token")?;
        let claims = self.issuer.verify(token, &[Algorithm::RS256, Algorithm::ES256]).await;
        let claims = claims.map_err(|fault| OauthError::new("invalid_grant", fault.to_string()))?;
        check(&claims, self.issuer.url(), pool, self.world.now())?;
        let federated = map(&claims, pool)?;
        let latest = claims.instant("exp").unwrap_or(self.world.now());
        self.federate(pool, federated, scope, latest, twist)
    }

    fn federate(
        &self,
        pool: &WorkloadPool,
        federated: Federated,
        scope: &str,
        latest: Timestamp,
        twist: Option<Twist>,
    ) -> Result<Answer, OauthError> {
        let now = self.world.now();
        let expires_at = now.saturating_add(LIFETIME).unwrap_or(now).min(latest);
        let name = pool.subject_name(&federated.subject);
        let access = Access {
            members: federated.members,
            name: name.clone(),
            scopes: scope.split(' ').map(ToOwned::to_owned).collect(),
            expires_at,
        };
        let busy = || OauthError::new("temporarily_unavailable", "The sandbox holds too many tokens.");
        let token = self.issue(access).ok_or_else(busy)?;
        let mint = self.world.note(Noted {
            cloud: Cloud::Google,
            operation: "token",
            subject: name,
            lease: Some(federated.subject),
            expires_at,
        });
        let factor = if twist == Some(Twist::LongerExpiry) { 2 } else { 1 };
        let mut body = json!({
            "issued_token_type": format!("{TOKEN_TYPE}access_token"),
            "token_type": "Bearer",
            "expires_in": expires_at.duration_since(now).as_secs() * factor,
        });
        if twist != Some(Twist::MissingToken) {
            body["access_token"] = token.into();
        }
        let response = ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
        Ok(Answer { response, mint: Some(mint) })
    }
}

fn check(claims: &Claims, issuer: &str, pool: &WorkloadPool, now: Timestamp) -> Result<(), OauthError> {
    let bad = |what: &str| Err(OauthError::new("invalid_grant", what));
    if claims.text("iss") != Some(issuer) {
        return bad("The issuer in ID Token does not match the expected ones.");
    }
    let own = pool.audience();
    let accepted = |aud: &str| {
        if pool.allowed_audiences.is_empty() {
            aud == own || aud.strip_prefix("https:") == Some(&own)
        } else {
            pool.allowed_audiences.iter().any(|allowed| allowed == aud)
        }
    };
    if !claims.audiences().into_iter().any(accepted) {
        return bad("The audience in ID Token does not match the expected audience.");
    }
    let (Some(iat), Some(exp)) = (claims.instant("iat"), claims.instant("exp")) else {
        return bad("ID Token has to have iat and exp as whole seconds.");
    };
    if now.duration_since(iat) > MAX_AGE {
        return bad("ID Token was issued more than 24 hours ago.");
    }
    if iat.duration_since(now) > SKEW {
        return bad("ID Token is issued in the future.");
    }
    if exp <= now || exp <= iat {
        return bad("ID Token is expired.");
    }
    if claims.instant("nbf").is_some_and(|nbf| nbf.duration_since(now) > SKEW) {
        return bad("ID Token is not valid yet.");
    }
    Ok(())
}

/// Applies the provider's attribute mapping. An attribute whose claim is absent is not set.
fn map(claims: &Claims, pool: &WorkloadPool) -> Result<Federated, OauthError> {
    let bad = |what: &str| OauthError::new("invalid_grant", what);
    let mut subject = None;
    let mut members = BTreeSet::new();
    let mut size = 0;
    for (to, from) in &pool.mapping {
        let value = from.strip_prefix("assertion.").and_then(|path| claims.at(path)).and_then(Value::as_str);
        let Some(value) = value else {
            continue;
        };
        size += value.len();
        if let Some(name) = to.strip_prefix("attribute.") {
            members.insert(Member(pool.attribute_name(name, value)));
        } else if to == "google.subject" {
            subject = Some(value.to_owned());
        }
    }
    let subject = subject.filter(|subject| !subject.is_empty());
    let subject = subject.ok_or_else(|| bad("The mapped attribute google.subject is missing."))?;
    if subject.len() > MAX_SUBJECT {
        return Err(bad("The size of mapped attribute google.subject exceeds the 127 bytes limit."));
    }
    if size > MAX_MAPPED {
        return Err(bad("The mapped attributes exceed the 8 KiB limit."));
    }
    members.insert(pool.subject(&subject));
    Ok(Federated { subject, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn exchange(change: impl FnOnce(&mut Value)) -> Result<Federated, OauthError> {
        let pool = WorkloadPool::new(1, "pool", "cortex");
        let mut claims = json!({
            "iss": "http://127.0.0.1:1", "aud": pool.audience(), "sub": "L1", "grant": "finance-publish",
            "iat": NOW, "exp": NOW + 300,
        });
        change(&mut claims);
        let claims = Claims::of(claims);
        check(&claims, "http://127.0.0.1:1", &pool, Timestamp::from_second(NOW).unwrap())?;
        map(&claims, &pool)
    }

    #[test]
    fn a_token_is_known_by_its_subject_and_its_grant() {
        let pool = WorkloadPool::new(1, "pool", "cortex");
        let federated = exchange(|_| {}).unwrap();
        assert_eq!(federated.members, BTreeSet::from([pool.grant("finance-publish"), pool.subject("L1")]));
        let https = format!("https:{}", pool.audience());
        assert!(exchange(|claims| claims["aud"] = https.into()).is_ok());
    }

    #[test]
    fn each_claim_is_checked() {
        for (name, value) in [
            ("iss", json!("http://127.0.0.1:2")),
            ("aud", json!("sts.amazonaws.com")),
            ("aud", Value::Null),
            ("iat", Value::Null),
            ("iat", json!(NOW - 86_401)),
            ("iat", json!(NOW + 61)),
            ("iat", json!(1.5)),
            ("exp", Value::Null),
            ("exp", json!(NOW)),
            ("nbf", json!(NOW + 61)),
            ("sub", Value::Null),
            ("sub", json!("")),
            ("sub", json!("x".repeat(128))),
        ] {
            let error = exchange(|claims| claims[name] = value.clone()).unwrap_err();
            assert_eq!(error.code, "invalid_grant", "{name} {value}");
        }
    }

    #[test]
    fn a_token_without_a_grant_is_bound_to_nothing_but_its_subject() {
        let members = exchange(|claims| claims["grant"] = Value::Null).unwrap().members;
        assert_eq!(members, BTreeSet::from([WorkloadPool::new(1, "pool", "cortex").subject("L1")]));
    }
}
