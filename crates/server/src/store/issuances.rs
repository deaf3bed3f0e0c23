//! Reading the record: issuances with their outcomes, denials, and one of them whole.

use cortex_core::IssuanceId;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{StoreError, micros, timestamp};

/// What to look for; everything that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// The DAG.
    pub dag_id: Option<String>,
    /// The DAG run.
    pub run_id: Option<String>,
    /// The task.
    pub task_id: Option<String>,
    /// The principal, as one string.
    pub principal: Option<String>,
    /// The policy.
    pub policy: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// `issued`, `failed`, `indeterminate`, `open` or `denied`.
    pub outcome: Option<String>,
    /// Somebody who approved the grant that it rests on, as principal.
    pub approver: Option<String>,
    /// Older than this row: the cursor.
    pub before: Option<Uuid>,
    /// How many at the most.
    pub limit: i64,
}

/// One issuance or denial, in short.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Issuance {
    /// The row's id, which the next page starts after.
    pub id: Uuid,
    /// The issuance; none for a denial.
    pub issuance_id: Option<Uuid>,
    /// When it was opened or denied.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who asked.
    pub principal: Option<String>,
    /// The DAG.
    pub dag_id: Option<String>,
    /// The DAG run.
    pub run_id: Option<String>,
    /// The task.
    pub task_id: Option<String>,
    /// The policy.
    pub policy: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// `issued`, `failed`, `indeterminate`, `open` or `denied`.
    pub outcome: String,
    /// Why it was denied or failed, as a short code.
    pub reason: Option<String>,
    /// The grant that it rests on.
    pub grant_id: Option<Uuid>,
    /// When the credential ends; of an open one, at the latest.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct IssuanceRow {
    id: Uuid,
    issuance_id: Option<Uuid>,
    at: i64,
    principal: Option<String>,
    dag_id: Option<String>,
    run_id: Option<String>,
    task_id: Option<String>,
    policy: Option<String>,
    provider: Option<String>,
    outcome: String,
    reason: Option<String>,
    grant_id: Option<Uuid>,
    expires_at: Option<i64>,
}

impl TryFrom<IssuanceRow> for Issuance {
    type Error = StoreError;

    fn try_from(row: IssuanceRow) -> Result<Self, StoreError> {
        let IssuanceRow {
            id,
            issuance_id,
            at,
            principal,
            dag_id,
            run_id,
            task_id,
            policy,
            provider,
            outcome,
            reason,
            grant_id,
            expires_at,
        } = row;
        Ok(Self {
            id,
            issuance_id,
            at: timestamp(at)?,
            principal,
            dag_id,
            run_id,
            task_id,
            policy,
            provider,
            outcome,
            reason,
            grant_id,
            expires_at: expires_at.map(timestamp).transpose()?,
        })
    }
}

/// The issuances and denials that fit, newest first.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<Issuance>, StoreError> {
    let rows: Vec<IssuanceRow> = sqlx::query_as(
        "SELECT o.id, o.issuance_id, (extract(epoch FROM o.at) * 1000000)::int8 AS at, o.principal, o.dag_id,
                o.run_id, o.task_id, o.policy, o.provider,
                CASE WHEN o.kind = 'denial' THEN 'denied' ELSE COALESCE(e.outcome, o.outcome, 'open') END
                    AS outcome,
                COALESCE(e.reason, o.reason) AS reason, o.grant_id,
                (extract(epoch FROM COALESCE(e.expires_at, o.expires_at)) * 1000000)::int8 AS expires_at
         FROM record o
         LEFT JOIN record e ON e.kind = 'issuance.outcome' AND e.issuance_id = o.issuance_id
         WHERE o.kind IN ('issuance.intent', 'issuance.issued', 'denial')
           AND ($1::int8 IS NULL OR o.at >= timestamptz 'epoch' + $1 * interval '1 microsecond')
           AND ($2::int8 IS NULL OR o.at < timestamptz 'epoch' + $2 * interval '1 microsecond')
           AND ($3::text IS NULL OR o.dag_id = $3)
           AND ($4::text IS NULL OR o.run_id = $4)
           AND ($5::text IS NULL OR o.task_id = $5)
           AND ($6::text IS NULL OR o.principal = $6)
           AND ($7::text IS NULL OR o.policy = $7)
           AND ($8::text IS NULL OR o.provider = $8)
           AND ($9::text IS NULL OR $9 = CASE WHEN o.kind = 'denial' THEN 'denied'
                                              ELSE COALESCE(e.outcome, o.outcome, 'open') END)
           AND ($10::text IS NULL OR o.grant_id IN (SELECT grant_id FROM grant_decision
                                                    WHERE person = $10 AND approve))
           AND ($11::uuid IS NULL OR o.id < $11)
         ORDER BY o.id DESC LIMIT $12",
    )
    .bind(filter.since.map(micros))
    .bind(filter.until.map(micros))
    .bind(filter.dag_id.as_deref())
    .bind(filter.run_id.as_deref())
    .bind(filter.task_id.as_deref())
    .bind(filter.principal.as_deref())
    .bind(filter.policy.as_deref())
    .bind(filter.provider.as_deref())
    .bind(filter.outcome.as_deref())
    .bind(filter.approver.as_deref())
    .bind(filter.before)
    .bind(filter.limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Issuance::try_from).collect()
}

/// Everything on record about one issuance, or one denial by its row or its decision id: the entries
/// themselves, oldest first.
pub async fn one(pool: &PgPool, id: Uuid) -> Result<Vec<Value>, StoreError> {
    let leaves: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT leaf FROM record
         WHERE id = $1
            OR (issuance_id = $1 AND kind IN ('issuance.intent', 'issuance.issued'))
            OR (issuance_id = $1 AND kind = 'issuance.outcome')
            OR (decision_id = $1)
         ORDER BY id LIMIT 100",
    )
    .bind(id)
    .fetch_all(pool)
    .await?;
    leaves
        .iter()
        .map(|leaf| serde_json::from_slice(leaf).map_err(|e| StoreError::Corrupt(e.to_string())))
        .collect()
}

/// The record of a credential that Cortex signed itself, and the epoch now; none where there is no such issuance.
pub async fn signed(pool: &PgPool, id: IssuanceId) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
    let found = sqlx::query_as(
        "SELECT r.leaf, e.epoch FROM record r CROSS JOIN release_epoch e
         WHERE r.issuance_id = $1 AND r.kind = 'issuance.issued'",
    );
    Ok(found.bind(id.uuid()).fetch_optional(pool).await?)
}

/// Intents that their replica has given up, and when what they may have minted ends at the latest.
pub async fn overdue(
    executor: impl PgExecutor<'_>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(IssuanceId, Timestamp)>, StoreError> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT issuance_id, (extract(epoch FROM worst_case_expiry) * 1000000)::int8 FROM open_intent
         WHERE deadline < timestamptz 'epoch' + $1 * interval '1 microsecond'
         ORDER BY deadline LIMIT $2",
    )
    .bind(micros(now))
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(|(id, expiry)| Ok((id.into(), timestamp(expiry)?))).collect()
}

/// Forgets spent tokens that nobody could use any more.
pub async fn forget_expired_tokens(
    executor: impl PgExecutor<'_>,
    before: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM spent_token WHERE expires_at < timestamptz 'epoch' + $1 * interval '1 microsecond'",
    )
    .bind(micros(before))
    .execute(executor)
    .await?;
    Ok(())
}

/// Takes an intent off the list of open ones: its outcome is on record.
pub async fn close(executor: impl PgExecutor<'_>, issuance_id: IssuanceId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM open_intent WHERE issuance_id = $1")
        .bind(issuance_id.uuid())
        .execute(executor)
        .await?;
    Ok(())
}
