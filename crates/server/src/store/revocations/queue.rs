//! The queue of what clouds have to change, in Postgres: each target is with one worker at a time, and a worker that
//! dies is relieved when its claim is over.

use std::collections::BTreeMap;

use cortex_core::record::{Settled, SettledHow, What};
use cortex_core::{IssuanceId, credential};
use cortex_providers::RevokedLease;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use crate::store::row::{Stamp, insert};
use crate::store::{StoreError, micros, timestamp};

/// How many leases one target is asked to deny at the most; the others wait until those have expired.
const MAX_LIVE: i64 = 200_000;
/// How many issuances one entry of the record names.
const PAGE: usize = 500;
/// After how many attempts in a row people are told that a cloud does not confirm.
const FAILING_AFTER: i32 = 3;

/// What there is to do.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Due {
    /// A revocation has not found everything that it hits.
    pub to_spread: bool,
    /// Something expired before its cloud confirmed anything.
    pub to_end: bool,
    /// A target waits for a worker.
    pub to_enforce: bool,
}

/// What there is to do: one cheap question, for nearly always there is nothing.
pub async fn due(pool: &PgPool, now: Timestamp) -> Result<Due, StoreError> {
    let due = sqlx::query_as(
        "WITH now AS (SELECT timestamptz 'epoch' + $1 * interval '1 microsecond' AS now)
         SELECT EXISTS (SELECT FROM revocation WHERE NOT spread) AS to_spread,
                EXISTS (SELECT FROM revoked_lease, now WHERE state = 'pending' AND expires_at <= now) AS to_end,
                EXISTS (SELECT FROM revocation_target, now
                        WHERE next_at <= now AND not_before <= now
                          AND (claimed_until IS NULL OR claimed_until <= now)) AS to_enforce",
    );
    Ok(due.bind(micros(now)).fetch_one(pool).await?)
}

/// A target that this worker has to itself.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The provider.
    pub provider: String,
    /// What has to be changed there.
    pub target: String,
    /// How often it failed since it last worked.
    pub attempts: i32,
    wanted: i64,
    claim: Uuid,
}

/// Takes the target that has waited the longest, until `patience` from now.
pub async fn claim(
    pool: &PgPool,
    patience: SignedDuration,
    stamp: &Stamp,
) -> Result<Option<Claimed>, StoreError> {
    let now = stamp.clock.now();
    let claim = cortex_core::RecordId::new(now, stamp.random.id_bits()).uuid();
    let row: Option<(String, String, i32, i64)> = sqlx::query_as(
        "UPDATE revocation_target
         SET claim = $1, claimed_until = timestamptz 'epoch' + $3 * interval '1 microsecond'
         WHERE (provider, target) =
               (SELECT provider, target FROM revocation_target
                WHERE next_at <= timestamptz 'epoch' + $2 * interval '1 microsecond'
                  AND not_before <= timestamptz 'epoch' + $2 * interval '1 microsecond'
                  AND (claimed_until IS NULL OR claimed_until <= timestamptz 'epoch' + $2 * interval '1 microsecond')
                ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING provider, target, attempts, wanted",
    )
    .bind(claim)
    .bind(micros(now))
    .bind(micros(now.saturating_add(patience).unwrap_or(now)))
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(provider, target, attempts, wanted)| Claimed { provider, target, attempts, wanted, claim }))
}

/// Everything that the target has to deny: revoked, and not expired at `not_over`. Newest first.
pub async fn live(
    pool: &PgPool,
    claimed: &Claimed,
    not_over: Timestamp,
) -> Result<Vec<RevokedLease>, StoreError> {
    type Raw = (Uuid, Json<credential::Revocation>, i64, i64, bool);
    let rows: Vec<Raw> = sqlx::query_as(
        "SELECT issuance_id, means, (extract(epoch FROM made_before) * 1000000)::int8,
                (extract(epoch FROM expires_at) * 1000000)::int8, state = 'enforced'
         FROM revoked_lease
         WHERE provider = $1 AND target = $2 AND state IN ('pending', 'enforced')
           AND expires_at > timestamptz 'epoch' + $3 * interval '1 microsecond'
         ORDER BY made_before DESC, issuance_id DESC LIMIT $4",
    )
    .bind(&claimed.provider)
    .bind(&claimed.target)
    .bind(micros(not_over))
    .bind(MAX_LIVE)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(id, means, made_before, expires_at, enforced)| {
            Ok(RevokedLease {
                issuance_id: id.into(),
                means: means.0,
                made_before: timestamp(made_before)?,
                expires_at: timestamp(expires_at)?,
                enforced,
            })
        })
        .collect()
}

/// Writes down how the revocation of `issuances` ended, in bounded steps; what is settled already stays as it is.
pub async fn settle(
    connection: &mut PgConnection,
    claimed: &Claimed,
    issuances: &[IssuanceId],
    how: &SettledHow,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    for page in issuances.chunks(PAGE) {
        let mut tx = connection.begin().await?;
        settle_page(&mut tx, claimed, page, how, stamp).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn settle_page(
    tx: &mut PgConnection,
    claimed: &Claimed,
    page: &[IssuanceId],
    how: &SettledHow,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let (state, evidence, why): (_, Option<&Value>, Option<&str>) = match how {
        SettledHow::Enforced { evidence } => ("enforced", Some(evidence), None),
        SettledHow::ExpiresAt { why } => ("expires_at", None, Some(why)),
    };
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "UPDATE revoked_lease
         SET state = $2, settled_at = timestamptz 'epoch' + $3 * interval '1 microsecond', evidence = $4, why = $5
         WHERE issuance_id = ANY($1) AND state = 'pending'
         RETURNING issuance_id, (extract(epoch FROM expires_at) * 1000000)::int8",
    )
    .bind(page.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(state)
    .bind(micros(stamp.clock.now()))
    .bind(evidence)
    .bind(why)
    .fetch_all(&mut *tx)
    .await?;
    note(tx, &claimed.provider, &claimed.target, how, rows, stamp).await
}

async fn note(
    tx: &mut PgConnection,
    provider: &str,
    target: &str,
    how: &SettledHow,
    rows: Vec<(Uuid, i64)>,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let issuances = rows.into_iter().map(|(id, expires_at)| Ok((id.into(), timestamp(expires_at)?)));
    let settled = Settled {
        provider: provider.to_owned(),
        target: target.to_owned(),
        how: how.clone(),
        issuances: issuances.collect::<Result<_, StoreError>>()?,
    };
    let row =
        stamp.draft(What::RevocationSettled(settled)).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert(tx, &[row], stamp).await?;
    Ok(())
}

/// Gives the target back: it is looked at again at `next_at`, at once if more is wanted by now, and never before
/// `not_before`.
pub async fn release(
    pool: &PgPool,
    claimed: &Claimed,
    next_at: Timestamp,
    not_before: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE revocation_target
         SET claim = NULL, claimed_until = NULL, attempts = 0, last_error = NULL,
             not_before = timestamptz 'epoch' + $6 * interval '1 microsecond',
             next_at = timestamptz 'epoch'
                       + CASE WHEN wanted = $4 THEN $5::int8 ELSE $7::int8 END * interval '1 microsecond'
         WHERE provider = $1 AND target = $2 AND claim = $3",
    )
    .bind(&claimed.provider)
    .bind(&claimed.target)
    .bind(claimed.claim)
    .bind(claimed.wanted)
    .bind(micros(next_at))
    .bind(micros(not_before))
    .bind(micros(now))
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets a target at which nothing has to be denied any more, unless something has since.
pub async fn forget(pool: &PgPool, claimed: &Claimed) -> Result<bool, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM revocation_target WHERE provider = $1 AND target = $2 AND claim = $3 AND wanted = $4",
    )
    .bind(&claimed.provider)
    .bind(&claimed.target)
    .bind(claimed.claim)
    .bind(claimed.wanted)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected() == 1)
}

/// Gives the target back after a failure, to be tried again at `retry_at`. That it keeps failing is on record once,
/// until it has worked again.
pub async fn fail(
    pool: &PgPool,
    claimed: &Claimed,
    error: &str,
    retry_at: Timestamp,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    let attempts: Option<i32> = sqlx::query_scalar(
        "UPDATE revocation_target
         SET claim = NULL, claimed_until = NULL, attempts = attempts + 1, last_error = $4,
             next_at = timestamptz 'epoch' + $5 * interval '1 microsecond'
         WHERE provider = $1 AND target = $2 AND claim = $3
         RETURNING attempts",
    )
    .bind(&claimed.provider)
    .bind(&claimed.target)
    .bind(claimed.claim)
    .bind(error)
    .bind(micros(retry_at))
    .fetch_optional(&mut *tx)
    .await?;
    if attempts == Some(FAILING_AFTER) {
        let what = failing(&mut tx, claimed, error).await?;
        insert(&mut tx, &[stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?], stamp).await?;
    }
    Ok(tx.commit().await?)
}

async fn failing(tx: &mut PgConnection, claimed: &Claimed, error: &str) -> Result<What, StoreError> {
    let Claimed { provider, target, .. } = claimed;
    let pending: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM revoked_lease WHERE provider = $1 AND target = $2 AND state = 'pending'",
    )
    .bind(provider)
    .bind(target)
    .fetch_one(tx)
    .await?;
    let (provider, target, error) = (provider.clone(), target.clone(), error.to_owned());
    Ok(What::RevocationFailing { provider, target, attempts: FAILING_AFTER, pending, error })
}

/// Ends what expired before its cloud confirmed anything: its expiry has ended it. Answers how many there were.
pub async fn end_expired(connection: &mut PgConnection, stamp: &Stamp) -> Result<usize, StoreError> {
    let how = SettledHow::ExpiresAt { why: "it expired before the cloud had confirmed anything".to_owned() };
    let SettledHow::ExpiresAt { why } = &how else { return Ok(0) };
    let mut tx = connection.begin().await?;
    let rows: Vec<(Uuid, i64, String, String)> = sqlx::query_as(
        "UPDATE revoked_lease
         SET state = 'expires_at', settled_at = timestamptz 'epoch' + $1 * interval '1 microsecond', why = $2
         WHERE issuance_id IN (SELECT issuance_id FROM revoked_lease
                               WHERE state = 'pending'
                                 AND expires_at <= timestamptz 'epoch' + $1 * interval '1 microsecond'
                               ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING issuance_id, (extract(epoch FROM expires_at) * 1000000)::int8, provider, target",
    )
    .bind(micros(stamp.clock.now()))
    .bind(why)
    .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
    .fetch_all(&mut *tx)
    .await?;
    let ended = rows.len();
    let mut by_target: BTreeMap<(String, String), Vec<(Uuid, i64)>> = BTreeMap::new();
    for (id, expires_at, provider, target) in rows {
        by_target.entry((provider, target)).or_default().push((id, expires_at));
    }
    for ((provider, target), rows) in by_target {
        note(&mut tx, &provider, &target, &how, rows, stamp).await?;
    }
    tx.commit().await?;
    Ok(ended)
}

/// What no cloud has confirmed yet: how many of each provider, and when the oldest was revoked.
pub async fn debt(pool: &PgPool) -> Result<Vec<(String, i64, Timestamp)>, StoreError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT provider, count(*), (extract(epoch FROM min(revoked_at)) * 1000000)::int8
         FROM revoked_lease WHERE state = 'pending' GROUP BY provider",
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|(provider, count, oldest)| Ok((provider, count, timestamp(oldest)?))).collect()
}
