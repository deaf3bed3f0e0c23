//! Records that nobody has to wait for.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::tell;

/// How long the log may take to catch up.
const PATIENCE: Duration = Duration::from_mins(5);
/// How many rows one statement writes.
const PAGE: i64 = 250_000;

/// Makes a record that has `from` such rows have `to`: copies of its last mint, as of the months before, whose ids,
/// times, runs, DAGs and policies differ as they would. Their leaves are short, so that ten million fit on a disk.
pub(crate) async fn lengthen(database_url: &str, from: i64, to: i64) {
    let mut owner = PgConnection::connect(database_url).await.expect("a connection");
    let mut first = from + 1;
    while first <= to {
        let last = to.min(first + PAGE - 1);
        copy_mint(&mut owner, first, last).await;
        if to > PAGE {
            tell(&format!("{last} of {to} rows"));
        }
        first = last + 1;
    }
    for statement in ["VACUUM (ANALYZE) record", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut owner).await.expect(statement);
    }
    owner.close().await.expect("to close");
}

/// Waits until everything that was sealed is in the log's tree: who applies many policies leaves much to be done.
pub(crate) async fn settled(database_url: &str) {
    let mut owner = PgConnection::connect(database_url).await.expect("a connection");
    let behind = async {
        let behind = "SELECT EXISTS (SELECT FROM log_chain WHERE sequenced < head)";
        while sqlx::query_scalar(behind).fetch_one(&mut owner).await.expect("an answer") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, behind).await.expect("the log catches up");
}

async fn copy_mint(owner: &mut PgConnection, first: i64, last: i64) {
    sqlx::query(
        "WITH one AS (SELECT * FROM record WHERE kind = 'issuance.issued' ORDER BY id DESC LIMIT 1),
              copy AS (
                  SELECT i, one.*, one.at - (i * interval '2 seconds') AS past,
                         md5(i::text) AS noise, md5('issuance' || i) AS other
                  FROM one, generate_series($1::int8, $2::int8) AS i),
              stamped AS (
                  SELECT *, lpad(to_hex((extract(epoch FROM past) * 1000)::int8), 12, '0') AS ms FROM copy)
         INSERT INTO record (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy,
                             policy_digest, provider, outcome, expires_at, leaf)
         SELECT (ms || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid, past, kind,
                (ms || '7' || substr(other, 1, 3) || '8' || substr(other, 4, 15))::uuid, principal || i, issuer,
                'dag_' || i % 2000, 'scheduled__' || i / 20, task_id, 'policy-' || i % 200,
                policy_digest, provider, outcome, past + interval '30 minutes', '{}'::bytea
         FROM stamped",
    )
    .bind(first)
    .bind(last)
    .execute(owner)
    .await
    .expect("rows");
}

/// Puts `leases` sessions of one role on record, which live for half an hour.
pub(crate) async fn live_leases(owner: &mut PgConnection, leases: i64) {
    sqlx::query(
        "WITH t AS (SELECT lpad(to_hex((extract(epoch FROM now()) * 1000)::int8 - 60000), 12, '0') || '7000'
                           || '8' || substr(md5(random()::text || n), 1, 15) AS hex
                    FROM generate_series(1, $1::int8) AS n),
              i AS (SELECT hex::uuid AS id FROM t)
         INSERT INTO record (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy, provider,
                             outcome, expires_at, leaf)
         SELECT id, now(), 'issuance.issued', id, 'run:prod:many:r:t:-:1', 'prod', 'many', 'r', 't', 'bench-0', 'aws',
                'issued', now() + interval '30 minutes',
                convert_to(jsonb_build_object('revocation', jsonb_build_object(
                    'by', 'aws_deny', 'role_arn', 'arn:aws:iam::123456789012:role/finance-publish'))::text, 'UTF8')
         FROM i",
    )
    .bind(leases)
    .execute(&mut *owner)
    .await
    .expect("rows");
}
