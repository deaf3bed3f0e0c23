//! How grants end without a decision: withdrawn, over, or void.

use cortex_core::grant::{Asked, Grant};
use cortex_core::record::{GrantEnd, What};
use cortex_core::{Digest, IssuerName, PolicyName};
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::super::draft::Draft;
use super::super::row::{Stamp, insert};
use super::super::{StoreError, micros};
use super::corrupt;

/// The most grants that one transaction ends because their time is over.
const PAGE: i64 = 500;

/// How a grant ended.
pub(super) struct Ended<'a> {
    /// `withdrawn`, `expired` or `voided`.
    pub(super) status: &'static str,
    /// Who ended it, as principal.
    pub(super) by: Option<&'a str>,
    /// Why.
    pub(super) because: Option<&'a str>,
}

/// What a policy's change makes void: every live grant of another version than `keep`; of every version without one.
pub(in crate::store) struct Void<'a> {
    /// The policy.
    pub(in crate::store) policy: &'a str,
    /// The version in force from now on.
    pub(in crate::store) keep: Option<Digest>,
    /// What changed, in one sentence without its full stop.
    pub(in crate::store) because: &'a str,
}

#[derive(sqlx::FromRow)]
struct EndedRow {
    id: Uuid,
    kind: String,
    policy: String,
    request_digest: Vec<u8>,
    dag_id: String,
    run_id: Option<String>,
    was: String,
}

/// Ends one grant that the caller has locked.
pub(super) async fn end(
    tx: &mut PgConnection,
    grant: &Grant,
    ended: Ended<'_>,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE grant_request SET status = $2, ended_by = $3, ended_because = $4,
                ended_at = timestamptz 'epoch' + $5 * interval '1 microsecond'
         WHERE id = $1",
    )
    .bind(grant.id.uuid())
    .bind(ended.status)
    .bind(ended.by)
    .bind(ended.because)
    .bind(micros(stamp.clock.now()))
    .execute(&mut *tx)
    .await?;
    let kind = match &grant.asked {
        Asked::Run { .. } => "run",
        Asked::Standing { .. } => "standing",
    };
    let row = EndedRow {
        id: grant.id.uuid(),
        kind: kind.to_owned(),
        policy: grant.policy.to_string(),
        request_digest: grant.request_digest.as_bytes().to_vec(),
        dag_id: grant.dag_id().to_string(),
        run_id: grant.run_id().map(ToString::to_string),
        was: grant.state.name().to_owned(),
    };
    record(tx, vec![row], &ended, stamp).await
}

/// Ends every grant whose time is over, in the background; answers how many.
pub async fn expire_due(pool: &PgPool, stamp: &Stamp) -> Result<usize, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let ended = expire(&mut tx, None, stamp).await?;
    tx.commit().await?;
    Ok(ended)
}

/// Ends what is over: for this request, or for every one, a page at a time.
pub(super) async fn expire(
    tx: &mut PgConnection,
    only: Option<Digest>,
    stamp: &Stamp,
) -> Result<usize, StoreError> {
    let rows: Vec<EndedRow> = sqlx::query_as(
        "WITH due AS (SELECT id, status FROM grant_request
                      WHERE status IN ('requested', 'approved')
                        AND expires_at <= timestamptz 'epoch' + $1 * interval '1 microsecond'
                        AND ($2::bytea IS NULL OR request_digest = $2)
                      ORDER BY id LIMIT $3 FOR UPDATE)
         UPDATE grant_request g SET status = 'expired' FROM due WHERE g.id = due.id
         RETURNING g.id, g.kind, g.policy, g.request_digest, g.dag_id, g.run_id, due.status AS was",
    )
    .bind(micros(stamp.clock.now()))
    .bind(only.as_ref().map(|digest| digest.as_bytes().as_slice()))
    .bind(PAGE)
    .fetch_all(&mut *tx)
    .await?;
    let count = rows.len();
    record(tx, rows, &Ended { status: "expired", by: None, because: None }, stamp).await?;
    Ok(count)
}

/// Makes void what a policy's change makes void. The caller has changed the policy's head in this transaction, so
/// that no request of the old version can be made any more.
pub(in crate::store) async fn void(
    tx: &mut PgConnection,
    void: Void<'_>,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let rows: Vec<EndedRow> = sqlx::query_as(
        "WITH live AS (SELECT id, status FROM grant_request
                       WHERE policy = $1 AND status IN ('requested', 'approved')
                         AND expires_at > timestamptz 'epoch' + $4 * interval '1 microsecond'
                         AND ($2::bytea IS NULL OR policy_digest <> $2)
                       ORDER BY id FOR UPDATE)
         UPDATE grant_request g SET status = 'voided', ended_because = $3,
                ended_at = timestamptz 'epoch' + $4 * interval '1 microsecond'
         FROM live WHERE g.id = live.id
         RETURNING g.id, g.kind, g.policy, g.request_digest, g.dag_id, g.run_id, live.status AS was",
    )
    .bind(void.policy)
    .bind(void.keep.as_ref().map(|digest| digest.as_bytes().as_slice()))
    .bind(void.because)
    .bind(micros(stamp.clock.now()))
    .fetch_all(&mut *tx)
    .await?;
    record(tx, rows, &Ended { status: "voided", by: None, because: Some(void.because) }, stamp).await
}

/// What is somebody's of the requests that wait: they asked for it, they started its run, or they decided on it.
pub(in crate::store) struct Theirs<'a> {
    /// Their issuer.
    pub(in crate::store) issuer: &'a IssuerName,
    /// Its name for them.
    pub(in crate::store) subject: &'a str,
    /// What else they are called, in lower case.
    pub(in crate::store) names: &'a [String],
    /// Their principal, as it is and as the log has it.
    pub(in crate::store) principals: [&'a str; 2],
}

/// Withdraws what waits and is somebody's, because they are erased; answers how many requests those were.
pub(in crate::store) async fn withdraw_theirs(
    tx: &mut PgConnection,
    theirs: &Theirs<'_>,
    by: &str,
    stamp: &Stamp,
) -> Result<usize, StoreError> {
    const BECAUSE: &str = "somebody who asked for it, started its run or decided on it was erased; ask again";
    let rows: Vec<EndedRow> = sqlx::query_as(
        "WITH theirs AS (SELECT g.id, g.status FROM grant_request g
                         WHERE g.status = 'requested'
                           AND ((g.kind = 'standing' AND g.requester ->> 'issuer' = $1 AND g.requester ->> 'subject' = $2)
                                OR lower(g.triggering_user) = ANY($3)
                                OR EXISTS (SELECT FROM grant_decision d
                                           WHERE d.grant_id = g.id AND d.person = ANY($4)))
                         ORDER BY g.id FOR UPDATE)
         UPDATE grant_request g SET status = 'withdrawn', ended_by = $5, ended_because = $6,
                ended_at = timestamptz 'epoch' + $7 * interval '1 microsecond'
         FROM theirs WHERE g.id = theirs.id
         RETURNING g.id, g.kind, g.policy, g.request_digest, g.dag_id, g.run_id, theirs.status AS was",
    )
    .bind(theirs.issuer.as_str())
    .bind(theirs.subject)
    .bind(theirs.names)
    .bind(theirs.principals)
    .bind(by)
    .bind(BECAUSE)
    .bind(micros(stamp.clock.now()))
    .fetch_all(&mut *tx)
    .await?;
    let count = rows.len();
    let ended = Ended { status: "withdrawn", by: Some(by), because: Some(BECAUSE) };
    record(tx, rows, &ended, stamp).await?;
    Ok(count)
}

async fn record(
    tx: &mut PgConnection,
    rows: Vec<EndedRow>,
    ended: &Ended<'_>,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<Draft> = rows
        .into_iter()
        .map(|row| stamp.draft(what(row, ended)?).map_err(corrupt))
        .collect::<Result<_, StoreError>>()?;
    insert(tx, &rows, stamp).await?;
    Ok(())
}

fn what(row: EndedRow, ended: &Ended<'_>) -> Result<What, StoreError> {
    let EndedRow { id, kind, policy, request_digest, dag_id, run_id, was } = row;
    let end = GrantEnd {
        grant_id: id.into(),
        policy: policy.parse::<PolicyName>().map_err(corrupt)?,
        request_digest: request_digest.as_slice().try_into().map_err(corrupt)?,
        dag_id,
        run_id,
        was,
        status: ended.status.to_owned(),
        by: ended.by.map(str::to_owned),
        because: ended.because.map(str::to_owned),
    };
    Ok(match (kind.as_str(), ended.status) {
        ("standing", _) => What::PreapprovalEnded(end),
        (_, "withdrawn") => What::GrantWithdrawn(end),
        (_, "voided") => What::GrantVoided(end),
        _ => What::GrantExpired(end),
    })
}
