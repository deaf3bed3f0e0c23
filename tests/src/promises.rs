//! What holds after any mix of requests and faults: the clouds' own ledger compared with what is on record.

use std::collections::BTreeMap;

use cortex_sandbox::Mint;
use cortex_server::supervisor;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::PgPool;

use crate::world::TestWorld;

/// Lets the supervisor end what was left open: after the intents' deadline.
pub async fn settle(world: &TestWorld) {
    world.clock.advance(SignedDuration::from_secs(41));
    supervisor::sweep(&world.world.cortex.broker).await.expect("a sweep");
}

/// Checks that nothing was minted without an intent, that each intent has exactly one outcome, and that no
/// lifetime passes its bound. Answers how the intents ended: `issued`, `failed` or `indeterminate`.
pub async fn check(pool: &PgPool, mints: &[Mint]) -> Vec<String> {
    check_by_clocks(pool, mints, SignedDuration::ZERO).await
}

/// The same where the replicas' clocks were `off` by so much at the most from the clouds'.
pub async fn check_by_clocks(pool: &PgPool, mints: &[Mint], off: SignedDuration) -> Vec<String> {
    let intents = leaves(pool, "issuance.intent").await;
    let outcomes = leaves(pool, "issuance.outcome").await;
    let intents: BTreeMap<String, &Value> =
        intents.iter().map(|leaf| (text(&leaf["issuance_id"]), leaf)).collect();
    let mut ended: BTreeMap<String, &Value> = BTreeMap::new();
    for leaf in &outcomes {
        let id = text(&leaf["issuance_id"]);
        assert!(intents.contains_key(&id), "an outcome without an intent: {leaf}");
        assert!(ended.insert(id, &leaf["outcome"]).is_none(), "two outcomes: {leaf}");
    }
    for (id, intent) in &intents {
        let outcome = ended.get(id).unwrap_or_else(|| panic!("an intent without an outcome: {intent}"));
        within_bounds(intent, outcome, off);
    }
    // What Cortex signs in with to revoke is for itself, and leaves for nobody.
    for mint in mints.iter().filter(|mint| !mint.subject.ends_with("/cortex-revoker")) {
        let lease = mint.lease.as_ref().expect("a mint names its lease");
        let intent = intents.get(lease).unwrap_or_else(|| panic!("minted without an intent: {mint:?}"));
        assert!(mint.at + off >= time(&intent["at"]), "minted before the intent: {mint:?}");
        assert!(
            mint.expires_at - off <= time(&intent["worst_case_expiry"]),
            "outlives the worst case: {mint:?}"
        );
    }
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM open_intent").fetch_one(pool).await.expect("a count");
    assert_eq!(open, 0, "intents are left open");
    ended.values().map(|outcome| text(&outcome["outcome"])).collect()
}

/// The same for a world in this process, whose log is whole too and has everything in it.
pub async fn kept(world: &TestWorld) -> Vec<String> {
    let (pool, broker) = (world.pool(), &world.world.cortex.broker);
    broker.log.round(pool).await.expect("the log");
    let key = broker.recorder.stamp().chains.verifier();
    let summary =
        cortex_server::store::log::verify(pool, &key, Vec::new(), |_, _| {}).await.expect("a whole log");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(pool).await.expect("a count");
    assert_eq!(summary.leaves, rows.unsigned_abs(), "something is on record and not in the log");
    check(pool, &world.world.sandbox.mints()).await
}

fn within_bounds(intent: &Value, outcome: &Value, off: SignedDuration) {
    let worst = time(&intent["worst_case_expiry"]);
    match text(&outcome["outcome"]).as_str() {
        "issued" => {
            let expires_at = time(&outcome["lease"]["expires_at"]) - off;
            let ttl = intent["ttl_seconds"].as_i64().expect("seconds");
            // A minute for the clouds' clocks and one for the way there.
            let latest = time(&intent["at"]) + SignedDuration::from_secs(ttl + 120);
            // A clock that goes wrong after the decision misdates the intent, not the worst case.
            let timely = expires_at <= latest || !off.is_zero();
            assert!(expires_at <= worst && timely, "lives too long: {intent} {outcome}");
        }
        // Postgres keeps microseconds.
        "indeterminate" => {
            assert_eq!(
                time(&outcome["worst_case_expiry"]).as_microsecond(),
                worst.as_microsecond(),
                "{outcome}"
            );
        }
        other => assert_eq!(other, "failed", "{outcome}"),
    }
}

/// Every leaf of one kind.
pub async fn leaves(pool: &PgPool, kind: &str) -> Vec<Value> {
    let leaves: Vec<Vec<u8>> = sqlx::query_scalar("SELECT leaf FROM record WHERE kind = $1 ORDER BY id")
        .bind(kind)
        .fetch_all(pool)
        .await
        .expect("the record");
    leaves.iter().map(|leaf| serde_json::from_slice(leaf).expect("JSON")).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn time(value: &Value) -> Timestamp {
    text(value).parse().expect("a time")
}

/// Every row of every table, as text, with the record's own bytes readable.
pub async fn dump(pool: &PgPool) -> String {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            .fetch_all(pool)
            .await
            .expect("tables");
    let mut dump = String::new();
    for table in &tables {
        let rows = format!("SELECT to_jsonb(t)::text FROM {table} t");
        let rows: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_all(pool).await.expect("rows");
        dump.extend([table, "\n", &rows.join("\n"), "\n"]);
    }
    let leaves: Vec<String> = sqlx::query_scalar("SELECT convert_from(leaf, 'UTF8') FROM record")
        .fetch_all(pool)
        .await
        .expect("leaves");
    dump + &leaves.join("\n")
}
