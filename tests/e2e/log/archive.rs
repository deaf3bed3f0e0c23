//! Old records leave the database: for an archive that is verified, but for what is held, and the log stays whole.

use std::path::Path;

use cortex_log::checkpoint::Checkpoint;
use cortex_log::proof::{ProofFile, verify_inclusion};
use cortex_log::receipt::Receipt;
use cortex_log::seal::Seal;
use cortex_sandbox::FaultMode;
use cortex_server::log::archive::{ArchiveError, archive, drop_before, month};
use cortex_server::log::{LogConfig, ObjectStoreConfig, Place};
use cortex_server::store::connect_as_owner;
use cortex_server::store::log::{Deleted, verify};
use cortex_tests::objects::Objects;
use cortex_tests::world::{Answer, TestWorld, first_run};
use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{administrator, finding, issue, key, round};

const OPERATOR: &str = "operator:test";

/// More than a bundle of records in November, some in December, some in January.
async fn three_months() -> (TestWorld, Vec<Receipt>, Checkpoint) {
    let world = TestWorld::start().await;
    let mut receipts = Vec::new();
    let asked = json!({"policy": "first-steps", "targets": ["aws"]});
    let answer = world.ask(&world.token(&first_run("novaws")), asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    for wave in 0..28 {
        let ten = (0..10).map(|n| issue_owned(&world, format!("nov{wave}-{n}")));
        receipts.extend(join_all(ten).await);
    }
    // A denial has a fact and a rule.
    let token = world.token(&first_run("denied"));
    let denied = world.ask(&token, json!({"policy": "finance-data-publish"})).await;
    assert!(!denied.status.is_success(), "{denied:?}");
    round(&world).await;
    let older = newest_checkpoint(&world).await;
    for (at, runs) in [("2026-12-07T02:00:00Z", "dec"), ("2027-01-04T02:00:00Z", "jan")] {
        let at: Timestamp = at.parse().unwrap();
        world.clock.advance(at.duration_since(world.now()));
        round(&world).await;
        for n in 0..5 {
            issue(&world, &format!("{runs}{n}")).await;
        }
        round(&world).await;
    }
    caught_up(&world).await;
    (world, receipts, older)
}

async fn issue_owned(world: &TestWorld, run: String) -> Receipt {
    serde_json::from_value(issue(world, &run).await["receipt"].clone()).unwrap()
}

async fn newest_checkpoint(world: &TestWorld) -> Checkpoint {
    let note: String = sqlx::query_scalar("SELECT checkpoint FROM log_shard ORDER BY number DESC LIMIT 1")
        .fetch_one(world.pool())
        .await
        .unwrap();
    Checkpoint::open_under(&note, &key(world)).unwrap()
}

/// Waits until what auditors ask by is made of everything that is published.
async fn caught_up(world: &TestWorld) {
    let until = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    while cortex_server::store::questions::behind(world.pool()).await.unwrap() > 0 {
        assert!(tokio::time::Instant::now() < until, "nothing of it is known");
        tokio::task::yield_now().await;
    }
}

fn folder(path: &Path) -> Place {
    Place::open(&format!("file://{}", path.display()), &ObjectStoreConfig::default()).unwrap()
}

async fn archive_to(world: &TestWorld, place: &Place, before: &str) -> Result<Vec<u64>, ArchiveError> {
    let stamp = world.world.cortex.broker.recorder.stamp();
    let before = (month(before, world.now())?, OPERATOR.to_owned());
    let archived = archive(world.pool(), &key(world), place, before, stamp, |_, _| {}).await?;
    Ok(archived.trees.iter().map(|tree| tree.size).collect())
}

async fn drop_old(world: &TestWorld, before: &str, months: Option<u32>) -> Result<Deleted, ArchiveError> {
    let broker = &world.world.cortex.broker;
    let config = LogConfig { retention_months: months, ..world.world.config.log.clone() };
    let mut owner = connect_as_owner(&world.world.config.database).await?;
    let before = (month(before, world.now())?, OPERATOR.to_owned());
    let done =
        drop_before(world.pool(), &mut owner, &config, &[], before, broker.recorder.stamp(), |_, _| {});
    Ok(done.await?.1)
}

async fn hold(world: &TestWorld, who: &str, body: Value) -> Answer {
    let admin = world.person(who, &["cortex-admins"]);
    world.as_person(Method::POST, "/v1/log/holds", &admin, Some(body)).await
}

async fn lift(world: &TestWorld, who: &str, id: &str) -> Answer {
    let admin = world.person(who, &["cortex-admins"]);
    world.as_person(Method::DELETE, &format!("/v1/log/holds/{id}"), &admin, None).await
}

async fn rows_of(world: &TestWorld, run: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM record WHERE run_id = $1 AND kind NOT LIKE 'log.%'")
        .bind(run)
        .fetch_one(world.pool())
        .await
        .unwrap()
}

async fn as_auditor(world: &TestWorld, path: &str) -> (StatusCode, String) {
    let dave = world.person("dave", &["auditors"]);
    let answer = world.http.get(world.url(path)).bearer_auth(dave).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The receipt becomes a proof, as `cortex log prove` asks for it.
async fn proven(world: &TestWorld, receipt: &Receipt) {
    let Seal { chain, batch, place, .. } = Seal::parse(&receipt.seal).unwrap();
    let hash = receipt.leaf_hash.to_string().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let path = format!("/v1/log/proof?chain={chain}&batch={batch}&place={place}&leaf_hash={hash}");
    let (status, proof) = as_auditor(world, &path).await;
    assert_eq!(status, StatusCode::OK, "{proof}");
    let ProofFile { index, hashes, checkpoint } = proof.parse().unwrap();
    let covers = Checkpoint::open_under(&checkpoint, &key(world)).unwrap();
    verify_inclusion(receipt.leaf_hash, index, covers.size, covers.root, &hashes).unwrap();
}

/// An export wants the archive's files, and is whole with them.
async fn exported_with(world: &TestWorld, archive: &Path) {
    let export = tempfile::tempdir().unwrap();
    let error = cortex_server::log::export(world.pool(), export.path(), false, |_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("in the archive"), "{error}");
    let bundle = "2026/tile/entries/000";
    std::fs::create_dir_all(export.path().join("2026/tile/entries")).unwrap();
    std::fs::copy(archive.join(bundle), export.path().join(bundle)).unwrap();
    cortex_server::log::export(world.pool(), export.path(), false, |_, _| {}).await.unwrap();
}

#[tokio::test]
async fn old_months_are_archived_and_dropped_and_everything_can_still_be_proven() {
    let (world, receipts, older) = three_months().await;
    let place = tempfile::tempdir().unwrap();
    let archived = archive_to(&world, &folder(place.path()), "2026-12").await.unwrap();
    let november: i64 =
        sqlx::query_scalar("SELECT max(size) FROM log_month_end").fetch_one(world.pool()).await.unwrap();
    assert_eq!(archived, [november.unsigned_abs()], "the archive ends with the last checkpoint of November");
    assert!(archived[0] >= older.size);
    let held = hold(
        &world,
        "erin",
        json!({"scope": {"kind": "run", "dag_id": "hello_cortex", "run_id": "nov3-3"},
                                          "reason": "case 42"}),
    );
    assert_eq!(held.await.status, StatusCode::CREATED);
    let facts = "SELECT (SELECT count(*) FROM record_fact) + (SELECT count(*) FROM record_rule)";
    let before: i64 = sqlx::query_scalar(facts).fetch_one(world.pool()).await.unwrap();

    let Deleted { dropped, kept } = drop_old(&world, "2026-12", Some(1)).await.unwrap();
    assert!(dropped > 200 && kept >= 2, "{dropped} {kept}");
    assert_eq!((rows_of(&world, "nov0-0").await, rows_of(&world, "nov3-3").await), (0, 1));
    assert_eq!(rows_of(&world, "dec1").await, 1);
    let after: i64 = sqlx::query_scalar(facts).fetch_one(world.pool()).await.unwrap();
    assert!(after < before, "what was made of the records is there still");

    // The log is whole, it continues what an auditor kept, and each receipt is kept.
    round(&world).await;
    let summary = verify(world.pool(), &key(&world), vec![older.clone()], |_, _| {}).await.unwrap();
    // A bundle, but for the tree's opening, and perhaps a batch that only a part of is in it.
    assert!(summary.skipped > 240, "{summary:?}");
    for receipt in receipts.iter().step_by(40).chain(receipts.last()) {
        proven(&world, receipt).await;
    }
    let (status, why) = as_auditor(&world, "/v1/log/2026/tile/entries/000").await;
    assert_eq!(status, StatusCode::GONE);
    assert!(why.contains(&place.path().display().to_string()), "{why}");
    assert_eq!(as_auditor(&world, "/v1/log/2026/tile/0/000").await.0, StatusCode::OK);
    exported_with(&world, place.path()).await;
    // Life goes on; what follows is archived to the same place, and the hold is lifted by another admin.
    issue(&world, "later").await;
    round(&world).await;
    let holds = as_auditor(&world, "/v1/log/holds?in_force=true").await.1;
    let holds: Value = serde_json::from_str(&holds).unwrap();
    let id = holds["holds"][0]["id"].as_str().unwrap();
    assert_eq!(lift(&world, "erin", id).await.status, StatusCode::FORBIDDEN);
    assert_eq!(lift(&world, "frank", id).await.status, StatusCode::OK);
    assert_eq!(lift(&world, "frank", id).await.status, StatusCode::CONFLICT);
    let february: Timestamp = "2027-02-01T02:00:00Z".parse().unwrap();
    world.clock.advance(february.duration_since(world.now()));
    issue(&world, "feb").await;
    round(&world).await;
    caught_up(&world).await;
    let archived = archive_to(&world, &folder(place.path()), "2027-01").await.unwrap();
    assert_eq!(archived.len(), 1);
    drop_old(&world, "2027-01", Some(1)).await.unwrap();
    assert_eq!((rows_of(&world, "nov3-3").await, rows_of(&world, "dec1").await), (0, 0));
    assert_eq!((rows_of(&world, "jan1").await, rows_of(&world, "feb").await), (1, 1));
    round(&world).await;
    assert_eq!(finding(&world).await, None);
    proven(&world, &receipts[33]).await;
    issue(&world, "last").await;
}

#[tokio::test]
async fn an_archive_in_a_bucket_is_resumed_and_read_back() {
    let objects = Objects::start().await;
    let (world, ..) = three_months().await;
    let place = Place::open("s3://cortex-log/archive", &objects.config()).unwrap();
    let recorded = async || world.record(&["log.archived"]).await;
    objects.fault("PutObject", FaultMode::Down, None);
    assert!(matches!(archive_to(&world, &place, "2026-12").await, Err(ArchiveError::Place(_))));
    objects.clear_faults();
    objects.fault("GetObject", FaultMode::Garbage, None);
    assert!(archive_to(&world, &place, "2026-12").await.is_err());
    objects.clear_faults();
    assert!(recorded().await.is_empty(), "what is not verified is not archived");
    objects.fault("PutObject", FaultMode::FailAfterMint, Some(1));
    let november = archive_to(&world, &place, "2026-12").await.unwrap();
    let all = archive_to(&world, &place, "2027-01").await.unwrap();
    assert!(all[0] > november[0]);
    let recorded = recorded().await;
    assert_eq!(recorded.len(), 2);
    let second = recorded.iter().find(|leaf| leaf["trees"][0]["size"] == all[0]).expect("the second");
    assert_eq!(second["place"], "s3://cortex-log/archive");
    assert_eq!(second["by"], OPERATOR);
}

#[tokio::test]
async fn a_damaged_archive_is_named_and_nothing_is_dropped_without_one() {
    let (world, ..) = three_months().await;
    assert!(matches!(drop_old(&world, "2026-12", Some(1)).await, Err(ArchiveError::NotArchived)));
    let place = tempfile::tempdir().unwrap();
    archive_to(&world, &folder(place.path()), "2026-12").await.unwrap();
    let recorded = world.record(&["log.archived"]).await.len();
    let bundle = place.path().join("2026/tile/entries/000");
    let whole = std::fs::read(&bundle).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    for (damage, file) in [(bytes, &bundle), (whole[..at].to_vec(), &bundle)] {
        std::fs::write(file, damage).unwrap();
        let error = archive_to(&world, &folder(place.path()), "2026-12").await.unwrap_err();
        assert!(error.to_string().contains("the archive is not whole"), "{error}");
    }
    std::fs::remove_file(&bundle).unwrap();
    assert!(archive_to(&world, &folder(place.path()), "2026-12").await.is_err());
    assert_eq!(world.record(&["log.archived"]).await.len(), recorded);
    // The archive of another log is not written over.
    let other = TestWorld::start().await;
    issue(&other, "r1").await;
    round(&other).await;
    let february: Timestamp = "2027-02-01T02:00:00Z".parse().unwrap();
    other.clock.advance(february.duration_since(other.now()));
    let error = archive_to(&other, &folder(place.path()), "2027-01").await.unwrap_err();
    assert!(error.to_string().contains("is not this log's"), "{error}");
}

#[tokio::test]
async fn records_stay_as_long_as_they_have_to() {
    let (world, ..) = three_months().await;
    let place = tempfile::tempdir().unwrap();
    assert!(matches!(
        archive_to(&world, &folder(place.path()), "2027-02").await,
        Err(ArchiveError::Future(_))
    ));
    assert!(matches!(
        archive_to(&world, &folder(place.path()), "2026-11").await,
        Err(ArchiveError::Nothing(_))
    ));
    archive_to(&world, &folder(place.path()), "2027-01").await.unwrap();
    assert!(matches!(drop_old(&world, "2026-12", None).await, Err(ArchiveError::KeptForGood)));
    let error = drop_old(&world, "2027-01", Some(1)).await.unwrap_err();
    assert!(error.to_string().contains("name 2026-12 or an earlier month"), "{error}");
    // Everything is held, by whatever hold covers it.
    let all = json!({"scope": {"kind": "everything"}, "until": "2026-12-01T00:00:00Z", "reason": "case 1"});
    assert_eq!(hold(&world, "erin", all).await.status, StatusCode::CREATED);
    let Deleted { dropped, .. } = drop_old(&world, "2026-12", Some(1)).await.unwrap();
    assert_eq!((dropped, rows_of(&world, "nov0-0").await), (0, 1));
    round(&world).await;
    assert_eq!(finding(&world).await, None);
    can_only_be_deleted_where_they_are_dropped(&world).await;
}

/// Neither by the server's role nor, beyond what is dropped, by the owner of the tables.
async fn can_only_be_deleted_where_they_are_dropped(world: &TestWorld) {
    let refused = async |connection: &mut sqlx::PgConnection, sql: &'static str| {
        sqlx::query(sql).execute(connection).await.unwrap_err().to_string()
    };
    let mut server = world.pool().acquire().await.unwrap();
    assert!(refused(&mut server, "DELETE FROM record").await.contains("permission denied"));
    assert!(refused(&mut server, "UPDATE log_drop SET upto = 1000").await.contains("permission denied"));
    drop(server);
    let mut owner = connect_as_owner(&world.world.config.database).await.unwrap();
    assert!(refused(&mut owner, "DELETE FROM record").await.contains("append-only"));
    assert!(refused(&mut owner, "DELETE FROM record_fact").await.contains("append-only"));
    assert!(refused(&mut owner, "TRUNCATE record").await.contains("append-only"));
}

#[tokio::test]
async fn a_hold_covers_what_its_scope_says() {
    let world = TestWorld::start().await;
    for (body, status) in [
        (json!({"scope": {"kind": "everything"}}), 400),
        (json!({"scope": {"kind": "everything"}, "reason": " "}), 422),
        (json!({"scope": {"kind": "galaxy"}, "reason": "x"}), 400),
        (
            json!({"scope": {"kind": "everything"}, "reason": "x", "from": "2026-01-02T00:00:00Z",
                "until": "2026-01-02T00:00:00Z"}),
            422,
        ),
    ] {
        assert_eq!(hold(&world, "erin", body.clone()).await.status.as_u16(), status, "{body}");
    }
    let dave = world.person("dave", &["auditors"]);
    let body = json!({"scope": {"kind": "everything"}, "reason": "x"});
    let answer = world.as_person(Method::POST, "/v1/log/holds", &dave, Some(body)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let body =
        json!({"scope": {"kind": "dag", "dag_id": "d"}, "from": "2026-01-01T00:00:00Z", "reason": "case 7"});
    let set = hold(&world, "erin", body).await;
    assert_eq!(set.status, StatusCode::CREATED, "{set:?}");
    let id = set.body["id"].as_str().unwrap().to_owned();
    let (status, shown) = as_auditor(&world, &format!("/v1/log/holds/{id}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), set.body);
    assert_eq!(lift(&world, "frank", &id).await.body["lifted_by"], "person:staff:frank");
    let recorded = world.record(&["log.hold_set"]).await;
    assert_eq!((&recorded[0]["reason"], &recorded[0]["hold_id"]), (&json!("case 7"), &json!(id)));
    let recorded = world.record(&["log.hold_lifted"]).await;
    assert_eq!((&recorded[0]["by"], &recorded[0]["hold_id"]), (&json!("person:staff:frank"), &json!(id)));
}

#[tokio::test]
async fn what_a_hold_covers_stays_and_the_rest_goes() {
    let (world, ..) = three_months().await;
    let place = tempfile::tempdir().unwrap();
    archive_to(&world, &folder(place.path()), "2026-12").await.unwrap();
    let principal: String = sqlx::query_scalar("SELECT principal FROM record WHERE run_id = 'nov1-1'")
        .fetch_one(world.pool())
        .await
        .unwrap();
    for scope in [
        // An intent, and with it the outcome, which names no run.
        json!({"kind": "run", "dag_id": "hello_cortex", "run_id": "novaws"}),
        json!({"kind": "principal", "principal": principal}),
        json!({"kind": "policy", "policy": "finance-data-publish"}),
        json!({"kind": "dag", "dag_id": "another"}),
    ] {
        let set = hold(&world, "erin", json!({"scope": scope, "reason": "case 1"})).await;
        assert_eq!(set.status, StatusCode::CREATED, "{set:?}");
    }
    let over = json!({"scope": {"kind": "everything"}, "until": "2026-11-01T00:00:00Z", "reason": "case 2"});
    assert_eq!(hold(&world, "erin", over).await.status, StatusCode::CREATED);
    drop_old(&world, "2026-12", Some(1)).await.unwrap();
    let held = ["novaws", "nov1-1", "denied"];
    for run in held {
        assert_eq!(rows_of(&world, run).await, 1, "{run}");
    }
    assert_eq!((rows_of(&world, "nov0-0").await, rows_of(&world, "nov2-1").await), (0, 0));
    let outcomes: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM record o JOIN record i ON i.issuance_id = o.issuance_id AND i.kind = 'issuance.intent'
         WHERE o.kind = 'issuance.outcome' AND i.run_id = 'novaws'",
    )
    .fetch_one(world.pool())
    .await
    .unwrap();
    assert_eq!(outcomes, 1, "the outcome of what is held");
    round(&world).await;
    assert_eq!(finding(&world).await, None);
}

#[tokio::test]
async fn a_row_that_is_gone_without_a_record_that_says_so_is_a_fault() {
    let (world, ..) = three_months().await;
    assert_eq!(finding(&world).await, None);
    // The table alone does not make it right.
    let mut administrator = administrator(&world).await;
    for sql in [
        "INSERT INTO log_drop VALUES (1, 256, 's3://nowhere')",
        "DELETE FROM record r USING log_batch b WHERE b.chain = r.chain AND b.batch = r.batch AND b.shard = 1
             AND b.first > 0 AND b.first + b.count <= 256",
    ] {
        sqlx::query(sql).execute(&mut administrator).await.unwrap();
    }
    let found = finding(&world).await.expect("a fault");
    assert!(found.contains("is gone"), "{found}");
}
