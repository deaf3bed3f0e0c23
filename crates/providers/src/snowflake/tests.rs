//! What the Snowflake provider promises.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::credential::Revocation;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{BUILT_IN, Snowflake};
use crate::config::{SnowflakeAccount, SnowflakeConfig};
use crate::tests::fixtures::{ask, issuance_id, issuer, mint, now, plan, policy, run, token, verified};
use crate::{Plan, Provider, tests::fixtures::Key};

fn target(method: &str) -> Value {
    json!({"account": "acme-prod", "user": "FINANCE_SVC", "role": "FINANCE_PUBLISH", "method": method})
}

fn snowflake() -> Snowflake {
    Snowflake::new(&SnowflakeConfig::default(), &issuer())
}

async fn claims(snowflake: &Snowflake, target: &Value) -> Value {
    let minted = mint(plan(snowflake, target).unwrap()).await.unwrap();
    let (header, claims) = verified(&token(minted));
    assert_eq!(header["typ"], "JWT");
    claims
}

#[tokio::test]
async fn an_oauth_token_names_one_user_one_role_and_one_account() {
    let (iat, id) = (now().as_second(), issuance_id().to_string());
    assert_eq!(
        claims(&snowflake(), &target("oauth")).await,
        json!({
            "iss": "https://cortex.example",
            "sub": "FINANCE_SVC",
            "aud": "https://acme-prod.snowflakecomputing.com",
            "iat": iat,
            "exp": iat + 1800,
            "jti": id,
            "scp": ["session:role:FINANCE_PUBLISH"],
        })
    );
}

#[tokio::test]
async fn a_workload_identity_has_the_subject_that_the_user_was_made_with() {
    let claims = claims(&snowflake(), &target("workload-identity")).await;
    assert_eq!(claims["sub"], "cortex:FINANCE_SVC");
    assert_eq!(claims["aud"], "snowflakecomputing.com");
    assert_eq!(claims.get("scp"), None);
}

#[tokio::test]
async fn a_key_pair_token_names_the_fingerprint_of_cortexs_key() {
    let mut target = target("key-pair");
    target["account"] = json!("xy12345.eu-central-1");
    target["user"] = json!("finance_svc");
    let claims = claims(&snowflake(), &target).await;
    assert_eq!(claims["sub"], "XY12345.FINANCE_SVC");
    let fingerprint = claims["iss"].as_str().unwrap().strip_prefix("XY12345.FINANCE_SVC.SHA256:").unwrap();
    assert_eq!(STANDARD.decode(fingerprint).unwrap().len(), 32);
    assert_eq!(claims.get("aud"), None);
}

#[test]
fn a_fingerprint_is_that_of_the_registered_public_key() {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair as _;
    let key = cortex_core::jwt::SigningKey::generate(cortex_core::jwt::SigningAlgorithm::RS256).unwrap();
    let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let expected = STANDARD.encode(cortex_core::Digest::of(der.as_ref()).as_bytes());
    assert_eq!(super::claims::fingerprint(&key).unwrap(), expected);
}

#[tokio::test]
async fn the_lease_is_honest_and_the_details_are_what_a_driver_needs() {
    let drivers =
        [("oauth", "oauth"), ("workload-identity", "WORKLOAD_IDENTITY"), ("key-pair", "SNOWFLAKE_JWT")];
    for (method, authenticator) in drivers {
        let minted = mint(plan(&snowflake(), &target(method)).unwrap()).await.unwrap();
        assert_eq!(minted.lease.revocation, Revocation::ExpiryOnly);
        assert_eq!(minted.lease.credential_id, issuance_id().to_string());
        assert_eq!(minted.lease.expires_at, now() + SignedDuration::from_mins(30));
        let details = json!({
            "account": "acme-prod",
            "user": "FINANCE_SVC",
            "role": "FINANCE_PUBLISH",
            "authenticator": authenticator,
            "host": "acme-prod.snowflakecomputing.com",
        });
        assert_eq!(json!(minted.details), details);
    }
}

#[tokio::test]
async fn an_account_may_have_its_own_host_and_audience() {
    let own = SnowflakeAccount {
        host: Some("acme.privatelink.snowflakecomputing.com".into()),
        oauth_audience: Some("https://acme.example/oauth".into()),
    };
    let config = SnowflakeConfig {
        accounts: BTreeMap::from([("acme-prod".to_owned(), own)]),
        workload_identity_subject: "airflow/{user}".into(),
        ..SnowflakeConfig::default()
    };
    let snowflake = Snowflake::new(&config, &issuer());
    assert_eq!(claims(&snowflake, &target("oauth")).await["aud"], "https://acme.example/oauth");
    assert_eq!(claims(&snowflake, &target("workload-identity")).await["sub"], "airflow/FINANCE_SVC");
    let plan = plan(&snowflake, &target("oauth")).unwrap();
    assert_eq!(plan.scope["host"], "acme.privatelink.snowflakecomputing.com");
    assert_eq!(snowflake.host("Acme_Prod"), "acme-prod.snowflakecomputing.com");
}

#[test]
fn a_key_pair_token_lives_for_an_hour_at_most() {
    let (run, policy, target) = (run(), policy(), target("key-pair"));
    let ask = crate::Ask { max_ttl: SignedDuration::from_hours(3), ..ask(&run, &policy, &target) };
    let plan: Plan<Key> = snowflake().plan(&ask).unwrap();
    assert_eq!(plan.ttl, SignedDuration::from_hours(1));
    assert_eq!(plan.worst_case_expiry, now() + SignedDuration::from_hours(1));
}

#[test]
fn names_that_could_mean_something_else_are_refused() {
    let cases = [
        ("role", "ACCOUNTADMIN"),
        ("role", "ORGADMIN"),
        ("role", "GLOBALORGADMIN"),
        ("role", "SECURITYADMIN"),
        ("role", "finance_publish"),
        ("role", "accountadmin"),
        ("role", "\"Finance\""),
        ("role", "A B"),
        ("role", "A,session:role:B"),
        ("role", "1A"),
        ("role", "{TEAM}"),
        ("role", ""),
        ("user", ""),
        ("user", "a b"),
        ("user", "a\"b"),
        ("user", "a.b:c"),
        ("account", ""),
        ("account", "acme/prod"),
        ("account", "acme.evil.example/"),
        ("account", "acme@evil"),
        ("account", "-acme"),
        ("account", "acme..prod"),
        ("account", "acme:443"),
    ];
    for (key, value) in cases {
        let mut target = target("oauth");
        target[key] = json!(value);
        let problems = (BUILT_IN.check)(&target).expect_err(value);
        assert_eq!(problems[0].pointer, format!("/{key}"), "{value}");
    }
    assert_eq!((BUILT_IN.check)(&target("password")).unwrap_err()[0].pointer, "/method");
    assert_eq!(
        (BUILT_IN.check)(&target("oauth")).unwrap(),
        "snowflake:acme-prod/FINANCE_SVC/FINANCE_PUBLISH"
    );
}
