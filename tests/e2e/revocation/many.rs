//! Fifty thousand leases, revoked together and expiring together, in bounded steps, while issuance goes on.

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_tests::world::TestWorld;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

use super::{issued, revoke, run, until_nothing_is_denied, work};

const MANY: i64 = 50_000;

/// Puts issuances on record that nobody asked for: sessions of one role that live for half an hour.
async fn live(world: &TestWorld, owner: &PgPool) {
    sqlx::query(
        "WITH t AS (SELECT n, lpad(to_hex((extract(epoch FROM $2::timestamptz) * 1000)::int8 - 60000), 12, '0')
                              || '7000' || '8000' || lpad(to_hex(n), 12, '0') AS hex
                    FROM generate_series(1, $1::int8) AS n),
              i AS (SELECT n, (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-' || substr(hex, 13, 4) || '-'
                               || substr(hex, 17, 4) || '-' || substr(hex, 21))::uuid AS id FROM t)
         INSERT INTO record (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy, provider,
                             outcome, expires_at, leaf)
         SELECT id, $2::timestamptz - interval '1 minute', 'issuance.issued', id, 'run:prod:many:r:t:-:1', 'prod',
                'many', 'r', 't', 'first-steps', 'aws', 'issued', $2::timestamptz + interval '30 minutes',
                convert_to(jsonb_build_object('issuance_id', id, 'revocation', jsonb_build_object(
                    'by', 'aws_deny', 'role_arn', 'arn:aws:iam::123456789012:role/finance-publish'))::text, 'UTF8')
         FROM i",
    )
    .bind(MANY)
    .bind(world.now().to_string())
    .execute(owner)
    .await
    .unwrap();
}

/// Its connection is none of the replica's, which are busy.
async fn count(owner: &PgPool, state: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM revoked_lease WHERE state = $1")
        .bind(state)
        .fetch_one(owner)
        .await
        .unwrap()
}

#[tokio::test]
async fn fifty_thousand_leases_are_revoked_in_few_writes_while_issuance_goes_on_and_leave_together() {
    let world = TestWorld::start().await;
    let owner = PgPool::connect(&world.world.database_url).await.unwrap();
    live(&world, &owner).await;
    let scope = json!({"kind": "dag", "dag_id": "many"});
    let begun = revoke(&world, json!({"scope": scope, "reason": "all of them"})).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{begun:?}");
    assert_eq!(begun.body["complete"], false, "the answer waited for all of them");
    let mut rounds = 0;
    while count(&owner, "enforced").await < MANY {
        work(&world).await;
        issued(&world, &run(&format!("r{rounds}")), "api").await;
        world.clock.advance(SignedDuration::from_secs(1));
        rounds += 1;
        assert!(rounds < 120, "{} of {MANY} are enforced", count(&owner, "enforced").await);
    }
    let writes: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT evidence ->> 'request_id') FROM revoked_lease")
            .fetch_one(&owner)
            .await
            .unwrap();
    assert!((1..=100).contains(&writes), "{writes} writes to one role");
    let entries = world.record(&["revocation.settled"]).await;
    let settled: usize = entries.iter().map(|entry| entry["issuances"].as_array().unwrap().len()).sum();
    assert_eq!(i64::try_from(settled).unwrap(), MANY, "each is on record once");
    world.clock.advance(SignedDuration::from_mins(40));
    until_nothing_is_denied(&world).await;
}

#[tokio::test]
async fn fifty_thousand_leases_that_expire_while_their_cloud_is_away_end_in_batches() {
    let world = TestWorld::start().await;
    let operation = Some("PutRolePolicy".to_owned());
    world.world.sandbox.fault(Cloud::Aws, Fault { operation, mode: FaultMode::Down, remaining: None });
    let owner = PgPool::connect(&world.world.database_url).await.unwrap();
    live(&world, &owner).await;
    revoke(&world, json!({"scope": {"kind": "dag", "dag_id": "many"}, "reason": "all of them"})).await;
    let mut rounds = 0;
    while count(&owner, "pending").await < MANY {
        work(&world).await;
        rounds += 1;
        assert!(rounds < 120, "{} of {MANY} are pending", count(&owner, "pending").await);
    }
    world.clock.advance(SignedDuration::from_mins(31));
    let mut rounds = 0;
    while count(&owner, "expires_at").await < MANY {
        work(&world).await;
        issued(&world, &run(&format!("r{rounds}")), "api").await;
        rounds += 1;
        assert!(rounds <= 100, "{} of {MANY} have ended", count(&owner, "expires_at").await);
    }
}
