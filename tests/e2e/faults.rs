//! Every effect outside fails, and fails after it happened: what the caller is told, what is on record, and
//! whether the token may be tried again.

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_tests::pg_proxy::{Loss, PgProxy};
use cortex_tests::promises::{check, kept, leaves, settle};
use cortex_tests::world::{Answer, TestWorld, database, first_run};
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

/// How a failure of a cloud shows.
struct Row {
    provider: &'static str,
    mode: FaultMode,
    error: &'static str,
    outcome: &'static str,
    code: Option<&'static str>,
    minted: bool,
    /// Whether the same token may be tried again: only where it is certain that nothing was minted.
    again: bool,
}

const fn row(
    provider: &'static str,
    mode: FaultMode,
    error: &'static str,
    (outcome, code): (&'static str, Option<&'static str>),
    minted: bool,
    again: bool,
) -> Row {
    Row { provider, mode, error, outcome, code, minted, again }
}

const AWAY: &str = "temporarily_unavailable";
const UNAVAILABLE: (&str, Option<&str>) = ("failed", Some("unavailable"));
const MISMATCH: (&str, Option<&str>) = ("failed", Some("mismatch"));
const UNKNOWN: (&str, Option<&str>) = ("indeterminate", None);

const ROWS: [Row; 17] = [
    row("aws", FaultMode::Down, AWAY, UNAVAILABLE, false, true),
    row("aws", FaultMode::Throttle, AWAY, UNAVAILABLE, false, true),
    row("aws", FaultMode::Reset, AWAY, UNKNOWN, false, false),
    row("aws", FaultMode::FailAfterMint, AWAY, UNKNOWN, true, false),
    row("aws", FaultMode::HangAfterMint, AWAY, UNKNOWN, true, false),
    row("aws", FaultMode::Garbage, AWAY, UNKNOWN, true, false),
    row("aws", FaultMode::LongerExpiry, "server_error", MISMATCH, true, false),
    row("aws", FaultMode::OtherArn, "server_error", MISMATCH, true, false),
    row("aws", FaultMode::OtherAccount, "server_error", MISMATCH, true, false),
    row("aws", FaultMode::MissingToken, "server_error", MISMATCH, true, false),
    row("bigquery", FaultMode::Down, AWAY, UNAVAILABLE, false, true),
    row("bigquery", FaultMode::Throttle, AWAY, UNAVAILABLE, false, true),
    row("bigquery", FaultMode::Reset, AWAY, UNKNOWN, false, false),
    row("bigquery", FaultMode::FailAfterMint, AWAY, UNKNOWN, true, false),
    row("bigquery", FaultMode::HangAfterMint, AWAY, UNKNOWN, true, false),
    row("bigquery", FaultMode::LongerExpiry, "server_error", MISMATCH, true, false),
    row("bigquery", FaultMode::MissingToken, "server_error", MISMATCH, true, false),
];

async fn impatient() -> TestWorld {
    TestWorld::start_with(|config| {
        for calls in [&mut config.providers.aws.calls, &mut config.providers.bigquery.calls] {
            calls.attempt_timeout = SignedDuration::from_millis(700);
            calls.timeout = SignedDuration::from_millis(2_500);
        }
    })
    .await
}

#[tokio::test]
async fn what_a_cloud_does_wrong_is_on_record_and_nothing_leaves() {
    let world = impatient().await;
    for (index, row) in ROWS.iter().enumerate() {
        let what = format!("{} {:?}", row.provider, row.mode);
        let cloud = if row.provider == "aws" { Cloud::Aws } else { Cloud::Google };
        let token = world.token(&first_run(&format!("r{index}")));
        let minted = world.minted_leases().len();
        let outcomes = world.record(&["issuance.outcome"]).await;
        world.world.sandbox.fault(cloud, Fault { operation: None, mode: row.mode, remaining: None });
        let answer = world.ask(&token, json!({"policy": "first-steps", "targets": [row.provider]})).await;
        world.world.sandbox.clear_faults();
        assert_eq!(answer.body["error"], row.error, "{what}: {answer:?}");
        assert!(answer.status.is_server_error(), "{what}: {answer:?}");
        let now = world.record(&["issuance.outcome"]).await;
        assert_eq!(now.len(), outcomes.len() + 1, "{what}");
        let outcome = now.iter().find(|leaf| !outcomes.contains(leaf)).unwrap();
        assert_eq!(outcome["outcome"]["outcome"], row.outcome, "{what}: {outcome}");
        assert_eq!(outcome["outcome"]["code"].as_str(), row.code, "{what}: {outcome}");
        let withheld = row.code == Some("mismatch");
        assert_eq!(outcome["outcome"]["withheld_until"].is_string(), withheld, "{what}: {outcome}");
        assert_eq!(world.minted_leases().len() - minted, usize::from(row.minted), "{what}");
        tried_again(&world, &token, row, &what).await;
    }
    settle(&world).await;
    kept(&world).await;
}

async fn tried_again(world: &TestWorld, token: &str, row: &Row, what: &str) {
    let answer = world.ask(token, json!({"policy": "first-steps", "targets": [row.provider]})).await;
    if row.again {
        assert_eq!(answer.status, StatusCode::OK, "{what}: the token was not given back: {answer:?}");
    } else {
        assert_eq!(answer.body["error"], "invalid_request", "{what}: the token was given back: {answer:?}");
    }
    let replayed = world.ask(token, json!({"policy": "first-steps", "targets": [row.provider]})).await;
    assert_eq!(replayed.body["error"], "invalid_request", "{what}: {replayed:?}");
}

#[tokio::test]
async fn a_failure_that_passes_within_the_deadline_is_not_noticed() {
    let world = TestWorld::start().await;
    for (index, mode) in [FaultMode::Down, FaultMode::Reset, FaultMode::Delay(50), FaultMode::FailAfterMint]
        .into_iter()
        .enumerate()
    {
        world.world.sandbox.fault(Cloud::Aws, Fault { operation: None, mode, remaining: Some(1) });
        let run = first_run(&format!("r{index}"));
        let answer =
            world.ask(&world.token(&run), json!({"policy": "first-steps", "targets": ["aws"]})).await;
        assert_eq!(answer.status, StatusCode::OK, "{mode:?}: {answer:?}");
    }
    assert_eq!(kept(&world).await, ["issued"; 4], "a retry is the same issuance");
}

#[tokio::test]
async fn one_cloud_that_is_away_takes_nothing_from_the_others() {
    let world = TestWorld::start().await;
    world.world.sandbox.fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::Down, remaining: None });
    let token = world.token(&first_run("r"));
    let answer = world.ask(&token, json!({"policy": "first-steps"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["credentials"]["aws"]["error"], "temporarily_unavailable", "{answer:?}");
    for provider in ["bigquery", "snowflake", "api"] {
        assert_eq!(answer.body["credentials"][provider]["status"], "issued", "{answer:?}");
    }
    let again = world.ask(&token, json!({"policy": "first-steps"})).await;
    assert_eq!(
        again.body["error"], "invalid_request",
        "three credentials left, so the token is spent: {again:?}"
    );
    assert_eq!(kept(&world).await.len(), 2);
}

/// A world whose Cortex reaches Postgres through a proxy, and the way around it.
struct Proxied {
    world: TestWorld,
    proxy: PgProxy,
    direct: PgPool,
}

impl Proxied {
    async fn start() -> Self {
        let url = database().await;
        let proxy = PgProxy::start(&url);
        let world =
            TestWorld::start_on(proxy.url.clone(), |config| config.database.commit_timeout_ms = 2_000).await;
        Self { world, proxy, direct: PgPool::connect(&url).await.expect("the database") }
    }

    async fn ask(&self, token: &str, target: &str) -> Answer {
        self.world.ask(token, json!({"policy": "first-steps", "targets": [target]})).await
    }

    /// Back up, and swept: how the intents ended.
    async fn ended(&self) -> Vec<String> {
        self.proxy.up();
        settle(&self.world).await;
        check(&self.direct, &self.world.world.sandbox.mints()).await
    }
}

fn withheld(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.body["error"], "temporarily_unavailable", "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}

#[tokio::test]
async fn an_intent_that_is_not_committed_is_not_minted() {
    let proxied = Proxied::start().await;
    let token = proxied.world.token(&first_run("r"));
    proxied.proxy.lose(Loss::Commit, "issuance.intent", 1);
    withheld(&proxied.ask(&token, "aws").await);
    assert_eq!(proxied.world.world.sandbox.mints(), []);
    assert!(leaves(&proxied.direct, "issuance.intent").await.is_empty());
    let again = proxied.ask(&token, "aws").await;
    assert_eq!(again.status, StatusCode::OK, "what was rolled back did not spend the token: {again:?}");
    assert_eq!(proxied.ended().await, ["issued"]);
}

#[tokio::test]
async fn an_intent_whose_commit_was_not_heard_of_is_looked_up_and_minted_once() {
    let proxied = Proxied::start().await;
    proxied.proxy.lose(Loss::Answer, "issuance.intent", 1);
    let answer = proxied.ask(&proxied.world.token(&first_run("r")), "aws").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(leaves(&proxied.direct, "issuance.intent").await.len(), 1);
    assert_eq!(proxied.ended().await, ["issued"]);
}

#[tokio::test]
async fn an_intent_that_cannot_be_looked_up_is_not_minted_and_the_supervisor_ends_it() {
    let proxied = Proxied::start().await;
    proxied.proxy.lose_and_go_down(Loss::Answer, "issuance.intent");
    withheld(&proxied.ask(&proxied.world.token(&first_run("r")), "aws").await);
    assert_eq!(proxied.world.world.sandbox.mints(), [], "minted on an intent that was not acknowledged");
    assert_eq!(leaves(&proxied.direct, "issuance.intent").await.len(), 1);
    assert_eq!(proxied.ended().await, ["indeterminate"]);
}

#[tokio::test]
async fn an_outcome_whose_commit_is_lost_is_written_again() {
    for loss in [Loss::Commit, Loss::Answer] {
        let proxied = Proxied::start().await;
        proxied.proxy.lose(loss, "issuance.outcome", 1);
        let answer = proxied.ask(&proxied.world.token(&first_run("r")), "bigquery").await;
        assert_eq!(answer.status, StatusCode::OK, "{loss:?}: {answer:?}");
        assert_eq!(proxied.ended().await, ["issued"], "{loss:?}");
    }
}

#[tokio::test]
async fn a_credential_whose_outcome_cannot_be_written_is_withheld() {
    for (loss, ended) in [(Loss::Commit, "indeterminate"), (Loss::Answer, "issued")] {
        let proxied = Proxied::start().await;
        let token = proxied.world.token(&first_run("r"));
        proxied.proxy.lose_and_go_down(loss, "issuance.outcome");
        let answer = proxied.ask(&token, "aws").await;
        withheld(&answer);
        assert_eq!(proxied.world.minted_leases().len(), 1, "{loss:?}: it was minted");
        assert_eq!(proxied.ended().await, [ended], "{loss:?}");
        let again = proxied.ask(&token, "aws").await;
        assert_eq!(again.body["error"], "invalid_request", "{loss:?}: its token stays spent: {again:?}");
    }
}

#[tokio::test]
async fn what_cortex_signs_itself_does_not_leave_without_its_record() {
    for (loss, status, rows) in [(Loss::Commit, 503, 0), (Loss::Answer, 200, 1)] {
        let proxied = Proxied::start().await;
        proxied.proxy.lose(loss, "issuance.issued", 1);
        let answer = proxied.ask(&proxied.world.token(&first_run("r")), "api").await;
        assert_eq!(answer.status.as_u16(), status, "{loss:?}: {answer:?}");
        assert_eq!(leaves(&proxied.direct, "issuance.issued").await.len(), rows, "{loss:?}");
    }
}

#[tokio::test]
async fn a_denial_that_cannot_be_recorded_is_no_denial_yet() {
    let proxied = Proxied::start().await;
    let stranger = cortex_sandbox::RunClaims::scheduled("stranger", "r", "t");
    proxied.proxy.lose(Loss::Commit, "\"denial\"", 1);
    withheld(&proxied.ask(&proxied.world.token(&stranger), "api").await);
    let denied = proxied.ask(&proxied.world.token(&stranger), "api").await;
    assert_eq!(denied.body["error"], "invalid_target", "{denied:?}");
    assert_eq!(leaves(&proxied.direct, "denial").await.len(), 1);
}

#[tokio::test]
async fn without_postgres_nothing_is_issued_and_everything_recovers() {
    let proxied = Proxied::start().await;
    let token = proxied.world.token(&first_run("r"));
    let person = proxied.world.person("erin", &["cortex-admins"]);
    proxied.proxy.down();
    withheld(&proxied.ask(&token, "aws").await);
    withheld(&proxied.ask(&token, "api").await);
    let get = |path: &str| proxied.world.http.get(proxied.world.url(path)).bearer_auth(&person);
    for (path, status) in
        [("/readyz", 503), ("/v1/policies", 503), ("/healthz", 200), ("/jwks", 200), ("/metrics", 200)]
    {
        let answer = cortex_tests::world::answer(get(path)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
    }
    assert_eq!(proxied.world.world.sandbox.mints(), []);
    proxied.proxy.up();
    let back = proxied.ask(&token, "aws").await;
    assert_eq!(back.status, StatusCode::OK, "{back:?}");
    assert_eq!(proxied.ended().await, ["issued"]);
}

/// Commitments of the record that nothing opens, and openings of nothing on record.
const LOOSE: &str = "SELECT count(*) FROM
    (SELECT right(principal, 44) AS commitment FROM record WHERE principal ~ '^(person|operator):') named
    FULL JOIN (SELECT commitment FROM personal WHERE kind = 'person') opened USING (commitment)
    WHERE named.commitment IS NULL OR opened.commitment IS NULL";

#[tokio::test]
async fn whom_a_record_names_is_known_with_it_whatever_becomes_of_the_commit() {
    for loss in [Loss::Commit, Loss::Answer] {
        let proxied = Proxied::start().await;
        let world = &proxied.world;
        let loose = async || sqlx::query_scalar::<_, i64>(LOOSE).fetch_one(&proxied.direct).await.unwrap();
        proxied.proxy.lose(loss, "\"denial\"", 1);
        let robert = world.person("u-4711", &["finance-admins"]);
        let answer = world.ask(&robert, json!({"policy": "first-steps", "targets": ["api"]})).await;
        assert_ne!(answer.status, StatusCode::OK, "{loss:?}: {answer:?}");
        let denials = denials(&proxied.direct).await;
        assert_eq!(denials, usize::from(loss == Loss::Answer), "{loss:?}: {answer:?}");
        assert_eq!(loose().await, 0, "{loss:?}");
        // The next one finds him, or commits to him.
        let answer = world.ask(&robert, json!({"policy": "first-steps", "targets": ["api"]})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{loss:?}: {answer:?}");
        assert_eq!(loose().await, 0, "{loss:?}");
        let people: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM personal WHERE kind = 'person' AND value LIKE 'person:%'",
        )
        .fetch_one(&proxied.direct)
        .await
        .unwrap();
        assert_eq!(people, 1, "{loss:?}");
    }
}

async fn denials(pool: &PgPool) -> usize {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM record WHERE kind = 'denial'")
        .fetch_one(pool)
        .await
        .unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test]
async fn a_person_is_erased_whole_or_not_at_all() {
    for loss in [Loss::Commit, Loss::Answer] {
        let proxied = Proxied::start().await;
        let world = &proxied.world;
        let robert = world.person("u-4711", &["finance-admins"]);
        world.ask(&robert, json!({"policy": "first-steps", "targets": ["api"]})).await;
        let (erin, name) = (
            world.person("erin", &["cortex-admins"]),
            json!({"issuer": "staff", "subject": "u-4711", "reason": "ticket 17"}),
        );
        proxied.proxy.lose(loss, "person.erased", 1);
        let lost =
            world.as_person(reqwest::Method::POST, "/v1/people/erase", &erin, Some(name.clone())).await;
        assert!(lost.status.is_server_error(), "{loss:?}: {lost:?}");
        let known = "SELECT EXISTS (SELECT FROM personal WHERE value = 'person:staff:u-4711')";
        let known: bool = sqlx::query_scalar(known).fetch_one(&proxied.direct).await.unwrap();
        assert_eq!(known, loss == Loss::Commit, "{loss:?}");
        assert_eq!(
            world.record(&["person.erased"]).await.len(),
            usize::from(loss == Loss::Answer),
            "{loss:?}"
        );
        let again = world.as_person(reqwest::Method::POST, "/v1/people/erase", &erin, Some(name)).await;
        assert_eq!(again.status, StatusCode::OK, "{loss:?}: {again:?}");
        kept(world).await;
    }
}
