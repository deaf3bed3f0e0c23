//! A real Airflow: every task has an identity, stock hooks get credentials, and no DAG knows of Cortex.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use cortex_cli::world::CLAIMANT;
use cortex_core::IssuerName;
use cortex_identity::{AirflowConfig, IssuerConfig, Kind};
use cortex_tests::airflow::{Airflow, Plan};
use cortex_tests::forge::part;
use cortex_tests::tls::TlsFront;
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::task::JoinSet;

use crate::counterparts::apply;

const AUDIENCE: &str = "https://ledger.acme.example";

const TARGETS: &str = "
  aws:
    role: arn:aws:iam::123456789012:role/finance-publish
    allow:
      - actions: [s3:PutObject, s3:GetObject]
        resources: [\"arn:aws:s3:::finance-mart/{dag_id}/{run_id}/*\"]
  bigquery: {project: acme-finance, grant: finance-publish}
  snowflake: {account: acme-prod, user: FINANCE_SVC, role: FINANCE_PUBLISH}";

fn policy(name: &str, who: &str, what: &str, rest: &str) -> String {
    let api = format!("\n  api: {{audience: {AUDIENCE}, scopes: [\"postings:read\"]}}");
    format!(
        "name: {name}\ndescription: A real Airflow's\nwho: {{airflow: airflow, {who}}}\nwhat:{what}{api}\n{rest}\n"
    )
}

/// An Airflow, the Cortex that trusts it, and what its tasks talk to.
struct Scene {
    world: TestWorld<AheadClock>,
    admin: String,
    _snowflake: TlsFront,
    _ledger: JoinSet<()>,
    _airflow_token: NamedTempFile,
}

async fn scene() -> (Scene, Airflow) {
    let port = free_port();
    let airflow_token = NamedTempFile::new().unwrap();
    let token_file = airflow_token.path().to_owned();
    let world = TestWorld::start_live(move |config| {
        let url = format!("http://127.0.0.1:{port}");
        let name: IssuerName = "airflow".parse().unwrap();
        let iss = format!("{url}/cortex-oidc");
        config.issuers.push(IssuerConfig::new(name.clone(), iss, Kind::Run, "cortex"));
        let claimants = std::mem::take(&mut config.airflows[0].claimants);
        config.airflows =
            vec![AirflowConfig { token_file: Some(token_file), ..AirflowConfig::new(name, url, claimants) }];
    })
    .await;
    let admin = world.person("erin", &["cortex-admins"]);
    let half_an_hour = "when: {max_ttl: 30m}";
    let approval =
        "when: {max_ttl: 30m}\napproval: {required_for: always, approvers: {groups: [finance-admins]}}";
    for (name, text) in [
        ("airflow-clouds", policy("airflow-clouds", "dags: [clouds]", TARGETS, half_an_hour)),
        ("airflow-long", policy("airflow-long", "dags: [long]", "", "when: {max_ttl: 60s}")),
        ("airflow-approved", policy("airflow-approved", "dags: [approved]", TARGETS, approval)),
        (
            "airflow-claimed",
            policy("airflow-claimed", "dags: [long], attestation: [verified-claim]", "", half_an_hour),
        ),
    ] {
        let applied = apply(&world, &admin, name, &text).await;
        assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    }
    let snowflake = TlsFront::start(world.world.sandbox.snowflake_url()).await;
    let (ledger_url, ledger) = ledger(&world).await;
    let airflow = airflow(port, &world, &snowflake, &ledger_url).await;
    std::fs::write(airflow_token.path(), airflow.token()).unwrap();
    (Scene { world, admin, _snowflake: snowflake, _ledger: ledger, _airflow_token: airflow_token }, airflow)
}

async fn airflow(port: u16, world: &TestWorld<AheadClock>, snowflake: &TlsFront, ledger: &str) -> Airflow {
    let sandbox = &world.world.sandbox;
    let aws = json!({
        "endpoint_url": sandbox.aws_url(), "region_name": "eu-west-1",
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    });
    let warehouse = json!({"host": "localhost", "port": snowflake.port, "insecure_mode": true});
    let connection = |policy: &str, target: &str, extra: Value| json!({"policy": policy, "target": target, "extra": extra});
    let mut http = connection("airflow-clouds", "api", json!({}));
    http["host"] = json!(ledger);
    let backend = json!({"connections": {
        "aws_default": connection("airflow-clouds", "aws", aws.clone()),
        "google_cloud_default": connection("airflow-clouds", "bigquery", json!({})),
        "snowflake_default": connection("airflow-clouds", "snowflake", warehouse),
        "http_default": http,
        "approved_aws": connection("airflow-approved", "aws", aws),
    }});
    // The machine's own credentials, which are good for one folder: nothing may fall back to them.
    let theirs = world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    let theirs = &theirs.body["credentials"]["aws"]["credential"];
    let text = |name: &str| theirs[name].as_str().unwrap();
    Airflow::start(Plan {
        port,
        cortex_url: &world.world.cortex.issuer_url,
        backend,
        options: &[("aws.session_factory", "cortex_provider.renewal.aws.CortexSessionFactory")],
        environment: &[
            ("AWS_ACCESS_KEY_ID", text("access_key_id")),
            ("AWS_SECRET_ACCESS_KEY", text("secret_access_key")),
            ("AWS_SESSION_TOKEN", text("session_token")),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL", sandbox.aws_url()),
            ("SANDBOX_AWS", sandbox.aws_url()),
            ("BIGQUERY_EMULATOR_HOST", sandbox.google_url()),
            ("REQUESTS_CA_BUNDLE", snowflake.certificate().to_str().unwrap()),
        ],
    })
    .await
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A private API that checks its tokens as RFC 9068 asks, by Cortex's published keys, and says who called.
async fn ledger(world: &TestWorld<AheadClock>) -> (String, JoinSet<()>) {
    let keys: JwkSet = world.http.get(world.url("/jwks")).send().await.unwrap().json().await.unwrap();
    let router = Router::new().route("/postings", get(postings)).with_state(Arc::new(keys));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, serving)
}

async fn postings(State(keys): State<Arc<JwkSet>>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let caller = || {
        let token = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let key = DecodingKey::from_jwk(keys.find(&kid)?).ok()?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[AUDIENCE]);
        Some(jsonwebtoken::decode::<Value>(token, &key, &validation).ok()?.claims)
    };
    caller().map(Json).ok_or(StatusCode::UNAUTHORIZED)
}

#[tokio::test]
async fn tasks_of_a_real_airflow_get_what_their_policies_say() {
    let (scene, airflow) = scene().await;
    the_doctor_tries_each_link(&scene).await;
    tokio::join!(
        stock_hooks_work_and_every_try_has_an_identity(&scene, &airflow),
        a_stranger_is_denied_and_does_not_fall_back(&scene, &airflow),
        a_task_renews_until_its_policy_is_withdrawn(&scene, &airflow),
        a_task_waits_for_people(&scene, &airflow),
    );
}

async fn the_doctor_tries_each_link(scene: &Scene) {
    let folder = tempfile::tempdir().unwrap();
    let doctor = async |change: fn(&mut IssuerConfig), dag: &str| {
        let mut config = scene.world.world.config.clone();
        let issuer = config.issuers.iter_mut().find(|issuer| issuer.name.as_str() == "airflow").unwrap();
        change(issuer);
        let file = folder.path().join("cortex.toml");
        std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cortex-under-test"));
        command.arg("--config").arg(&file).args(["doctor", "airflow", "--issuer", "airflow"]);
        command.args(["--policy", "airflow-clouds", "--dag", dag, "--task", "s3"]).env_remove("DATABASE_URL");
        let output = command.output().await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    // An Airflow that has just started may take longer for an answer than Cortex waits.
    let started = Instant::now();
    let said = loop {
        let (sound, said) = doctor(|_| {}, "clouds").await;
        if sound {
            break said;
        }
        assert!(started.elapsed() < Duration::from_mins(2), "{said}");
    };
    assert!(said.contains("aws: permitted now"), "{said}");
    for (what, change, dag, remedy) in [
        ("a slash", (|i| i.iss.push('/')) as fn(&mut IssuerConfig), "clouds", "Write its own words as `iss`"),
        ("an audience", |i| i.audience = "elsewhere".into(), "clouds", "[cortex] issuer_audiences"),
        ("a path", |i| i.iss.push_str("/elsewhere"), "clouds", "airflow-provider-cortex[issuer]"),
        ("a port", |i| i.iss = "http://127.0.0.1:9/cortex-oidc".into(), "clouds", "Start the API server"),
        ("a stranger", |_| {}, "stranger", "aws: denied."),
    ] {
        let (sound, said) = doctor(change, dag).await;
        assert!(!sound && said.contains("FAULT") && said.contains(remedy), "{what}: {said}");
    }
}

async fn stock_hooks_work_and_every_try_has_an_identity(scene: &Scene, airflow: &Airflow) {
    let run = airflow.scheduled("clouds").await;
    let s3 = run.returned("s3").await;
    assert_eq!(s3["read"], "hello");
    assert!(s3["elsewhere"].as_str().unwrap().contains("AccessDenied"), "cut to the run's folder: {s3}");
    assert_eq!(run.returned("bigquery").await, json!([[0]]));
    assert_eq!(run.returned("snowflake").await, json!(["FINANCE_SVC", "FINANCE_PUBLISH"]));
    let caller = run.returned("http").await;
    assert_eq!((&caller["dag_id"], &caller["task_id"]), (&json!("clouds"), &json!("http")), "{caller}");
    assert_eq!(run.returned("retried").await, 2);
    run.ends().await;
    let log = run.log("s3", 1).await;
    assert!(log.contains("Cortex: policy airflow-clouds, target aws: issued until"), "{log}");
    let tried = principals(scene, &run.id, "retried").await;
    assert_eq!(tried.iter().map(|run| run["try_number"].clone()).collect::<Vec<_>>(), [1, 2], "{tried:?}");
    let mapped = principals(scene, &run.id, "mapped").await;
    let mut indexes: Vec<_> = mapped.iter().map(|run| run["map_index"].as_i64().unwrap()).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 1], "{mapped:?}");
    assert!(mapped.iter().chain(&tried).all(|run| run["attestation"] == "issuer"), "{mapped:?}");
}

/// Who the credentials for the API were issued to, oldest first: one for each exchange of a task.
async fn principals(scene: &Scene, run_id: &str, task: &str) -> Vec<Value> {
    let issued = scene.world.record(&["issuance.issued"]).await;
    let principals =
        issued.into_iter().filter(|entry| entry["provider"] == "api").map(|entry| entry["principal"].clone());
    principals.filter(|run| run["run_id"] == run_id && run["task_id"] == task).collect()
}

async fn a_stranger_is_denied_and_does_not_fall_back(scene: &Scene, airflow: &Airflow) {
    let run = airflow.trigger("stranger", json!({})).await;
    assert_eq!(run.returned("ambient").await, "written", "the machine's own credentials are good");
    run.reaches("s3", &["failed"]).await;
    let log = run.log("s3", 1).await;
    assert!(log.contains("Cortex: connection aws_default:"), "{log}");
    let denials = scene.world.record(&["denial"]).await;
    let asked = denials.iter().filter(|entry| entry["principal"]["dag_id"] == "stranger");
    let asked: BTreeSet<_> = asked.map(|entry| entry["request_id"].as_str().unwrap()).collect();
    assert_eq!(asked.len(), 1, "one ask, for all targets, and on record: {denials:?}");
}

async fn a_task_renews_until_its_policy_is_withdrawn(scene: &Scene, airflow: &Airflow) {
    let world = &scene.world;
    let run = airflow.trigger("long", json!({})).await;
    let stolen = run.pushed("work", "id_token").await;
    let stolen = stolen.as_str().unwrap();
    let claims = part(stolen, 1);
    assert_eq!((&claims["airflow"]["dag_id"], &claims["airflow"]["try_number"]), (&json!("long"), &json!(1)));
    let first = world.ask(stolen, json!({"policy": "airflow-long"})).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    let again = world.ask(stolen, json!({"policy": "airflow-long"})).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "a token is good for one exchange: {again:?}");

    let id = run.task("work").await["id"].as_str().unwrap().to_owned();
    let (while_running, said) = airflow.id_token_of(&id).await;
    assert_eq!(while_running, StatusCode::OK, "{said}");
    a_service_claims_the_running_task_and_no_other_try(scene, &run.id).await;
    while run.pushed("work", "credentials").await.as_i64() < Some(2) {
        run.reaches("work", &["running"]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let retired = world.as_person(Method::DELETE, "/v1/policies/airflow-long", &scene.admin, None).await;
    assert!(retired.status.is_success(), "{retired:?}");
    run.reaches("work", &["failed"]).await;
    let log = run.log("work", 1).await;
    assert!(log.contains("Cortex: connection cortex_airflow_long:"), "{log}");
    assert!(!log.contains(stolen), "tokens are masked");
    let (afterwards, said) = airflow.id_token_of(&id).await;
    assert_eq!(afterwards, StatusCode::FORBIDDEN, "a token that was kept: {said}");
}

/// Cortex asks this very Airflow's REST API whether a claimed run is running.
async fn a_service_claims_the_running_task_and_no_other_try(scene: &Scene, run_id: &str) {
    let world = &scene.world;
    let claim = async |attempt: u32| {
        let run = json!({"dag_id": "long", "run_id": run_id, "task_id": "work", "try_number": attempt});
        let token = world.world.sandbox.service_token(CLAIMANT).unwrap();
        world.ask(&token, json!({"policy": "airflow-claimed", "run": run})).await
    };
    let running = claim(1).await;
    assert_eq!(running.status, StatusCode::OK, "{running:?}");
    let other = claim(2).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST, "{other:?}");
    let issued = world.record(&["issuance.issued"]).await;
    let claimed = issued.iter().find(|entry| entry["policy"] == "airflow-claimed").unwrap();
    assert_eq!(claimed["principal"]["attestation"], "verified-claim", "{claimed}");
    assert_eq!(claimed["principal"]["run_type"], "manual", "as Airflow says it: {claimed}");
}

async fn a_task_waits_for_people(scene: &Scene, airflow: &Airflow) {
    for (word, comment, end) in [("approve", "month end", "success"), ("deny", "not today", "failed")] {
        let run = airflow.trigger("approved", json!({"cortex_reason": "the books have to close"})).await;
        run.is_deferred("write").await;
        let grant = waiting(scene, &run.id).await;
        assert_eq!(grant["reason"], "the books have to close", "{grant}");
        let carol = scene.world.person("carol", &["finance-admins"]);
        let path = format!("/v1/grants/{}/{word}", grant["id"].as_str().unwrap());
        let body = json!({"comment": comment, "request_digest": grant["request_digest"]});
        let said = scene.world.as_person(Method::POST, &path, &carol, Some(body)).await;
        assert_eq!(said.status, StatusCode::OK, "{said:?}");
        run.reaches("write", &[end]).await;
        if word == "deny" {
            let log = run.log("write", 1).await;
            assert!(log.contains("person:staff:carol") && log.contains("not today"), "{log}");
        }
    }
}

/// The grant that this run waits for.
async fn waiting(scene: &Scene, run_id: &str) -> Value {
    let carol = scene.world.person("carol", &["finance-admins"]);
    let page = scene.world.as_person(Method::GET, "/v1/grants?status=requested", &carol, None).await;
    let grants = page.body["grants"].as_array().unwrap();
    let of_run = |grant: &&Value| grant["request"]["run_id"] == run_id;
    grants.iter().find(of_run).unwrap_or_else(|| panic!("no grant for {run_id}: {page:?}")).clone()
}
