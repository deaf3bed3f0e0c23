//! Two providers of npm's oidc-provider: one in place of an Airflow, one in place of a company's directory.

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_identity::{Algorithm, IssuerConfig, Kind};
use cortex_tests::counterparts::{Fault, OpenIdProvider};
use cortex_tests::world::{AheadClock, Answer, TestWorld};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::apply;

/// Longer than the floor between two fetches of an issuer's keys.
const PAST_THE_FLOOR: SignedDuration = SignedDuration::from_secs(31);

struct Company {
    airflow: OpenIdProvider,
    directory: OpenIdProvider,
    world: TestWorld<AheadClock>,
}

impl Company {
    async fn start() -> Self {
        let (airflow, directory) = tokio::join!(OpenIdProvider::start(), OpenIdProvider::start());
        let issuers = vec![issuer("prod", &airflow, Kind::Run), issuer("staff", &directory, Kind::Person)];
        let world = TestWorld::start_live(|config| {
            config.issuers = issuers;
            config.airflows.clear();
        })
        .await;
        Self { airflow, directory, world }
    }

    async fn run_token(&self, run_id: &str, fields: &[(&str, &str)]) -> String {
        let run = [
            ("dag_id", "hello_cortex"),
            ("run_id", run_id),
            ("task_id", "publish_mart"),
            ("try_number", "1"),
            ("run_type", "scheduled"),
        ];
        let kept = run.iter().filter(|(name, _)| fields.iter().all(|(other, _)| name != other));
        let fields: Vec<_> = kept.chain(fields).copied().collect();
        self.airflow.run_token(&fields).await
    }

    /// What becomes of an exchange for the one provider that needs no cloud.
    async fn exchange(&self, token: &str) -> Answer {
        self.world.exchange_token(token, "urn:cortex:first-steps:api").await
    }

    async fn accepts(&self, token: &str) -> bool {
        let answer = self.exchange(token).await;
        assert!([StatusCode::OK, StatusCode::BAD_REQUEST].contains(&answer.status), "{answer:?}");
        answer.status == StatusCode::OK
    }

    async fn key_fetches(&self) -> u64 {
        self.airflow.counts().await.get("/jwks").copied().unwrap_or(0)
    }

    async fn person(
        &self,
        user: &str,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Answer {
        let token = self.directory.person_token(user).await;
        self.world.as_person(method, path, &token, body).await
    }
}

fn issuer(name: &str, provider: &OpenIdProvider, kind: Kind) -> IssuerConfig {
    let name = name.parse().unwrap();
    IssuerConfig {
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        ..IssuerConfig::new(name, provider.issuer(), kind, OpenIdProvider::AUDIENCE)
    }
}

#[tokio::test]
async fn a_runs_token_of_each_algorithm_becomes_credentials() {
    let company = Company::start().await;
    for alg in ["RS256", "ES256", "EdDSA"] {
        let answer = company.exchange(&company.run_token(alg, &[("alg", alg)]).await).await;
        assert_eq!(answer.status, StatusCode::OK, "{alg}: {answer:?}");
        assert_eq!(answer.body["token_type"], "Bearer");
    }
    let token = company.run_token("scheduled__1", &[]).await;
    let answer = company.world.ask(&token, json!({"policy": "first-steps"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    for provider in ["api", "aws", "bigquery", "snowflake"] {
        assert_eq!(answer.body["credentials"][provider]["status"], "issued", "{provider}: {answer:?}");
    }
    assert_eq!(company.key_fetches().await, 1);
}

/// Seconds since the epoch, by the machine's clock.
fn now_s() -> i64 {
    SystemClock.now().as_second()
}

#[tokio::test]
async fn a_token_that_is_signed_but_not_for_this_is_refused() {
    let company = Company::start().await;
    let old = now_s() - 3_600;
    // What each is recorded as; a token that is refused before its signature is checked is only counted.
    let cases = [
        ("aud", "claims", r#"{"aud": "https://else.where"}"#.to_owned()),
        ("aud", "claims", json!({"aud": [OpenIdProvider::AUDIENCE, "x"]}).to_string()),
        ("", "claims", r#"{"iss": "https://else.where"}"#.to_owned()),
        ("exp", "claims", json!({"iat": old - 60, "exp": old}).to_string()),
        ("lifetime", "ttl", "7200".to_owned()),
        ("typ", "typ", "at+jwt".to_owned()),
        ("", "header", r#"{"crit": ["b64"], "b64": true}"#.to_owned()),
        ("no_match", "dag_id", "payroll".to_owned()),
    ];
    for (_, field, value) in &cases {
        let token = company.run_token("r", &[(*field, value.as_str())]).await;
        assert!(!company.accepts(&token).await, "{field}: {value}");
    }
    let person = company.directory.person_token("bob").await;
    assert!(!company.accepts(&person).await, "a person's token is no run's");
    assert!(company.accepts(&company.run_token("r", &[]).await).await, "and the plain one is accepted");

    let denials = company.world.record(&["denial"]).await;
    let codes: Vec<_> = denials.iter().map(|denial| denial["code"].as_str().unwrap()).collect();
    let on_record = cases.iter().map(|(code, ..)| *code).filter(|code| !code.is_empty());
    assert_eq!(codes, on_record.chain(["no_match"]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_key_is_found_at_once_with_one_fetch_and_a_dropped_one_is_forgotten() {
    let company = Company::start().await;
    let first = company.run_token("first", &[]).await;
    assert!(company.accepts(&company.run_token("warm", &[]).await).await);
    assert_eq!(company.key_fetches().await, 1);

    company.world.clock.advance(PAST_THE_FLOOR);
    company.airflow.rotate(true).await;
    for run in ["kept-1", "kept-2"] {
        assert!(company.accepts(&company.run_token(run, &[]).await).await);
    }
    assert_eq!(company.key_fetches().await, 2, "one fetch for the new key");
    assert!(company.accepts(&first).await, "its key is still published");

    let second = company.run_token("second", &[]).await;
    company.world.clock.advance(PAST_THE_FLOOR);
    company.airflow.rotate(false).await;
    for run in ["dropped-1", "dropped-2"] {
        assert!(company.accepts(&company.run_token(run, &[]).await).await);
    }
    assert!(!company.accepts(&second).await, "its key is withdrawn");
    assert_eq!(company.key_fetches().await, 3, "one fetch for the new key, none for the withdrawn one");
}

#[tokio::test]
async fn an_outage_of_the_keys_is_bridged_for_an_hour_and_no_longer() {
    let company = Company::start().await;
    assert!(company.accepts(&company.run_token("before", &[]).await).await);
    company.airflow.fault("/jwks", Fault::Status(503), 1_000).await;

    company.world.clock.advance(SignedDuration::from_mins(20));
    assert!(company.accepts(&company.run_token("during", &[("ttl", "3600")]).await).await);

    company.world.clock.advance(SignedDuration::from_mins(41));
    let at = now_s() + 61 * 60;
    let claims = json!({"iat": at, "exp": at + 300}).to_string();
    let late = company.run_token("late", &[("claims", &claims)]).await;
    let answer = company.exchange(&late).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.body["error"], "temporarily_unavailable");
    assert!(answer.headers.contains_key("retry-after"));

    company.airflow.clear_faults().await;
    company.world.clock.advance(PAST_THE_FLOOR);
    assert!(company.accepts(&late).await, "the token that was put off is not spent");
}

const REPORTS: &str = "
name: reports
description: The ledger's reports
who:
  airflow: prod
  dags: [hello_cortex]
  tasks: [publish_mart]
what:
  api:
    audience: https://reports.acme.example
    scopes: [reports:read]
when:
  max_ttl: 10m
";

#[tokio::test]
async fn people_write_policies_and_read_the_record_by_their_groups() {
    let company = Company::start().await;
    let alice = company.directory.person_token("alice").await;
    for user in ["alice", "carol", "dave"] {
        let token = company.directory.person_token(user).await;
        let refused = apply(&company.world, &token, "reports", REPORTS).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{user}: {refused:?}");
    }
    let bob = company.directory.person_token("bob").await;
    let applied = apply(&company.world, &bob, "reports", REPORTS).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");

    let token = company.run_token("scheduled__1", &[]).await;
    let issued = company.world.exchange_token(&token, "urn:cortex:reports:api").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");

    let path = "/v1/issuances?policy=reports&outcome=issued";
    let record = company.person("dave", Method::GET, path, None).await;
    assert_eq!(record.body["issuances"].as_array().map(Vec::len), Some(1), "{record:?}");
    let refused = company.world.as_person(Method::GET, path, &alice, None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(company.world.as_person(Method::GET, path, &token, None).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_approver_of_the_policy_lets_a_manual_run_through_and_nobody_else_does() {
    let company = Company::start().await;
    let manual = [("run_type", "manual")];
    let waiting = company.exchange(&company.run_token("manual__1", &manual).await).await;
    assert_eq!(waiting.body["error"], "authorization_pending", "{waiting:?}");
    let grant = waiting.body["grant_id"].as_str().unwrap();
    let approve = format!("/v1/grants/{grant}/approve");
    let shown = company.person("carol", Method::GET, &format!("/v1/grants/{grant}"), None).await;
    let seen = shown.body["request_digest"].clone();

    for user in ["alice", "bob", "dave"] {
        let refused =
            company.person(user, Method::POST, &approve, Some(json!({"request_digest": seen}))).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{user}: {refused:?}");
    }
    let still = company.exchange(&company.run_token("manual__1", &manual).await).await;
    assert_eq!(still.body["error"], "authorization_pending", "{still:?}");

    let word = json!({"comment": "go", "request_digest": seen});
    let approved = company.person("carol", Method::POST, &approve, Some(word)).await;
    assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
    let issued = company.exchange(&company.run_token("manual__1", &manual).await).await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let other = company.exchange(&company.run_token("manual__2", &manual).await).await;
    assert_eq!(other.body["error"], "authorization_pending", "it was for one run: {other:?}");
}
