//! AWS sessions: a deny statement on the role, confirmed before it is said.

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_tests::s3::put;
use cortex_tests::world::{INSIDE, TestWorld, answer};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{issued, revoke, revoke_issuance, run, state, until_nothing_is_denied, work};

const ROLE: &str = "arn:aws:iam::123456789012:role/finance-publish";

async fn works(world: &TestWorld, run_id: &str, entry: &Value) -> bool {
    let (status, said) = put(&world.http, &world.world.sandbox, world.now(), run_id, entry).await;
    match status {
        StatusCode::OK => true,
        StatusCode::FORBIDDEN => {
            assert!(said.contains("explicit deny"), "{said}");
            false
        }
        other => panic!("{other}: {said}"),
    }
}

fn fault(operation: &str, mode: FaultMode, remaining: Option<u32>) -> Fault {
    Fault { operation: Some(operation.to_owned()), mode, remaining }
}

#[tokio::test]
async fn a_session_is_denied_once_iam_has_confirmed_it_and_its_neighbour_goes_on() {
    let world = TestWorld::start().await;
    let (leaked, other) = (issued(&world, &run("r1"), "aws").await, issued(&world, &run("r2"), "aws").await);
    assert!(works(&world, "r1", &leaked).await && works(&world, "r2", &other).await);
    world.world.sandbox.fault(Cloud::Aws, fault("PutRolePolicy", FaultMode::Down, Some(1)));
    let id = &leaked["issuance_id"];
    let begun = revoke_issuance(&world, id).await;
    assert_eq!(begun["issuances"][0]["issuance_id"], *id);
    assert_eq!(begun["issuances"][0]["state"], "pending", "not without confirmation: {begun}");
    assert_eq!(begun["issuances"][0]["target"], ROLE);
    until_enforced(&world, id).await;
    assert!(!works(&world, "r1", &leaked).await, "the session goes on");
    assert!(works(&world, "r2", &other).await, "somebody else's session was ended");
    let seen = state(&world, id).await;
    assert_eq!(seen["state"], "enforced");
    assert_eq!(seen["evidence"]["policy"], "cortex-revocations", "{seen}");
    assert!(seen["evidence"]["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{seen}");
    assert!(seen["evidence"]["delay"].as_str().unwrap().contains("eventually consistent"), "{seen}");
    let settled = world.record(&["revocation.settled"]).await;
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0]["issuances"][0][0], *id, "{settled:?}");
    assert_eq!(settled[0]["state"], "enforced");
}

/// Lets time pass and workers work until the revocation is enforced; the pauses between attempts are bounded.
async fn until_enforced(world: &TestWorld, id: &Value) -> Value {
    for _ in 0..8 {
        work(world).await;
        let seen = state(world, id).await;
        if seen["state"] == "enforced" {
            return seen;
        }
        assert_eq!(seen["state"], "pending", "{seen}");
        world.clock.advance(SignedDuration::from_secs(61));
    }
    panic!("never enforced: {}", state(world, id).await);
}

#[tokio::test]
async fn while_aws_is_down_the_state_says_pending_and_the_debt_is_seen_and_then_it_is_paid() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "aws").await;
    let id = &leaked["issuance_id"];
    for mode in [FaultMode::Down, FaultMode::Throttle, FaultMode::Reset, FaultMode::Redirect] {
        world.world.sandbox.fault(Cloud::Aws, fault("PutRolePolicy", mode, Some(1)));
    }
    revoke_issuance(&world, id).await;
    for attempts in 1..=4 {
        work(&world).await;
        let seen = state(&world, id).await;
        assert_eq!(seen["state"], "pending", "attempt {attempts}: {seen}");
        assert!(works(&world, "r1", &leaked).await, "attempt {attempts} did something");
        assert!(seen["attempts"].as_i64().unwrap() >= 1, "{seen}");
        assert!(seen["last_error"].as_str().unwrap().contains("IAM"), "{seen}");
        world.clock.advance(SignedDuration::from_secs(61));
    }
    until_enforced(&world, id).await;
    assert!(!works(&world, "r1", &leaked).await);
    let told = world.record(&["revocation.failing"]).await;
    assert_eq!(told.len(), 1, "people are told once, not at each attempt: {told:?}");
    assert_eq!(
        (&told[0]["target"], &told[0]["attempts"], &told[0]["pending"]),
        (&json!(ROLE), &json!(3), &json!(1))
    );
}

#[tokio::test]
async fn an_answer_that_is_lost_after_iam_has_written_is_asked_for_again_and_does_no_harm() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "aws").await;
    world.world.sandbox.fault(Cloud::Aws, fault("PutRolePolicy", FaultMode::FailAfterMint, Some(1)));
    revoke_issuance(&world, &leaked["issuance_id"]).await;
    work(&world).await;
    let seen = state(&world, &leaked["issuance_id"]).await;
    assert_eq!(seen["state"], "pending", "written but not confirmed: {seen}");
    assert!(!works(&world, "r1", &leaked).await, "the sandbox did write it");
    until_enforced(&world, &leaked["issuance_id"]).await;
    assert!(!works(&world, "r1", &leaked).await);
}

#[tokio::test]
async fn two_revocations_of_one_role_at_once_do_not_undo_each_other() {
    let world = TestWorld::start().await;
    let mut leases = Vec::new();
    for n in 0..6 {
        leases.push(issued(&world, &run(&format!("r{n}")), "aws").await);
    }
    let revoke_one = |n: usize| revoke_issuance(&world, &leases[n]["issuance_id"]);
    tokio::join!(revoke_one(0), revoke_one(1), revoke_one(2));
    tokio::join!(work(&world), work(&world), work(&world));
    tokio::join!(revoke_one(3), revoke_one(4));
    tokio::join!(work(&world), work(&world));
    for lease in &leases[..5] {
        until_enforced(&world, &lease["issuance_id"]).await;
    }
    for (n, lease) in leases.iter().enumerate() {
        assert_eq!(works(&world, &format!("r{n}"), lease).await, n == 5, "lease {n}");
    }
}

#[tokio::test]
async fn what_has_expired_leaves_the_roles_policy_and_what_somebody_removed_is_put_back() {
    let world = TestWorld::start().await;
    let short = issued(&world, &run("r1"), "aws").await;
    revoke_issuance(&world, &short["issuance_id"]).await;
    until_enforced(&world, &short["issuance_id"]).await;
    world.clock.advance(SignedDuration::from_mins(20));
    let long = issued(&world, &run("r2"), "aws").await;
    revoke_issuance(&world, &long["issuance_id"]).await;
    until_enforced(&world, &long["issuance_id"]).await;
    // Half an hour and the slack for clouds' clocks after the first was opened.
    world.clock.advance(SignedDuration::from_mins(16));
    work(&world).await;
    assert!(!works(&world, "r2", &long).await, "the one that lives was forgotten with the one that expired");
    let targets: i64 =
        sqlx::query_scalar("SELECT count(*) FROM revocation_target").fetch_one(world.pool()).await.unwrap();
    assert_eq!(targets, 1);
    world.clock.advance(SignedDuration::from_mins(30));
    until_nothing_is_denied(&world).await;
    let fresh = issued(&world, &run("r3"), "aws").await;
    assert!(works(&world, "r3", &fresh).await);
}

#[tokio::test]
async fn a_credential_that_expires_while_its_cloud_is_away_is_said_to_have_expired() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "aws").await;
    world.world.sandbox.fault(Cloud::Aws, fault("PutRolePolicy", FaultMode::Down, None));
    revoke_issuance(&world, &leaked["issuance_id"]).await;
    work(&world).await;
    world.clock.advance(SignedDuration::from_mins(31));
    work(&world).await;
    let seen = state(&world, &leaked["issuance_id"]).await;
    assert_eq!(seen["state"], "expires_at", "{seen}");
    assert!(seen["why"].as_str().unwrap().contains("before the cloud had confirmed"), "{seen}");
    assert_eq!(seen["time"].as_str().map(|t| &t[..16]), Some("2026-11-23T02:30"), "{seen}");
}

#[tokio::test]
async fn a_role_without_room_is_denied_by_age_and_the_state_says_whom_else_that_hits() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "aws").await;
    // As many as a role has no room for, beside the one that is real.
    sqlx::query(
        "INSERT INTO revoked_lease (issuance_id, provider, target, means, revoked_at, made_before, expires_at, state)
         SELECT gen_random_uuid(), 'aws', $1, jsonb_build_object('by', 'aws_deny', 'role_arn', $1),
                $2::timestamptz, $2::timestamptz + interval '1 minute', $2::timestamptz + interval '1 hour', 'pending'
         FROM generate_series(1, 400)",
    )
    .bind(ROLE)
    .bind(world.now().to_string())
    .execute(world.pool())
    .await
    .unwrap_or_else(|error| panic!("{error}"));
    revoke_issuance(&world, &leaked["issuance_id"]).await;
    let seen = until_enforced(&world, &leaked["issuance_id"]).await;
    let before = seen["evidence"]["every_session_opened_before"].as_str().unwrap_or_default();
    assert!(before.starts_with("2026-11-23T02:01:0"), "{seen}");
    assert!(!works(&world, "r1", &leaked).await);
    world.clock.advance(SignedDuration::from_mins(2));
    let fresh = issued(&world, &run("r2"), "aws").await;
    assert!(works(&world, "r2", &fresh).await, "a session that was opened later goes on");
}

#[tokio::test]
async fn a_lease_handle_dies_with_its_lease_and_a_fresh_token_gets_another() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "aws").await;
    let handle = leaked["lease_handle"].as_str().unwrap();
    let fetch = || {
        let request = world.http.get(world.url("/v1/aws/first-steps")).header("authorization", handle);
        answer(request.header("x-forwarded-for", INSIDE))
    };
    assert_eq!(fetch().await.status, StatusCode::OK);
    revoke_issuance(&world, &leaked["issuance_id"]).await;
    let refused = fetch().await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert!(refused.body["message"].as_str().unwrap().contains("revoked"), "{refused:?}");
    let fresh = issued(&world, &run("r1"), "aws").await;
    assert_ne!(fresh["issuance_id"], leaked["issuance_id"], "the revoked one was handed out again");
}

#[tokio::test]
async fn without_a_revoker_the_answer_says_that_only_expiry_ends_it() {
    let world = TestWorld::start_with(|config| {
        config.providers.aws.revocation.method = cortex_providers::config::AwsRevocationMethod::Off;
    })
    .await;
    let leaked = issued(&world, &run("r1"), "aws").await;
    let begun = revoke_issuance(&world, &leaked["issuance_id"]).await;
    let seen = &begun["issuances"][0];
    assert_eq!(seen["state"], "expires_at", "{seen}");
    assert!(seen["why"].as_str().unwrap().contains("providers.aws.revocation"), "{seen}");
    assert!(works(&world, "r1", &leaked).await);
    let admin = world.person("erin", &["cortex-admins"]);
    let path = format!("/v1/revocations/{}", begun["id"].as_str().unwrap());
    let shown = world.as_person(Method::GET, &path, &admin, None).await;
    assert_eq!([&shown.body["pending"], &shown.body["enforced"], &shown.body["expires_at"]], [0, 0, 1]);
    let unknown = revoke(&world, json!({"issuance_id": begun["id"], "reason": "x"})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
}
