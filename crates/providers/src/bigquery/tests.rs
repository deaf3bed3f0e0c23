//! What the `BigQuery` provider promises.

use cortex_core::credential::Revocation;
use cortex_core::{Digest, Minted};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{BUILT_IN, BigQuery};
use crate::config::{BigQueryConfig, CallLimits};
use crate::tests::fixtures::{Key, ask, issuance_id, issuer, mint, now, plan, policy, run, token, verified};
use crate::tests::stub::{Reply, Stub};
use crate::{MintError, Provider};

const PROVIDER: &str = "projects/42/locations/global/workloadIdentityPools/cortex/providers/cortex-prod";
const ACCOUNT: &str = "publish@acme-finance.iam.gserviceaccount.com";

fn target() -> Value {
    json!({"project": "acme-finance", "grant": "finance-publish", "provider": PROVIDER})
}

fn impersonating() -> Value {
    let mut target = target();
    target["service_account"] = json!(ACCOUNT);
    target
}

fn bigquery(endpoint: &str) -> BigQuery {
    let calls = CallLimits { attempt_timeout: SignedDuration::from_millis(500), ..CallLimits::default() };
    let config = BigQueryConfig {
        token_endpoint: Some(format!("{endpoint}/v1/token")),
        iam_credentials_endpoint: Some(format!("{endpoint}/")),
        calls,
        ..BigQueryConfig::default()
    };
    BigQuery::new(&config, &issuer())
}

fn exchanged(changes: Value) -> Reply {
    let mut body = json!({
        "access_token": "canary.federated",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 300,
    });
    merge(&mut body, changes);
    Reply::ok(body.to_string())
}

fn generated(changes: Value) -> Reply {
    let mut body = json!({"accessToken": "canary.service-account", "expireTime": "2026-11-22T00:30:00Z"});
    merge(&mut body, changes);
    Reply::ok(body.to_string())
}

/// Puts the members of `changes` into `body`; null takes one out.
fn merge(body: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("not an object") };
    for (key, value) in changes {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(&key)),
            value => body[key] = value,
        }
    }
}

async fn run_against(replies: Vec<Reply>, target: &Value) -> (Result<Minted<Key>, MintError>, usize) {
    let stub = Stub::start(replies).await;
    let result = mint(plan(&bigquery(&stub.url), target).unwrap()).await;
    (result, stub.seen().len())
}

#[tokio::test]
async fn a_federated_token_has_the_lease_as_its_subject_and_ends_with_cortexs() {
    let stub = Stub::start(vec![exchanged(json!({"expires_in": 1800}))]).await;
    let minted = mint(plan(&bigquery(&stub.url), &target()).unwrap()).await.unwrap();
    let seen = stub.seen();
    assert_eq!((seen.len(), seen[0].path.as_str(), &seen[0].authorization), (1, "/v1/token", &None));
    let form = seen[0].form();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(form["audience"], format!("//iam.googleapis.com/{PROVIDER}"));
    assert_eq!(form["scope"], "https://www.googleapis.com/auth/bigquery");
    assert_eq!(form["requested_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(form["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    let (header, claims) = verified(&form["subject_token"]);
    assert_eq!(header["typ"], "JWT");
    let id = issuance_id().to_string();
    let iat = claims["iat"].as_i64().unwrap();
    assert_eq!(
        claims,
        json!({
            "iss": "https://cortex.example",
            "sub": id,
            "aud": format!("https://iam.googleapis.com/{PROVIDER}"),
            "iat": iat,
            "exp": iat + 1800,
            "jti": id,
            "grant": "finance-publish",
            "policy": "finance-data-publish",
            "dag_id": "finance_publish",
            "run": "run:prod:finance_publish:scheduled__2026-11-22T00%3A00%3A00+00%3A00:publish_mart:-:1",
        })
    );
    let principal = format!(
        "principal://iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/cortex/subject/{id}"
    );
    assert_eq!(
        minted.lease.revocation,
        Revocation::GoogleDeny { principal, project: "acme-finance".to_owned() }
    );
    assert_eq!(minted.lease.credential_id, Digest::of(b"canary.federated").to_string());
    assert!((minted.lease.expires_at.duration_since(now()) - SignedDuration::from_mins(30)).as_secs() < 10);
    assert_eq!(minted.details["project"], "acme-finance");
    assert!(!format!("{minted:?}").contains("canary"));
    assert_eq!(token(minted), "canary.federated");
}

#[tokio::test]
async fn a_service_account_is_acted_as_for_as_long_as_was_asked() {
    let stub = Stub::start(vec![exchanged(json!({})), generated(json!({}))]).await;
    let minted = mint(plan(&bigquery(&stub.url), &impersonating()).unwrap()).await.unwrap();
    let seen = stub.seen();
    assert_eq!(seen[0].form()["scope"], "https://www.googleapis.com/auth/cloud-platform");
    let (_, claims) = verified(&seen[0].form()["subject_token"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    assert_eq!(seen[1].path, format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"));
    assert_eq!(seen[1].authorization.as_deref(), Some("Bearer canary.federated"));
    let body: Value = serde_json::from_str(&seen[1].body).unwrap();
    assert_eq!(body, json!({"scope": ["https://www.googleapis.com/auth/bigquery"], "lifetime": "1800s"}));
    assert_eq!(minted.lease.revocation, Revocation::ExpiryOnly, "a deny on the subject does not reach it");
    assert_eq!(minted.lease.expires_at, "2026-11-22T00:30:00Z".parse().unwrap());
    assert_eq!(minted.details["service_account"], ACCOUNT);
    assert_eq!(token(minted), "canary.service-account");
}

#[tokio::test]
async fn what_is_not_what_was_asked_is_withheld() {
    let direct = [
        json!({"expires_in": 1900}),
        json!({"expires_in": 0}),
        json!({"expires_in": -1}),
        json!({"expires_in": null}),
        json!({"access_token": null}),
        json!({"access_token": ""}),
        json!({"access_token": "a b"}),
        json!({"access_token": "a\r\nb"}),
        json!({"access_token": "x".repeat(12_289)}),
        json!({"token_type": "N_A"}),
        json!({"issued_token_type": "urn:ietf:params:oauth:token-type:jwt"}),
    ];
    for change in direct {
        let (result, calls) = run_against(vec![exchanged(change.clone())], &target()).await;
        assert!(matches!(result, Err(MintError::Mismatch { .. })), "{change}: {result:?}");
        assert_eq!(calls, 1);
    }
    let acting = [
        json!({"expireTime": "2026-11-22T00:40:00Z"}),
        json!({"expireTime": "2026-11-21T00:00:00Z"}),
        json!({"expireTime": null}),
        json!({"accessToken": null}),
    ];
    for change in acting {
        let replies = vec![exchanged(json!({})), generated(change.clone())];
        let (result, calls) = run_against(replies, &impersonating()).await;
        assert!(matches!(result, Err(MintError::Mismatch { .. })), "{change}: {result:?}");
        assert_eq!(calls, 2);
    }
}

fn oauth(status: u16, code: &str) -> Reply {
    Reply::status(status, json!({"error": code, "error_description": "canary eyJhbGciOi"}).to_string())
}

fn google(status: u16, code: &str) -> Reply {
    let body = json!({"error": {"code": status, "status": code, "message": "canary eyJhbGciOi"}});
    Reply::status(status, body.to_string())
}

#[tokio::test]
async fn every_refusal_is_final_and_says_what_to_do() {
    let exchange = [
        (oauth(400, "invalid_grant"), "invalid_grant"),
        (oauth(400, "invalid_target"), "invalid_target"),
        (oauth(400, "invalid_request"), "invalid_request"),
        (oauth(401, "unauthorized_client"), "unauthorized_client"),
        (oauth(400, "invalid_scope"), "invalid_scope"),
        (google(403, "PERMISSION_DENIED"), "PERMISSION_DENIED"),
        (Reply::status(404, "<html>"), "HTTP 404"),
        (Reply::Whole(307, vec![("location", "http://127.0.0.1:1/")], String::new()), "HTTP 307"),
        (oauth(400, "no such code \n"), "HTTP 400"),
    ];
    for (reply, expected) in exchange {
        let (result, calls) = run_against(vec![reply, exchanged(json!({}))], &target()).await;
        assert_refused(result, expected);
        assert_eq!(calls, 1, "{expected}");
    }
    let acting = [
        (google(403, "PERMISSION_DENIED"), "PERMISSION_DENIED"),
        (google(400, "INVALID_ARGUMENT"), "INVALID_ARGUMENT"),
        (google(404, "NOT_FOUND"), "NOT_FOUND"),
    ];
    for (reply, expected) in acting {
        let replies = vec![exchanged(json!({})), reply, generated(json!({}))];
        let (result, calls) = run_against(replies, &impersonating()).await;
        assert_refused(result, expected);
        assert_eq!(calls, 2, "{expected}");
    }
}

fn assert_refused(result: Result<Minted<Key>, MintError>, expected: &str) {
    let Err(MintError::Refused { code, message, remedy }) = result else { panic!("{expected}: {result:?}") };
    assert_eq!(code, expected);
    assert!(!message.contains("canary") && !remedy.contains("canary"), "Google's text is not passed on");
    assert!(!remedy.is_empty());
}

#[tokio::test]
async fn what_may_pass_is_tried_three_times_at_most() {
    for reply in [oauth(429, "slow_down"), google(503, "UNAVAILABLE"), google(429, "RESOURCE_EXHAUSTED")] {
        let (result, calls) = run_against(vec![reply.clone(); 9], &target()).await;
        assert!(matches!(result, Err(MintError::Unavailable { .. })), "{reply:?}: {result:?}");
        assert_eq!(calls, 3);
        let (result, calls) = run_against(vec![reply.clone(), exchanged(json!({}))], &target()).await;
        assert!(result.is_ok(), "{reply:?}: {result:?}");
        assert_eq!(calls, 2);
    }
}

#[tokio::test]
async fn a_lost_answer_is_indeterminate_whatever_follows() {
    for lost in [Reply::Silence, Reply::Cut, google(500, "INTERNAL"), Reply::status(502, "bad gateway")] {
        let (result, calls) = run_against(vec![lost.clone(), oauth(400, "invalid_grant")], &target()).await;
        assert!(matches!(result, Err(MintError::Indeterminate { .. })), "{lost:?}: {result:?}");
        assert_eq!(calls, 2, "{lost:?}");
        let replies = vec![exchanged(json!({})), lost.clone(), google(403, "PERMISSION_DENIED")];
        let (result, calls) = run_against(replies, &impersonating()).await;
        assert!(matches!(result, Err(MintError::Indeterminate { .. })), "{lost:?}: {result:?}");
        assert_eq!(calls, 3, "{lost:?}");
    }
    for garbage in ["", "[]", "<html/>", "{\"access_token\": 7}"] {
        let (result, calls) = run_against(vec![Reply::ok(garbage), exchanged(json!({}))], &target()).await;
        assert!(matches!(result, Err(MintError::Indeterminate { .. })), "{garbage:?}: {result:?}");
        assert_eq!(calls, 1);
    }
    let (result, _) = run_against(vec![Reply::ok("x".repeat(65 * 1024))], &target()).await;
    assert!(matches!(result, Err(MintError::Indeterminate { .. })), "too large: {result:?}");
}

#[tokio::test]
async fn a_refused_connection_minted_nothing() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let result = mint(plan(&bigquery(&closed), &target()).unwrap()).await;
    assert!(matches!(result, Err(MintError::Unavailable { .. })), "{result:?}");
}

#[test]
fn google_decides_the_life_of_a_federated_token_whose_answer_was_lost() {
    let plan = plan(&bigquery("http://127.0.0.1:1"), &target()).unwrap();
    assert!(plan.worst_case_expiry >= now() + SignedDuration::from_hours(1));
    assert_eq!(plan.ttl, SignedDuration::from_mins(30));
}

#[test]
fn a_lifetime_stays_within_googles_limits() {
    let (run, policy) = (run(), policy());
    for target in [target(), impersonating()] {
        let ask = crate::Ask { max_ttl: SignedDuration::from_hours(9), ..ask(&run, &policy, &target) };
        let plan = Provider::<Key>::plan(&bigquery("http://127.0.0.1:1"), &ask).unwrap();
        assert_eq!(plan.ttl, SignedDuration::from_hours(1));
    }
}

#[test]
fn without_a_pool_nothing_is_planned() {
    let mut target = target();
    target.as_object_mut().unwrap().remove("provider");
    let refusal = plan(&bigquery("http://127.0.0.1:1"), &target).err().unwrap();
    assert!(refusal.remedy.contains("providers.bigquery.provider"), "{refusal:?}");
}

#[test]
fn targets_that_could_mean_something_else_are_refused() {
    let cases = [
        ("project", json!("Acme")),
        ("project", json!("acme/finance")),
        ("project", json!("a")),
        ("grant", json!("")),
        ("grant", json!("a/b")),
        ("grant", json!("*")),
        ("grant", json!("{dag_id}")),
        ("provider", json!("projects/acme/locations/global/workloadIdentityPools/cortex/providers/cortex")),
        ("provider", json!("projects/1/locations/global/workloadIdentityPools/cortex/providers/../x")),
        ("provider", json!(format!("//iam.googleapis.com/{PROVIDER}"))),
        ("service_account", json!("someone@example.com")),
        ("service_account", json!("a/b@acme.iam.gserviceaccount.com")),
        ("service_account", json!("a@evil-gserviceaccount.com")),
        ("scopes", json!([])),
    ];
    for (key, value) in cases {
        let mut target = target();
        target[key] = value.clone();
        let problems = (BUILT_IN.check)(&target).expect_err(&value.to_string());
        assert_eq!(problems[0].pointer, format!("/{key}"), "{value}");
    }
    let mut target = impersonating();
    target["scopes"] = json!(["bigquery", "https://www.googleapis.com/auth/bigquery"]);
    assert_eq!((BUILT_IN.check)(&target).unwrap_err()[0].pointer, "/scopes/1");
}

#[test]
fn the_resource_names_who_is_acted_as() {
    assert_eq!((BUILT_IN.check)(&target()).unwrap(), "bigquery:acme-finance/finance-publish");
    let resource = format!("bigquery:acme-finance/finance-publish/{ACCOUNT}");
    assert_eq!((BUILT_IN.check)(&impersonating()).unwrap(), resource);
}
