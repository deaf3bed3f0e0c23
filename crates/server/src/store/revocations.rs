//! Revocations: asked for between two releases, then spread over the issuances that they hit.

mod hits;
pub mod queue;
mod states;

use cortex_core::record::What;
use cortex_core::revocation::Selector;
use cortex_core::{IssuanceId, RevocationId, Scope};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::barrier::selector;
use super::freezes::{self, FreezeError, NewFreeze};
use super::row::{Stamp, insert};
use super::{StoreError, micros, timestamp};

pub use hits::{Preview, preview, spread};
pub use states::{Hit, hits, of_issuance};

/// How many revocations of the last [`LONGEST_LIFE`] there may be: every replica keeps them in memory.
pub const MAX_RECENT: i64 = 10_000;
/// No credential lives longer than this after its issuance was opened: a day for the tokens that Cortex signs, and an
/// hour for clocks and queues.
pub const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(25);

/// Why a revocation was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// There is no such issuance.
    #[error("there is no such issuance")]
    NoIssuance,
    /// There were too many.
    #[error(
        "{MAX_RECENT} revocations were asked for within a day; revoke by DAG, by policy or since a time instead"
    )]
    TooMany,
    /// The freeze that goes with it was not set.
    #[error(transparent)]
    Freeze(FreezeError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RevocationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<FreezeError> for RevocationError {
    fn from(error: FreezeError) -> Self {
        match error {
            FreezeError::Store(error) => Self::Store(error),
            other => Self::Freeze(other),
        }
    }
}

/// What is to be revoked.
#[derive(Debug, Clone)]
pub struct NewRevocation {
    /// Which issuances.
    pub selector: Selector,
    /// Why.
    pub reason: String,
    /// Who asks, as a principal.
    pub by: String,
    /// What is frozen along with it, so that nothing new is issued in the place of what is revoked.
    pub freeze: Option<NewFreeze>,
}

/// A revocation, and how far it has come.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Revocation {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: RevocationId,
    /// Which issuances: `issuance_id`, or `scope` and perhaps `since`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub selector: Selector,
    /// No issuance of a later id is meant: it was opened after the revocation.
    #[schema(value_type = Uuid)]
    pub up_to: IssuanceId,
    /// Why.
    pub reason: String,
    /// Who asked, as a principal.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether every issuance that it hits was found. Until then the counts grow.
    pub complete: bool,
    /// How many issuances no cloud has confirmed yet.
    pub pending: i64,
    /// How many are enforced.
    pub enforced: i64,
    /// How many nothing but their expiry ends.
    pub expires_at: i64,
}

#[derive(sqlx::FromRow)]
struct RevocationRow {
    id: Uuid,
    issuance_id: Option<Uuid>,
    scope: Option<Json<Scope>>,
    since: Option<i64>,
    up_to: Uuid,
    reason: String,
    requested_by: String,
    requested_at: i64,
    spread: bool,
    pending: i64,
    enforced: i64,
    expires_at: i64,
}

/// The columns of a [`RevocationRow`].
macro_rules! select_revocation {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.issuance_id, r.scope, (extract(epoch FROM r.since) * 1000000)::int8 AS since, r.up_to,
                    r.reason, r.requested_by, (extract(epoch FROM r.requested_at) * 1000000)::int8 AS requested_at,
                    r.spread, n.pending, n.enforced, n.expires_at
             FROM revocation r CROSS JOIN LATERAL (
                 SELECT count(*) FILTER (WHERE l.state = 'pending') AS pending,
                        count(*) FILTER (WHERE l.state = 'enforced') AS enforced,
                        count(*) FILTER (WHERE l.state = 'expires_at') AS expires_at
                 FROM revocation_hit h JOIN revoked_lease l USING (issuance_id) WHERE h.revocation_id = r.id) n ",
            $rest
        )
    };
}

impl TryFrom<RevocationRow> for Revocation {
    type Error = StoreError;

    fn try_from(row: RevocationRow) -> Result<Self, StoreError> {
        let RevocationRow {
            id,
            issuance_id,
            scope,
            since,
            up_to,
            reason,
            requested_by,
            requested_at,
            spread,
            pending,
            enforced,
            expires_at,
        } = row;
        Ok(Self {
            id: id.into(),
            selector: selector(issuance_id, scope, since)?,
            up_to: up_to.into(),
            reason,
            by: requested_by,
            at: timestamp(requested_at)?,
            complete: spread,
            pending,
            enforced,
            expires_at,
        })
    }
}

/// Takes a revocation. When this returns, nothing that it means is released or handed out again; what it hits at the
/// clouds is found by [`spread`].
pub async fn request(
    connection: &mut PgConnection,
    new: NewRevocation,
    stamp: &Stamp,
) -> Result<RevocationId, RevocationError> {
    let at = stamp.clock.now();
    let id = RevocationId::new(at, stamp.random.id_bits());
    let mut tx = connection.begin().await?;
    freezes::close_releases(&mut tx).await?;
    refuse_too_many(&mut tx, at).await?;
    let up_to = last_meant(&mut tx, &new.selector).await?;
    if let Some(freeze) = new.freeze.clone() {
        freezes::add(&mut tx, freeze, stamp).await?;
    }
    store(&mut tx, id, &new, up_to, at).await?;
    let NewRevocation { selector, reason, by, freeze: _ } = new;
    let what = What::RevocationRequested { revocation_id: id, selector, up_to, reason, by };
    insert(&mut tx, &[stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?], stamp).await?;
    freezes::next_epoch(&mut tx).await?;
    tx.commit().await?;
    Ok(id)
}

async fn refuse_too_many(tx: &mut PgConnection, now: Timestamp) -> Result<(), RevocationError> {
    let recent: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM revocation
         WHERE requested_at > timestamptz 'epoch' + $1 * interval '1 microsecond'",
    )
    .bind(micros(since_longest_life(now)))
    .fetch_one(tx)
    .await?;
    if recent >= MAX_RECENT { Err(RevocationError::TooMany) } else { Ok(()) }
}

/// The last issuance that can be meant. Releases are closed, so whatever has been opened is there to be seen.
async fn last_meant(tx: &mut PgConnection, selector: &Selector) -> Result<IssuanceId, RevocationError> {
    let one = match selector {
        Selector::Issuance { issuance_id } => Some(issuance_id.uuid()),
        Selector::Within { .. } => None,
    };
    let last: Option<Uuid> = sqlx::query_scalar(
        "SELECT issuance_id FROM record WHERE kind IN ('issuance.intent', 'issuance.issued')
             AND ($1::uuid IS NULL OR issuance_id = $1)
         ORDER BY issuance_id DESC LIMIT 1",
    )
    .bind(one)
    .persistent(false)
    .fetch_optional(tx)
    .await?;
    match (last, one) {
        (None, Some(_)) => Err(RevocationError::NoIssuance),
        (last, _) => Ok(last.unwrap_or_default().into()),
    }
}

async fn store(
    tx: &mut PgConnection,
    id: RevocationId,
    new: &NewRevocation,
    up_to: IssuanceId,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let (issuance_id, scope, since) = match &new.selector {
        Selector::Issuance { issuance_id } => (Some(issuance_id.uuid()), None, None),
        Selector::Within { scope, since } => (None, Some(Json(scope)), *since),
    };
    sqlx::query(
        "INSERT INTO revocation (id, issuance_id, scope, since, up_to, reason, requested_by, requested_at, spread_to)
         VALUES ($1, $2, $3, timestamptz 'epoch' + $4 * interval '1 microsecond', $5, $6, $7,
                 timestamptz 'epoch' + $8 * interval '1 microsecond', $9)",
    )
    .bind(id.uuid())
    .bind(issuance_id)
    .bind(scope)
    .bind(since.map(micros))
    .bind(up_to.uuid())
    .bind(&new.reason)
    .bind(&new.by)
    .bind(micros(at))
    .bind(first_meant(&new.selector, at).uuid())
    .execute(tx)
    .await
    .map(drop)
}

/// Where the search begins: what was opened earlier has expired, or is not meant.
fn first_meant(selector: &Selector, now: Timestamp) -> IssuanceId {
    let since = match selector {
        Selector::Within { since: Some(since), .. } => *since,
        Selector::Within { since: None, .. } | Selector::Issuance { .. } => Timestamp::MIN,
    };
    opened_at(since.max(since_longest_life(now)))
}

/// The least id of what was opened at this time or later: ids begin with their time, in milliseconds.
pub(crate) fn opened_at(at: Timestamp) -> IssuanceId {
    IssuanceId::new(at, [0; 10])
}

/// What was opened before this has expired at `now`.
pub(crate) fn since_longest_life(now: Timestamp) -> Timestamp {
    now.saturating_sub(LONGEST_LIFE).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// One revocation.
pub async fn get(pool: &PgPool, id: RevocationId) -> Result<Option<Revocation>, StoreError> {
    let row: Option<RevocationRow> =
        sqlx::query_as(select_revocation!("WHERE r.id = $1")).bind(id.uuid()).fetch_optional(pool).await?;
    row.map(Revocation::try_from).transpose()
}

/// Revocations, newest first, before `before`.
pub async fn list(
    pool: &PgPool,
    before: Option<RevocationId>,
    limit: i64,
) -> Result<Vec<Revocation>, StoreError> {
    let rows: Vec<RevocationRow> = sqlx::query_as(select_revocation!(
        "WHERE ($1::uuid IS NULL OR r.id < $1) ORDER BY r.id DESC LIMIT $2"
    ))
    .bind(before.map(RevocationId::uuid))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Revocation::try_from).collect()
}
