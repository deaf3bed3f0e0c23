//! Records that nobody has to wait for.

use sqlx::PgConnection;

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
