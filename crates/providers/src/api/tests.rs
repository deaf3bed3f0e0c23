//! What the provider for private APIs promises.

use cortex_core::credential::Revocation;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Api, BUILT_IN};
use crate::config::{ApiConfig, ProvidersConfig, SnowflakeAccount};
use crate::tests::fixtures::{Key, ask, issuance_id, issuer, mint, now, plan, policy, run, token, verified};
use crate::{Provider, Refusal};

const AUDIENCE: &str = "https://payments.internal.example";

fn target(audience: &str) -> Value {
    json!({"audience": audience, "scopes": ["payments:read", "payments:write"]})
}

fn api() -> Api {
    Api::new(&ProvidersConfig::default(), &issuer())
}

#[tokio::test]
async fn an_access_token_is_of_rfc_9068_and_says_who_runs() {
    let minted = mint(plan(&api(), &target(AUDIENCE)).unwrap()).await.unwrap();
    assert_eq!(minted.lease.revocation, Revocation::Introspection);
    assert_eq!(minted.lease.credential_id, issuance_id().to_string());
    assert_eq!(minted.details["audience"], AUDIENCE);
    assert!(!format!("{minted:?}").contains("eyJ"));
    let (header, claims) = verified(&token(minted));
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("RS256")));
    assert!(header["kid"].is_string());
    let iat = now().as_second();
    assert_eq!(
        claims,
        json!({
            "iss": "https://cortex.example",
            "sub": "run:prod:finance_publish:scheduled__2026-11-22T00%3A00%3A00+00%3A00:publish_mart:-:1",
            "aud": AUDIENCE,
            "client_id": "prod:finance_publish",
            "iat": iat,
            "exp": iat + 1800,
            "jti": issuance_id().to_string(),
            "scope": "payments:read payments:write",
            "dag_id": "finance_publish",
            "run_id": "scheduled__2026-11-22T00:00:00+00:00",
            "task_id": "publish_mart",
            "policy": "finance-data-publish",
        })
    );
}

#[tokio::test]
async fn a_token_without_scopes_has_no_scope() {
    let minted = mint(plan(&api(), &json!({"audience": AUDIENCE})).unwrap()).await.unwrap();
    assert_eq!(verified(&token(minted)).1.get("scope"), None);
}

#[test]
fn an_audience_is_one_absolute_uri_that_no_cloud_takes_for_its_own() {
    let fine = [
        AUDIENCE,
        "https://payments.internal.example/",
        "https://api.example:8443/v2/x?tenant=a",
        "urn:acme:payments",
        "https://abc123.execute-api.eu-west-1.amazonaws.com/prod",
        "https://notgoogleapis.com",
    ];
    for audience in fine {
        assert!((BUILT_IN.check)(&target(audience)).is_ok(), "{audience}");
    }
    let refused = [
        "",
        "payments",
        "sts.amazonaws.com",
        "//iam.googleapis.com/projects/1",
        "https://sts.amazonaws.com",
        "https://sts.eu-west-1.amazonaws.com/",
        "https://sts.cn-north-1.amazonaws.com.cn",
        "https://sts-fips.us-east-1.amazonaws.com",
        "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "https://bigquery.googleapis.com",
        "https://acme-prod.snowflakecomputing.com",
        "https://snowflakecomputing.com",
        "https://acme.snowflakecomputing.cn",
        "urn:snowflakecomputing.com",
        "https://STS.amazonaws.com",
        "https://sts.amazonaws.com.",
        "https://Payments.internal.example",
        "https://payments.internal.example:443/",
        "https://payments.internal.example/a/../b",
        "https://payments.internal.example/#a",
        "https://user@payments.internal.example",
        "https://payments.internal.example b",
        " https://payments.internal.example",
        "https://b\u{fc}cher.example",
    ];
    for audience in refused {
        let problems = (BUILT_IN.check)(&target(audience)).expect_err(audience);
        assert_eq!(problems[0].pointer, "/audience", "{audience}");
    }
}

#[test]
fn scopes_are_scope_tokens() {
    for scope in ["", "a b", "a\"b", "a\\b", "a\n"] {
        let problems = (BUILT_IN.check)(&json!({"audience": AUDIENCE, "scopes": ["ok", scope]})).unwrap_err();
        assert_eq!(problems[0].pointer, "/scopes/1", "{scope:?}");
    }
}

#[test]
fn reserved_audiences_are_refused_for_the_run() {
    let mut config = ProvidersConfig {
        api: ApiConfig { reserved_audiences: vec!["https://internal.example/admin".into()] },
        ..ProvidersConfig::default()
    };
    config.aws.audience = "https://aws.example".into();
    let own = SnowflakeAccount { oauth_audience: Some("https://snow.example/".into()), host: None };
    config.snowflake.accounts.insert("acme".into(), own);
    let api = Api::new(&config, &issuer());
    let refused = [
        "https://cortex.example",
        "https://cortex.example/v1/token",
        "https://aws.example",
        "https://snow.example",
        "https://internal.example/admin/users",
    ];
    for audience in refused {
        let refusal: Refusal = plan(&api, &target(audience)).err().expect(audience);
        assert!(refusal.message.contains("reserved"), "{refusal:?}");
    }
    for audience in ["https://cortex.example.org", "https://internal.example/administration"] {
        assert!(plan(&api, &target(audience)).is_ok(), "{audience}");
    }
}

#[test]
fn a_lifetime_is_the_callers_within_the_policys() {
    let (run, policy, target) = (run(), policy(), target(AUDIENCE));
    let ttl = |seconds| {
        let requested_ttl = Some(SignedDuration::from_secs(seconds));
        let ask = crate::Ask { requested_ttl, ..ask(&run, &policy, &target) };
        Provider::<Key>::plan(&api(), &ask).map(|plan| plan.ttl.as_secs()).ok()
    };
    assert_eq!([ttl(60), ttl(7200), ttl(0), ttl(-9)], [Some(60), Some(1800), None, None]);
}
