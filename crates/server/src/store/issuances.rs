//! Reading the record: issuances with their outcomes, denials, and one of them whole.

mod search;

use cortex_core::{Digest, IssuanceId};
use jiff::{Timestamp, civil};
use serde::Serialize;
use serde_json::Value;
use sqlx::error::DatabaseError;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{StoreError, micros, personal, timestamp};

/// What is listed where no kind is asked for.
pub const DECISIONS: [&str; 3] = ["issuance.intent", "issuance.issued", "denial"];

/// What Postgres says to a time zone that it does not know (`invalid_parameter_value`).
const INVALID_PARAMETER: &str = "22023";

/// Office hours, Monday to Friday.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficeHours {
    /// When they begin, included.
    pub open: civil::Time,
    /// When they end, excluded.
    pub close: civil::Time,
    /// Where, as an IANA time zone.
    pub timezone: String,
}

/// What to look for; everything that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The kinds of records; none for issuances and denials.
    pub kinds: Vec<String>,
    /// What was accessed: a role, a project, an account's role or an audience.
    pub target: Option<String>,
    /// A rule that denied.
    pub rule: Option<String>,
    /// The version of the policy.
    pub policy_digest: Option<Digest>,
    /// Who started the run, as its Airflow calls them.
    pub triggering_user: Option<String>,
    /// Only what let a run in although the policy was closed, or asked to.
    pub break_glass: bool,
    /// Only what was outside of these hours.
    pub outside: Option<OfficeHours>,
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

impl Filter {
    /// Whether anything is asked that only a record's facts say; those are known a little later.
    pub fn asks_facts(&self) -> bool {
        self.rule.is_some() || self.asks_record_facts()
    }

    fn asks_record_facts(&self) -> bool {
        self.target.is_some()
            || self.policy_digest.is_some()
            || self.triggering_user.is_some()
            || self.break_glass
    }
}

/// One record in short, with its outcome where it is an issuance.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Issuance {
    /// The row's id, which the next page starts after.
    pub id: Uuid,
    /// What kind of record it is.
    pub kind: String,
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
    /// `issued`, `failed`, `indeterminate`, `open` or `denied`; none for another kind of record.
    pub outcome: Option<String>,
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
    kind: String,
    issuance_id: Option<Uuid>,
    at: i64,
    principal: Option<String>,
    dag_id: Option<String>,
    run_id: Option<String>,
    task_id: Option<String>,
    policy: Option<String>,
    provider: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    grant_id: Option<Uuid>,
    expires_at: Option<i64>,
}

impl TryFrom<IssuanceRow> for Issuance {
    type Error = StoreError;

    fn try_from(row: IssuanceRow) -> Result<Self, StoreError> {
        let IssuanceRow {
            id,
            kind,
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
            kind,
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

/// The records that fit, newest first.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<Issuance>, StoreError> {
    let names = search::Names::of(pool, filter).await?;
    let mut query = search::query(filter, &names);
    // Planned for these very values each time: which index serves best depends on them.
    let found = query.build_query_as().persistent(false).fetch_all(pool).await;
    let rows: Vec<IssuanceRow> =
        found.map_err(|error| match error.as_database_error().and_then(DatabaseError::code) {
            Some(code) if code == INVALID_PARAMETER && filter.outside.is_some() => {
                StoreError::UnknownTimezone
            }
            _ => error.into(),
        })?;
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
    let leaves = personal::open_leaves(pool, leaves.iter().map(Vec::as_slice)).await?;
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
