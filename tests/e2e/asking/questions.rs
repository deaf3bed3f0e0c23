//! Questions about who got what, over REST.

use std::time::Duration;

use cortex_tests::world::{TestWorld, finance_run, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::grants::{bob_approves, by_hand, pending};

/// Every record that is there is published, and known to whoever asks.
const KNOWN: &str =
    "SELECT (SELECT count(*) FROM record) = (SELECT next FROM stream_cursor WHERE name = ':facts')";

pub(crate) async fn known(world: &TestWorld) {
    let until = Instant::now() + Duration::from_mins(1);
    while !sqlx::query_scalar::<_, bool>(KNOWN).fetch_one(world.pool()).await.unwrap() {
        assert!(Instant::now() < until, "the facts never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The page that a question of an auditor finds.
async fn asked(world: &TestWorld, query: &[(&str, &str)]) -> Value {
    let dave = world.person("dave", &["auditors"]);
    let url = reqwest::Url::parse_with_params(&world.url("/v1/issuances"), query).unwrap();
    let path = url.as_str().strip_prefix(&world.url("")).unwrap().to_owned();
    let answer = world.as_person(Method::GET, &path, &dave, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{query:?}: {answer:?}");
    assert_eq!(answer.body.get("behind"), None, "{query:?}: {answer:?}");
    answer.body
}

/// One field of each record that a question finds.
async fn found(world: &TestWorld, query: &[(&str, &str)], field: &str) -> Vec<String> {
    let page = asked(world, query).await;
    let rows = page["issuances"].as_array().unwrap();
    rows.iter().map(|row| row[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn who_got_access_to_a_target_between_two_dates() {
    let world = TestWorld::start().await;
    assert_eq!(world.ask_for(&first_run("r1"), "first-steps").await.status, StatusCode::OK);
    let between = world.now().checked_add(SignedDuration::from_secs(60)).unwrap().to_string();
    world.clock.advance(SignedDuration::from_secs(120));
    assert_eq!(world.ask_for(&first_run("r2"), "first-steps").await.status, StatusCode::OK);
    known(&world).await;
    let openings = world.record(&["issuance.intent", "issuance.issued"]).await;
    let targets: Vec<String> =
        openings.iter().map(|leaf| cortex_core::record::target(&leaf["scope"]).expect("a target")).collect();
    assert_eq!(targets.len(), 8, "four targets for each run");
    for target in &targets {
        assert_eq!(found(&world, &[("target", target)], "run_id").await, ["r2", "r1"], "{target}");
        assert_eq!(found(&world, &[("target", target), ("until", &between)], "run_id").await, ["r1"]);
        assert_eq!(found(&world, &[("target", target), ("since", &between)], "run_id").await, ["r2"]);
        let outcomes = found(&world, &[("target", target), ("outcome", "issued")], "outcome").await;
        assert_eq!(outcomes, ["issued", "issued"]);
    }
    assert!(found(&world, &[("target", "arn:aws:iam::1:role/other")], "id").await.is_empty());
    // A page goes on behind the one before it.
    let first = asked(&world, &[("target", &targets[0]), ("limit", "1")]).await;
    let next = first["next"].as_str().unwrap();
    assert_eq!(found(&world, &[("target", &targets[0]), ("before", next)], "run_id").await, ["r1"]);
}

#[tokio::test]
async fn denials_by_rule_and_access_under_a_version_of_a_policy() {
    let world = TestWorld::start().await;
    assert_eq!(world.ask_for(&finance_run("r1"), "finance-data-publish").await.status, StatusCode::OK);
    world.clock.advance(SignedDuration::from_hours(8));
    let late = world.ask_for(&finance_run("r2"), "finance-data-publish").await;
    assert_ne!(late.status, StatusCode::OK, "{late:?}");
    known(&world).await;
    let rule = [("rule", "finance-data-publish#when")];
    assert_eq!(found(&world, &rule, "run_id").await, ["r2"; 3], "a denial for each target");
    assert!(found(&world, &[("rule", "finance-data-publish#where")], "id").await.is_empty());
    assert_eq!(
        found(&world, &[("kinds", "denial"), ("dag_id", "finance_publish")], "outcome").await,
        ["denied"; 3]
    );
    let opening = &world.record(&["issuance.intent", "issuance.issued"]).await[0];
    let version = [("policy_digest", opening["policy_digest"].as_str().unwrap())];
    let runs = found(&world, &version, "run_id").await;
    assert_eq!(runs, ["r2", "r2", "r2", "r1", "r1", "r1"], "the denials are under this version too");
    let nobody = format!("sha256:{}", "0".repeat(64));
    assert!(found(&world, &[("policy_digest", &nobody)], "id").await.is_empty());
}

#[tokio::test]
async fn everything_that_a_run_a_person_and_an_approver_touched() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    bob_approves(&world, &grant).await;
    assert_eq!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
    known(&world).await;
    let opening = &world.record(&["issuance.intent", "issuance.issued"]).await[0];
    let user = opening["principal"]["triggering_user"].as_str().expect("who started it");
    let started = found(&world, &[("triggering_user", user)], "run_id").await;
    assert_eq!(started, ["m1"; 4], "what was issued to their run");
    let requests =
        found(&world, &[("triggering_user", user), ("kinds", "grant.requested")], "grant_id").await;
    assert_eq!(requests, [grant.as_str()]);
    assert_eq!(found(&world, &[("approver", "person:staff:bob")], "run_id").await, ["m1"; 4]);
    let decided = [("principal", "person:staff:bob"), ("kinds", "grant.decided")];
    assert_eq!(found(&world, &decided, "grant_id").await, [grant.as_str()]);
    let subject = opening["subject"].as_str().unwrap();
    let run = [("principal", subject), ("kinds", "issuance.intent,issuance.issued,denial,grant.requested")];
    assert_eq!(found(&world, &run, "principal").await.len(), 5, "{subject}");
}

#[tokio::test]
async fn approvals_outside_office_hours_and_every_use_of_break_glass() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    bob_approves(&world, &grant).await;
    let glass = "when: {max_ttl: 30m}\nbreak_glass: {approvers: {groups: [staff/finance-admins]}}";
    crate::grants::apply(&world, &crate::grants::close_books_at(glass, "")).await;
    let ask = json!({"policy": "close-books", "break_glass": true, "reason": "the books"});
    let waiting = world.ask(&world.token(&by_hand("m2")), ask).await;
    assert_eq!(waiting.body["error"], "authorization_pending", "{waiting:?}");
    known(&world).await;
    // It is Monday, 03:00 in Paris and 02:00 in UTC.
    for (hours, zone, outside) in [
        ("09:00-18:00", Some("Europe/Paris"), true),
        ("03:00-18:00", Some("Europe/Paris"), false),
        ("03:00-18:00", None, true),
        ("01:00-03:00", Some("Europe/Paris"), true),
        ("01:00-03:00", Some("UTC"), false),
        // There it is Sunday still.
        ("00:00-23:59", Some("America/New_York"), true),
    ] {
        let mut query = vec![("kinds", "grant.decided"), ("outside_hours", hours)];
        query.extend(zone.map(|zone| ("timezone", zone)));
        let grants = found(&world, &query, "grant_id").await;
        assert_eq!(!grants.is_empty(), outside, "{query:?}: {grants:?}");
    }
    let broken =
        [("break_glass", "true"), ("kinds", "grant.requested,grant.decided,issuance.intent,issuance.issued")];
    assert_eq!(found(&world, &broken, "run_id").await, ["m2"]);
}

#[tokio::test]
async fn a_question_that_cannot_be_is_refused_with_what_to_write() {
    let world = TestWorld::start().await;
    let dave = world.person("dave", &["auditors"]);
    for (query, said) in [
        ("kinds=dinner", "no kind of record"),
        ("policy_digest=abc", "sha256:"),
        ("outside_hours=9-18", "09:00-18:00"),
        ("outside_hours=18:00-09:00", "end after they begin"),
        ("outside_hours=09:00-18:00&timezone=Mars/Olympus", "Europe/Paris"),
        ("break_glass=perhaps", "break_glass"),
        ("target=%00", "NUL"),
    ] {
        let answer = world.as_person(Method::GET, &format!("/v1/issuances?{query}"), &dave, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {answer:?}");
        assert!(answer.body.to_string().contains(said), "{query}: {answer:?}");
    }
}
