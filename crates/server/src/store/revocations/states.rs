//! How far the revocation of each issuance has come.

use cortex_core::revocation::State;
use cortex_core::{IssuanceId, RevocationId};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::{StoreError, timestamp};

/// One issuance of a revocation, and how far it has come.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Hit {
    /// The issuance.
    #[schema(value_type = Uuid)]
    pub issuance_id: IssuanceId,
    /// The provider.
    pub provider: String,
    /// What the cloud has to change, such as a role's ARN; none where no cloud has a part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When the credential expires; of one that was on its way, at the latest.
    #[schema(value_type = String, format = DateTime)]
    pub credential_expires_at: Timestamp,
    /// `state` is `pending` with `attempts` and `last_error`, `enforced` with `at` and `evidence`, or `expires_at`
    /// with `time` and `why`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub state: State,
}

#[derive(sqlx::FromRow)]
struct HitRow {
    issuance_id: Uuid,
    provider: String,
    target: String,
    expires_at: i64,
    state: String,
    settled_at: Option<i64>,
    evidence: Option<Value>,
    why: Option<String>,
    attempts: Option<i32>,
    last_error: Option<String>,
}

/// The columns of a [`HitRow`].
macro_rules! select_hit {
    ($rest:literal) => {
        concat!(
            "SELECT l.issuance_id, l.provider, l.target,
                    (extract(epoch FROM l.expires_at) * 1000000)::int8 AS expires_at, l.state,
                    (extract(epoch FROM l.settled_at) * 1000000)::int8 AS settled_at, l.evidence, l.why, t.attempts,
                    t.last_error
             FROM revoked_lease l LEFT JOIN revocation_target t USING (provider, target) ",
            $rest
        )
    };
}

impl TryFrom<HitRow> for Hit {
    type Error = StoreError;

    fn try_from(row: HitRow) -> Result<Self, StoreError> {
        let HitRow {
            issuance_id,
            provider,
            target,
            expires_at,
            state,
            settled_at,
            evidence,
            why,
            attempts,
            last_error,
        } = row;
        let expires_at = timestamp(expires_at)?;
        let state = match (state.as_str(), settled_at, evidence, why) {
            ("pending", None, None, None) => State::Pending { attempts: attempts.unwrap_or(0), last_error },
            ("enforced", Some(at), Some(evidence), None) => State::Enforced { at: timestamp(at)?, evidence },
            ("expires_at", Some(_), None, Some(why)) => State::ExpiresAt { time: expires_at, why },
            _ => {
                return Err(StoreError::Corrupt(format!(
                    "the revocation of {issuance_id} has no such state"
                )));
            }
        };
        let target = Some(target).filter(|target| !target.is_empty());
        Ok(Self {
            issuance_id: issuance_id.into(),
            provider,
            target,
            credential_expires_at: expires_at,
            state,
        })
    }
}

/// The issuances of a revocation after `after`, in the order of their ids.
pub async fn hits(
    pool: &PgPool,
    revocation: RevocationId,
    after: Option<IssuanceId>,
    limit: i64,
) -> Result<Vec<Hit>, StoreError> {
    let rows: Vec<HitRow> = sqlx::query_as(select_hit!(
        "JOIN revocation_hit h USING (issuance_id)
         WHERE h.revocation_id = $1 AND ($2::uuid IS NULL OR l.issuance_id > $2)
         ORDER BY l.issuance_id LIMIT $3"
    ))
    .bind(revocation.uuid())
    .bind(after.map(IssuanceId::uuid))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Hit::try_from).collect()
}

/// How far the revocation of one issuance has come, if it is revoked.
pub async fn of_issuance(pool: &PgPool, id: Uuid) -> Result<Option<Hit>, StoreError> {
    let row: Option<HitRow> =
        sqlx::query_as(select_hit!("WHERE l.issuance_id = $1")).bind(id).fetch_optional(pool).await?;
    row.map(Hit::try_from).transpose()
}
