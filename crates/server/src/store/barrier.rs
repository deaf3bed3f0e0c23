//! What the replicas keep in memory of freezes and revocations.

use cortex_core::revocation::Selector;
use cortex_core::{Freeze, IssuanceId, RevocationId, Scope};
use jiff::Timestamp;
use sqlx::PgPool;
use sqlx::types::Json;
use uuid::Uuid;

use super::freezes::{self, MAX_IN_FORCE};
use super::revocations::MAX_RECENT;
use super::{StoreError, micros, timestamp};

/// A revocation, as far as a release has to know it.
#[derive(Debug, Clone)]
pub struct Recent {
    /// The revocation.
    pub id: RevocationId,
    /// Which issuances.
    pub selector: Selector,
    /// No issuance of a later id is meant.
    pub up_to: IssuanceId,
}

/// Everything that stands in the way of a release.
pub struct Barring {
    /// The epoch of which this is the state, or an earlier one.
    pub epoch: i64,
    /// The freezes that are in force.
    pub freezes: Vec<Freeze>,
    /// The revocations whose credentials may still live.
    pub revocations: Vec<Recent>,
}

#[derive(sqlx::FromRow)]
struct RecentRow {
    id: Uuid,
    issuance_id: Option<Uuid>,
    scope: Option<Json<Scope>>,
    since: Option<i64>,
    up_to: Uuid,
}

impl TryFrom<RecentRow> for Recent {
    type Error = StoreError;

    fn try_from(row: RecentRow) -> Result<Self, StoreError> {
        let RecentRow { id, issuance_id, scope, since, up_to } = row;
        let selector = selector(issuance_id, scope, since)?;
        Ok(Self { id: id.into(), selector, up_to: up_to.into() })
    }
}

pub(super) fn selector(
    issuance_id: Option<Uuid>,
    scope: Option<Json<Scope>>,
    since: Option<i64>,
) -> Result<Selector, StoreError> {
    match (issuance_id, scope) {
        (Some(id), None) => Ok(Selector::Issuance { issuance_id: id.into() }),
        (None, Some(scope)) => {
            Ok(Selector::Within { scope: scope.0, since: since.map(timestamp).transpose()? })
        }
        _ => Err(StoreError::Corrupt("a revocation names both an issuance and a scope, or neither".into())),
    }
}

/// Reads what bars releases: freezes in force, and revocations of `after` or later. The epoch is read first, so that
/// what is read is never older than it says.
pub async fn read(pool: &PgPool, after: Timestamp, now: Timestamp) -> Result<Barring, StoreError> {
    let epoch = freezes::epoch(pool).await?;
    let freezes = freezes::list(pool, true, None, MAX_IN_FORCE, now).await?;
    let rows: Vec<RecentRow> = sqlx::query_as(
        "SELECT id, issuance_id, scope, (extract(epoch FROM since) * 1000000)::int8 AS since, up_to
         FROM revocation WHERE requested_at > timestamptz 'epoch' + $1 * interval '1 microsecond'
         ORDER BY requested_at DESC LIMIT $2",
    )
    .bind(micros(after))
    .bind(MAX_RECENT)
    .fetch_all(pool)
    .await?;
    let revocations = rows.into_iter().map(Recent::try_from).collect::<Result<_, _>>()?;
    Ok(Barring { epoch, freezes: freezes.into_iter().map(|stored| stored.freeze).collect(), revocations })
}
