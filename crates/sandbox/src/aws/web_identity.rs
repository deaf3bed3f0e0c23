//! What the claims of a web identity token have to say before STS believes them, and what they ask for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::error::AwsError;
use crate::jwks::{Claims, TokenFault};

const TAGS: &str = "https://aws.amazon.com/tags";
const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";
const ROLES: &str = "https://aws.amazon.com/roles";

/// How far apart the clocks may be.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A token that STS believes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WebIdentity {
    pub(crate) subject: String,
    pub(crate) audience: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive: BTreeSet<String>,
    pub(crate) source_identity: Option<String>,
    /// Whether the claim `roles` names the role that is asked for; none where there is no such claim.
    pub(crate) role_authorised: Option<bool>,
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::bad("InvalidIdentityToken", message)
}

/// How STS says that a signature proves nothing.
pub(crate) fn signature_error(fault: &TokenFault) -> AwsError {
    match fault {
        TokenFault::Unreachable(_) => AwsError::bad(
            "IDPCommunicationError",
            "The identity provider could not be reached to verify the token.",
        ),
        TokenFault::Malformed => invalid("The web identity token that was passed could not be parsed."),
        other => invalid(format!("Couldn't retrieve verification key from your identity provider: {other}.")),
    }
}

impl WebIdentity {
    /// Reads the claims of a token whose signature fits.
    pub(crate) fn read(
        claims: &Claims,
        issuer: &str,
        audiences: &[String],
        role_arn: &str,
        now: Timestamp,
    ) -> Result<Self, AwsError> {
        if claims.text("iss") != Some(issuer) {
            return Err(invalid("No OpenIDConnect provider found in your account for the token's issuer."));
        }
        check_times(claims, now)?;
        let subject = claims.text("sub").filter(|sub| !sub.is_empty());
        let subject = subject.ok_or_else(|| invalid("The token has no sub."))?;
        let audience = audience(claims)?;
        if !audiences.iter().any(|known| known == audience) {
            return Err(invalid("Incorrect token audience"));
        }
        let (tags, transitive) = session_tags(claims)?;
        Ok(Self {
            subject: subject.to_owned(),
            audience: audience.to_owned(),
            tags,
            transitive,
            source_identity: source_identity(claims)?,
            role_authorised: role_authorised(claims, role_arn)?,
        })
    }
}

/// `iat` and `exp` are required; each may be off by five minutes, and none may have a fraction.
fn check_times(claims: &Claims, now: Timestamp) -> Result<(), AwsError> {
    let required =
        |name| seconds(claims, name)?.ok_or_else(|| invalid(format!("Missing a required claim: {name}")));
    let (iat, exp) = (required("iat")?, required("exp")?);
    if exp.saturating_add(SKEW).is_ok_and(|limit| limit <= now) {
        let message =
            format!("Token expired: current date/time {now} must be before the expiration date/time {exp}");
        return Err(AwsError::bad("ExpiredTokenException", message));
    }
    let latest = now.saturating_add(SKEW).unwrap_or(now);
    if iat > latest || seconds(claims, "nbf")?.is_some_and(|nbf| nbf > latest) {
        return Err(invalid("The token is not valid yet."));
    }
    Ok(())
}

/// A time claim: a whole number, also as text.
fn seconds(claims: &Claims, name: &str) -> Result<Option<Timestamp>, AwsError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let number = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_i64(),
    };
    let at = number.and_then(|number| Timestamp::from_second(number).ok());
    at.map(Some).ok_or_else(|| invalid(format!("The claim {name} is not a whole number of seconds.")))
}

/// `azp`, where present, is the audience; more than one `aud` needs it.
fn audience(claims: &Claims) -> Result<&str, AwsError> {
    match (claims.text("azp"), claims.audiences().as_slice()) {
        (_, []) => Err(invalid("Missing a required claim: aud")),
        (Some(azp), _) => Ok(azp),
        (None, [one]) => Ok(one),
        (None, _) => Err(invalid("A token with more than one aud needs azp.")),
    }
}

type Tags = (BTreeMap<String, String>, BTreeSet<String>);

/// Session tags in the nested form (lists of one text each) or in the flat form (plain texts).
fn session_tags(claims: &Claims) -> Result<Tags, AwsError> {
    let bad = |what: &str| invalid(format!("The session tags in the token are malformed: {what}."));
    let mut tags = BTreeMap::new();
    let mut transitive = claims.get(&format!("{TAGS}/transitive_tag_keys"));
    if let Some(nested) = claims.get(TAGS) {
        let principal_tags = nested.get("principal_tags").and_then(Value::as_object);
        for (key, values) in principal_tags.ok_or_else(|| bad("no principal_tags"))? {
            let [Value::String(value)] = values.as_array().map(Vec::as_slice).unwrap_or_default() else {
                return Err(bad("a value is not a list of one text"));
            };
            tags.insert(key.clone(), value.clone());
        }
        transitive = nested.get("transitive_tag_keys").or(transitive);
    }
    let prefix = format!("{TAGS}/principal_tags/");
    for (key, value) in claims.with_prefix(&prefix) {
        let value = value.as_str().ok_or_else(|| bad("a flat value is not text"))?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    let transitive = match transitive {
        None => BTreeSet::new(),
        Some(keys) => {
            let keys = keys.as_array().ok_or_else(|| bad("transitive_tag_keys is no list"))?;
            let keys = keys.iter().map(|key| key.as_str().map(ToOwned::to_owned));
            keys.collect::<Option<_>>().ok_or_else(|| bad("transitive_tag_keys holds no texts"))?
        }
    };
    Ok((tags, transitive))
}

fn source_identity(claims: &Claims) -> Result<Option<String>, AwsError> {
    match claims.get(SOURCE_IDENTITY) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid("The source identity in the token is not text.")),
    }
}

/// A token can be pinned to roles: a list of their ARNs, or one text with semicolons.
fn role_authorised(claims: &Claims, role_arn: &str) -> Result<Option<bool>, AwsError> {
    let named = match claims.get(ROLES) {
        None => return Ok(None),
        Some(Value::String(text)) => text.split(';').any(|arn| arn == role_arn),
        Some(Value::Array(arns)) => arns.iter().any(|arn| arn == role_arn),
        Some(_) => false,
    };
    if named { Ok(Some(true)) } else { Err(invalid("The token is not authorized for the requested role.")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const ROLE: &str = "arn:aws:iam::123456789012:role/finance-publish";

    fn read(change: impl FnOnce(&mut Value)) -> Result<WebIdentity, &'static str> {
        let mut claims = json!({
            "iss": "http://127.0.0.1:1", "aud": "sts.amazonaws.com", "sub": "cortex:finance",
            "iat": NOW, "exp": NOW + 300,
            (TAGS): {"principal_tags": {"lease": ["L1"]}, "transitive_tag_keys": ["lease"]},
            (SOURCE_IDENTITY): "L1", (ROLES): [ROLE],
        });
        change(&mut claims);
        let audiences = ["sts.amazonaws.com".to_owned()];
        let now = Timestamp::from_second(NOW).unwrap();
        WebIdentity::read(&Claims::of(claims), "http://127.0.0.1:1", &audiences, ROLE, now)
            .map_err(|e| e.code)
    }

    #[test]
    fn a_good_token_says_who_and_with_which_tags() {
        let read = read(|_| {}).unwrap();
        assert_eq!(read.tags, BTreeMap::from([("lease".to_owned(), "L1".to_owned())]));
        assert_eq!(read.transitive, BTreeSet::from(["lease".to_owned()]));
        assert_eq!((read.source_identity.as_deref(), read.role_authorised), (Some("L1"), Some(true)));
    }

    #[test]
    fn each_claim_is_checked() {
        let bad = Err("InvalidIdentityToken");
        for (name, value, expected) in [
            ("iss", json!("http://127.0.0.1:1/"), bad),
            ("iss", json!(["http://127.0.0.1:1"]), bad),
            ("aud", json!("cortex"), bad),
            ("aud", Value::Null, bad),
            ("aud", json!(["sts.amazonaws.com", "cortex"]), bad),
            ("azp", json!("cortex"), bad),
            ("sub", Value::Null, bad),
            ("sub", json!(""), bad),
            ("iat", Value::Null, bad),
            ("iat", json!(NOW + 301), bad),
            ("nbf", json!(NOW + 301), bad),
            ("exp", Value::Null, bad),
            ("exp", json!(1.5), bad),
            ("exp", json!(NOW - 300), Err("ExpiredTokenException")),
            (TAGS, json!({"principal_tags": {"lease": "L1"}}), bad),
            (TAGS, json!({"principal_tags": {"lease": ["L1", "L2"]}}), bad),
            (TAGS, json!({}), bad),
            ("https://aws.amazon.com/tags/principal_tags/x", json!(["L1"]), bad),
            (SOURCE_IDENTITY, json!(["L1"]), bad),
            (ROLES, json!(["arn:aws:iam::123456789012:role/other"]), bad),
            (ROLES, json!([]), bad),
            (ROLES, json!(7), bad),
        ] {
            assert_eq!(read(|claims| claims[name] = value.clone()).map(|_| ()), expected, "{name} {value}");
        }
    }

    #[test]
    fn the_lenient_corners_of_sts_are_kept() {
        for (name, value) in [
            ("iat", json!(NOW + 299)),
            ("exp", json!(NOW - 299)),
            ("exp", json!((NOW + 60).to_string())),
            ("aud", json!(["sts.amazonaws.com"])),
            ("azp", json!("sts.amazonaws.com")),
            (ROLES, json!(format!("arn:aws:iam::123456789012:role/other;{ROLE}"))),
            ("https://aws.amazon.com/tags/principal_tags/team", json!("finance")),
        ] {
            assert!(read(|claims| claims[name] = value.clone()).is_ok(), "{name} {value}");
        }
    }
}
