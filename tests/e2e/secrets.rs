//! No secret is in a log at its most talkative, and none is in the database.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_cli::world::{AUDIENCE, CLAIMANT};
use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_sandbox::{Cloud, Fault, FaultMode, RunClaims, TaskInstance};
use cortex_tests::promises::dump;
use cortex_tests::served::Served;
use cortex_tests::world::{Answer, answer, first_run, pod};
use reqwest::StatusCode;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");

/// Everything in an answer that must not be anywhere else.
fn secrets(answer: &Answer) -> Vec<String> {
    let names = [
        "token",
        "access_token",
        "secret_access_key",
        "session_token",
        "lease_handle",
        "SecretAccessKey",
        "Token",
    ];
    let mut found = Vec::new();
    let mut left = vec![&answer.body];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(members) => {
                let secret = members.iter().filter(|(name, _)| names.contains(&name.as_str()));
                found.extend(secret.filter_map(|(_, value)| value.as_str()).map(str::to_owned));
                left.extend(members.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    found
}

/// The forms in which a secret could show: whole, a token's signature, hexadecimal as Postgres prints bytes.
fn forms(secret: &str) -> Vec<String> {
    let signature = secret.rsplit('.').next().filter(|part| part.len() > 20).map(str::to_owned);
    [Some(secret.to_owned()), signature, Some(hex::encode(secret))].into_iter().flatten().collect()
}

struct Canaries<'a> {
    served: &'a Served,
    secrets: BTreeSet<String>,
}

impl Canaries<'_> {
    fn run(&mut self, run: &RunClaims) -> String {
        self.keep(self.served.sandbox.run_token(run).unwrap())
    }

    fn person(&mut self, sub: &str, groups: &[&str]) -> String {
        self.keep(self.served.sandbox.person_token(sub, groups).unwrap())
    }

    fn keep(&mut self, secret: String) -> String {
        self.secrets.insert(secret.clone());
        secret
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let answer = answer(request).await;
        self.secrets.extend(secrets(&answer));
        answer
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.served.url)
    }
}

/// Every flow: issued, handed out again, replayed, refused, waiting, approved, failed in every way.
async fn everything(canaries: &mut Canaries<'_>) {
    let http = canaries.served.http().clone();
    let token = canaries.run(&first_run("r1"));
    let issued =
        canaries.send(canaries.served.request(&token, &["api", "aws", "bigquery", "snowflake"])).await;
    assert_eq!(issued.status, StatusCode::OK, "{:?}", issued.status);
    let handle = issued.body["credentials"]["aws"]["lease_handle"].as_str().unwrap().to_owned();
    let again =
        canaries.send(http.get(canaries.url("/v1/aws/first-steps")).header("authorization", handle)).await;
    assert_eq!(again.status, StatusCode::OK);
    canaries.send(canaries.served.request(&token, &["api"])).await;
    let stranger = canaries.run(&RunClaims::scheduled("stranger", "r", "t"));
    canaries.send(canaries.served.request(&stranger, &["api"])).await;
    let forged = canaries.run(&first_run("r2"));
    let forged = canaries.keep(format!("{forged}A"));
    canaries.send(canaries.served.request(&forged, &["api"])).await;
    let fresh = canaries.run(&first_run("r3"));
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", fresh.as_str()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", "urn:cortex:first-steps:aws"),
    ];
    canaries.send(http.post(canaries.url("/v1/token")).form(&form)).await;
    approved(canaries, &http).await;
    witnessed(canaries, &http).await;
    for (index, mode) in [
        FaultMode::Down,
        FaultMode::Reset,
        FaultMode::FailAfterMint,
        FaultMode::LongerExpiry,
        FaultMode::OtherArn,
        FaultMode::Garbage,
    ]
    .into_iter()
    .enumerate()
    {
        canaries.served.sandbox.fault(Cloud::Aws, Fault { operation: None, mode, remaining: None });
        canaries.served.sandbox.fault(Cloud::Google, Fault { operation: None, mode, remaining: None });
        let token = canaries.run(&first_run(&format!("f{index}")));
        canaries.send(canaries.served.request(&token, &["aws", "bigquery"])).await;
        canaries.served.sandbox.clear_faults();
    }
}

async fn approved(canaries: &mut Canaries<'_>, http: &reqwest::Client) {
    let run = RunClaims { run_type: Some("manual".into()), ..first_run("m1") };
    let token = canaries.run(&run);
    let pending = canaries.send(canaries.served.request(&token, &["api"])).await;
    let grant = pending.body["grant_id"].as_str().expect("a grant").to_owned();
    let bob = canaries.person("bob", &["finance-admins"]);
    let shown = http.get(canaries.url(&format!("/v1/grants/{grant}"))).bearer_auth(&bob);
    let seen = canaries.send(shown).await.body["request_digest"].clone();
    let approve = http.post(canaries.url(&format!("/v1/grants/{grant}/approve"))).bearer_auth(bob);
    let word = json!({"comment": "yes", "request_digest": seen});
    assert_eq!(canaries.send(approve.json(&word)).await.status, StatusCode::OK);
    let issued = canaries.send(canaries.served.request(&token, &["api"])).await;
    assert_eq!(issued.status, StatusCode::OK, "{:?}", issued.status);
    let auditor = canaries.person("dave", &["auditors"]);
    for path in ["/v1/issuances", "/v1/grants", "/v1/policies"] {
        let listed = canaries.send(http.get(canaries.url(path)).bearer_auth(&auditor)).await;
        assert_eq!(listed.status, StatusCode::OK);
    }
}

/// A claim and a pod, for which Cortex shows its own credentials to an Airflow and a cluster.
async fn witnessed(canaries: &mut Canaries<'_>, http: &reqwest::Client) {
    let sandbox = &canaries.served.sandbox;
    canaries.keep(sandbox.kubernetes_token().to_owned());
    let credentials = sandbox.airflow_credentials();
    canaries.keep(STANDARD.encode(&credentials));
    canaries.keep(credentials.split_once(':').unwrap().1.to_owned());
    let run = first_run("claimed");
    let start_date = Some(SystemClock.now());
    let running = Some("running".to_owned());
    sandbox.put_task(TaskInstance { run: run.clone(), state: running, start_date });
    let service = canaries.keep(sandbox.service_token(CLAIMANT).unwrap());
    let claim = json!({
        "dag_id": run.dag_id, "run_id": run.run_id, "task_id": run.task_id, "try_number": run.try_number,
    });
    let pod = pod("u1");
    sandbox.start_pod(pod.clone());
    let token = canaries.keep(sandbox.pod_token(&pod, AUDIENCE, 600).unwrap());
    for (bearer, run) in [(service, claim), (token, Value::Null)] {
        let ask = http.post(canaries.url("/v1/credentials")).bearer_auth(bearer);
        let denied = canaries.send(ask.json(&json!({"policy": "first-steps", "run": run}))).await;
        assert_eq!(denied.body["error"], "invalid_target", "confirmed, then denied: {:?}", denied.body);
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_nor_in_the_database() {
    let mut served = Served::new(PROGRAM, |_| {}).await;
    served.start().await;
    let mut canaries = Canaries { served: &served, secrets: BTreeSet::new() };
    everything(&mut canaries).await;
    let secrets = canaries.secrets;
    assert!(secrets.len() > 25, "only {} secrets were seen", secrets.len());
    let places = [("log", served.log()), ("database", dump(&served.pool).await)];
    for (place, text) in &places {
        assert!(text.len() > 10_000, "the {place} holds next to nothing: this test would not see anything");
        assert!(text.contains("hello_cortex") || *place == "log", "the {place} is not what it should be");
        for secret in &secrets {
            for form in forms(secret) {
                let at = text.find(&form);
                let around = at.map(|at| text.get(at.saturating_sub(200)..at).unwrap_or_default());
                assert!(at.is_none(), "a secret is in the {place}, after: {around:?}");
            }
        }
    }
    assert!(places[0].1.contains("\"level\":\"TRACE\""), "the log was not at its most talkative");
}
