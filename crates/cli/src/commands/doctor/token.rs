//! An ID token, read claim by claim and then verified as a replica verifies it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_identity::{Identity, IssuerConfig, Trust};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Finding, fault};
use crate::error::Error;

/// What one token says, and whether Cortex believes it.
pub(super) async fn read(token: &str, issuer: &IssuerConfig) -> Result<Vec<Finding>, Error> {
    let mut parts = token.split('.').map(part);
    let (Some(Some(header)), Some(Some(claims))) = (parts.next(), parts.next()) else {
        let remedy = "Take the ID token; some providers give access tokens that only they can read.";
        return Ok(vec![fault("it is no JWT", remedy)]);
    };
    let mut findings = said(&header, &claims, issuer, SystemClock.now());
    let trust = Trust { issuers: std::slice::from_ref(issuer), airflows: &[], clusters: &[] };
    let identity = Identity::new(trust, None, Arc::new(SystemClock), reqwest::Client::builder)
        .map_err(|error| Error::Said(error.to_string()))?;
    findings.push(match identity.verify(token).await {
        Ok(verified) => Finding::Sound(format!("Cortex takes it, as {}", verified.principal().subject())),
        Err(rejection) => fault(
            format!("Cortex does not take it ({}): {}", rejection.reason.code(), rejection.detail),
            "Mend what is named above.",
        ),
    });
    Ok(findings)
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// The faults that the token's own words show.
fn said(header: &Value, claims: &Value, issuer: &IssuerConfig, now: Timestamp) -> Vec<Finding> {
    let checks = [algorithm(header, issuer), same_issuer(claims, issuer), audience(claims, issuer)];
    let more = [nonce(claims), lifetime(claims, issuer, now), groups(claims, issuer), email(claims, issuer)];
    checks.into_iter().chain(more).flatten().collect()
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn algorithm(header: &Value, issuer: &IssuerConfig) -> Option<Finding> {
    let said = text(header, "alg").unwrap_or("nothing");
    let allowed = issuer.algorithms.iter().any(|algorithm| format!("{algorithm:?}") == said);
    (!allowed).then(|| {
        let what = format!("it is signed with {said:.50}, and `algorithms` allows {:?}", issuer.algorithms);
        fault(what, "Let the provider sign with one of those, or add this one to `algorithms`.")
    })
}

fn same_issuer(claims: &Value, issuer: &IssuerConfig) -> Option<Finding> {
    let said = text(claims, "iss").unwrap_or("nobody");
    (said != issuer.iss).then(|| {
        let what = format!("issuer mismatch: it is of {said:.300}, and Cortex is told {}", issuer.iss);
        fault(what, "Write its own words as `iss`, to the last slash.")
    })
}

fn audience(claims: &Value, issuer: &IssuerConfig) -> Option<Finding> {
    let said = claims.get("aud").unwrap_or(&Value::Null);
    let one = match said {
        Value::Array(list) if list.len() == 1 => list.first().unwrap_or(said),
        other => other,
    };
    (one.as_str() != Some(issuer.audience.as_str())).then(|| {
        let what = format!("wrong audience: it is for {said:.300}, and Cortex expects {} alone", issuer.audience);
        fault(what, "Write its audience as `audience`, for an ID token that is the client id, or ask for another token.")
    })
}

fn nonce(claims: &Value) -> Option<Finding> {
    text(claims, "nonce").is_none().then(|| {
        let remedy =
            "Let the provider copy the nonce of the request. Tokens of a refresh or a device code have none.";
        fault("missing nonce: nothing ties it to a sign-in in a browser", remedy)
    })
}

fn lifetime(claims: &Value, issuer: &IssuerConfig, now: Timestamp) -> Option<Finding> {
    let time =
        |name: &str| claims.get(name).and_then(Value::as_i64).and_then(|at| Timestamp::from_second(at).ok());
    let (Some(iat), Some(exp)) = (time("iat"), time("exp")) else {
        return Some(fault(
            "it does not say since when or until when it is valid",
            "Let the provider send `iat` and `exp`.",
        ));
    };
    let leeway = SignedDuration::from_secs(i64::from(issuer.leeway));
    let ahead = iat.duration_since(now);
    let life = exp.duration_since(iat).as_secs();
    if ahead > leeway {
        let what = format!("clock skew: it was signed {} s in the future", ahead.as_secs());
        return Some(fault(what, "Set both clocks by NTP."));
    }
    if now.duration_since(exp) > leeway {
        let what = format!("it ended {} s ago", now.duration_since(exp).as_secs());
        return Some(fault(what, "Take a fresh token; if it is one, set both clocks by NTP."));
    }
    (life > i64::from(issuer.max_token_lifetime)).then(|| {
        let what = format!("it lives {life} s, and `max_token_lifetime` is {} s", issuer.max_token_lifetime);
        fault(what, "Let the provider give shorter tokens, or raise `max_token_lifetime`.")
    })
}

fn groups(claims: &Value, issuer: &IssuerConfig) -> Option<Finding> {
    let path = path(issuer.claims.groups.as_ref().and_then(|path| serde_json::to_value(path).ok()), "groups");
    let named = path.join(".");
    match at(claims, &path) {
        Some(Value::Array(groups)) if groups.is_empty() => {
            Some(Finding::Note(format!("`{named}` is empty: this person is in no group, and has no role")))
        }
        Some(Value::Array(_)) => None,
        Some(_) => Some(fault(
            format!("the claim `{named}` is no list of groups"),
            "Let the provider send an array of strings.",
        )),
        None => Some(fault(
            format!("missing groups claim: there is no `{named}`, so this person has no role"),
            "Let the provider add the groups to the ID token, or name the claim that has them in `claims.groups`.",
        )),
    }
}

fn email(claims: &Value, issuer: &IssuerConfig) -> Option<Finding> {
    let path = path(issuer.claims.email.as_ref().and_then(|path| serde_json::to_value(path).ok()), "email");
    at(claims, &path).is_none().then(|| {
        let note = "it has no e-mail address: nobody can be named by one, and two accounts of a person are not told; \
                    ask for the scope `email`";
        Finding::Note(note.to_owned())
    })
}

/// The names that lead to a claim.
fn path(configured: Option<Value>, usual: &str) -> Vec<String> {
    configured.and_then(|names| serde_json::from_value(names).ok()).unwrap_or_else(|| vec![usual.to_owned()])
}

fn at<'a>(claims: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(claims, |value, name| value.get(name)).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use cortex_identity::Kind;
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-11-23T02:00:00Z";

    fn faults(header: &Value, claims: &Value) -> Vec<String> {
        let issuer =
            IssuerConfig::new("staff".parse().unwrap(), "https://idp.acme.example", Kind::Person, "cortex");
        let found = said(header, claims, &issuer, NOW.parse().unwrap());
        found
            .into_iter()
            .map(|finding| match finding {
                Finding::Fault { what, .. } | Finding::Note(what) | Finding::Sound(what) => what,
            })
            .collect()
    }

    fn claims() -> Value {
        let now: Timestamp = NOW.parse().unwrap();
        json!({
            "iss": "https://idp.acme.example", "aud": "cortex", "sub": "u1", "nonce": "n",
            "iat": now.as_second(), "exp": now.as_second() + 600, "groups": ["a"], "email": "a@acme.example",
        })
    }

    #[test]
    fn each_fault_of_a_token_is_named() {
        assert_eq!(faults(&json!({"alg": "RS256"}), &claims()), Vec::<String>::new());
        let now: Timestamp = NOW.parse().unwrap();
        for (name, value, named) in [
            ("iss", json!("https://idp.acme.example/"), "issuer mismatch"),
            ("aud", json!("other"), "wrong audience"),
            ("aud", json!(["cortex", "other"]), "wrong audience"),
            ("nonce", Value::Null, "missing nonce"),
            ("iat", json!(now.as_second() + 300), "clock skew"),
            ("exp", json!(now.as_second() - 60), "ended 60 s ago"),
            ("exp", json!(now.as_second() + 90_000), "max_token_lifetime"),
            ("exp", Value::Null, "until when"),
            ("groups", Value::Null, "missing groups claim"),
            ("groups", json!("a,b"), "no list"),
            ("groups", json!([]), "no group"),
            ("email", Value::Null, "no e-mail"),
        ] {
            let mut claims = claims();
            claims[name] = value;
            let found = faults(&json!({"alg": "RS256"}), &claims);
            assert!(found.len() == 1 && found[0].contains(named), "{name}: {found:?}");
        }
        assert!(faults(&json!({"alg": "HS256"}), &claims())[0].contains("HS256"));
    }
}
