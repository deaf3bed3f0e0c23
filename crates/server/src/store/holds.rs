//! Legal holds: what they cover is not dropped from the database.

use cortex_core::record::What;
use cortex_core::{HoldId, Scope};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, PgExecutor};
use uuid::Uuid;

use super::row::{Stamp, insert};
use super::{StoreError, micros, timestamp};

/// How many holds may be in force at once: whoever drops records compares each with all of them.
pub const MAX_IN_FORCE: i64 = 1_000;

/// Why a hold was not set or lifted.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// There is no such hold.
    #[error("there is no such hold")]
    NotFound,
    /// It was lifted before.
    #[error("the hold was lifted before")]
    Lifted,
    /// Whoever set it wants to lift it.
    #[error("another admin than the one who set the hold has to lift it")]
    Own,
    /// Too many are in force.
    #[error("{MAX_IN_FORCE} holds are in force; lift some, or hold a wider scope")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for HoldError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What is to be held.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Whose records.
    pub scope: Scope,
    /// Of what happened from then on; none: from the beginning.
    pub from: Option<Timestamp>,
    /// Of what happened before then; none: whenever.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who wants it, as a principal.
    pub by: String,
}

/// A hold and what became of it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Hold {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: HoldId,
    /// Whose records it holds.
    #[schema(value_type = Object)]
    pub scope: Scope,
    /// Of what happened from then on.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Of what happened before then.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, in the words of whoever set it.
    pub reason: String,
    /// Who set it, as a principal.
    pub by: String,
    /// When it was set.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// When it was lifted; none: it is in force.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_at: Option<Timestamp>,
    /// Who lifted it, as a principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_by: Option<String>,
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    id: Uuid,
    scope: Json<Scope>,
    held_from: Option<i64>,
    until: Option<i64>,
    reason: String,
    set_by: String,
    set_at: i64,
    lifted_at: Option<i64>,
    lifted_by: Option<String>,
}

/// The columns of a [`HoldRow`].
macro_rules! select_hold {
    ($rest:literal) => {
        concat!(
            "SELECT id, scope, (extract(epoch FROM held_from) * 1000000)::int8 AS held_from,
                    (extract(epoch FROM until) * 1000000)::int8 AS until, reason, set_by,
                    (extract(epoch FROM set_at) * 1000000)::int8 AS set_at,
                    (extract(epoch FROM lifted_at) * 1000000)::int8 AS lifted_at, lifted_by
             FROM log_hold ",
            $rest
        )
    };
}

impl TryFrom<HoldRow> for Hold {
    type Error = StoreError;

    fn try_from(row: HoldRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            scope: row.scope.0,
            from: row.held_from.map(timestamp).transpose()?,
            until: row.until.map(timestamp).transpose()?,
            reason: row.reason,
            by: row.set_by,
            at: timestamp(row.set_at)?,
            lifted_at: row.lifted_at.map(timestamp).transpose()?,
            lifted_by: row.lifted_by,
        })
    }
}

/// Sets a hold. When this returns, nothing that it covers and that is there is dropped any more.
pub async fn set(connection: &mut PgConnection, new: NewHold, stamp: &Stamp) -> Result<Hold, HoldError> {
    let at = stamp.clock.now();
    let mut tx = connection.begin().await?;
    let in_force: i64 = sqlx::query_scalar("SELECT count(*) FROM log_hold WHERE lifted_at IS NULL")
        .fetch_one(&mut *tx)
        .await?;
    if in_force >= MAX_IN_FORCE {
        return Err(HoldError::TooMany);
    }
    let NewHold { scope, from, until, reason, by } = new;
    let id = HoldId::new(at, stamp.random.id_bits());
    sqlx::query(
        "INSERT INTO log_hold (id, scope, held_from, until, reason, set_by, set_at)
         VALUES ($1, $2, timestamptz 'epoch' + $3 * interval '1 microsecond',
                 timestamptz 'epoch' + $4 * interval '1 microsecond', $5, $6,
                 timestamptz 'epoch' + $7 * interval '1 microsecond')",
    )
    .bind(id.uuid())
    .bind(Json(&scope))
    .bind(from.map(micros))
    .bind(until.map(micros))
    .bind(&reason)
    .bind(&by)
    .bind(micros(at))
    .execute(&mut *tx)
    .await?;
    let hold = Hold { id, scope, from, until, reason, by, at, lifted_at: None, lifted_by: None };
    let Hold { scope, reason, by, .. } = hold.clone();
    note(&mut tx, What::HoldSet { hold_id: id, scope, from, until, reason, by }, stamp).await?;
    tx.commit().await?;
    Ok(hold)
}

async fn note(tx: &mut PgConnection, what: What, stamp: &Stamp) -> Result<(), StoreError> {
    let draft = stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert(tx, &[draft], stamp).await
}

/// Lifts a hold, which whoever set it may not.
pub async fn lift(
    connection: &mut PgConnection,
    id: HoldId,
    by: &str,
    stamp: &Stamp,
) -> Result<Hold, HoldError> {
    let now = stamp.clock.now();
    let mut tx = connection.begin().await?;
    let row: Option<HoldRow> = sqlx::query_as(select_hold!("WHERE id = $1 FOR UPDATE"))
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await?;
    let found = Hold::try_from(row.ok_or(HoldError::NotFound)?)?;
    if found.lifted_at.is_some() {
        return Err(HoldError::Lifted);
    }
    if found.by == by {
        return Err(HoldError::Own);
    }
    sqlx::query(
        "UPDATE log_hold SET lifted_at = timestamptz 'epoch' + $2 * interval '1 microsecond', lifted_by = $3
         WHERE id = $1",
    )
    .bind(id.uuid())
    .bind(micros(now))
    .bind(by)
    .execute(&mut *tx)
    .await?;
    let what = What::HoldLifted { hold_id: id, scope: found.scope.clone(), by: by.to_owned() };
    note(&mut tx, what, stamp).await?;
    tx.commit().await?;
    Ok(Hold { lifted_at: Some(now), lifted_by: Some(by.to_owned()), ..found })
}

/// Holds, newest first, before `before`; only those in force, if so asked.
pub async fn list(
    executor: impl PgExecutor<'_>,
    in_force_only: bool,
    before: Option<HoldId>,
    limit: i64,
) -> Result<Vec<Hold>, StoreError> {
    let rows: Vec<HoldRow> = sqlx::query_as(select_hold!(
        "WHERE (NOT $1 OR lifted_at IS NULL) AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
    ))
    .bind(in_force_only)
    .bind(before.map(HoldId::uuid))
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(Hold::try_from).collect()
}

/// One hold.
pub async fn get(executor: impl PgExecutor<'_>, id: HoldId) -> Result<Option<Hold>, StoreError> {
    let row: Option<HoldRow> =
        sqlx::query_as(select_hold!("WHERE id = $1")).bind(id.uuid()).fetch_optional(executor).await?;
    row.map(Hold::try_from).transpose()
}

/// A hold in force that covers whatever names this principal, which `issuer` vouches for: while there is one, nothing that
/// says who they are may go.
pub async fn of_principal(
    executor: impl PgExecutor<'_>,
    issuer: &str,
    principal: &str,
) -> Result<Option<Hold>, StoreError> {
    let row: Option<HoldRow> = sqlx::query_as(select_hold!(
        "WHERE lifted_at IS NULL
           AND (scope ->> 'kind' = 'everything' OR scope = jsonb_build_object('kind', 'issuer', 'issuer', $1::text)
                OR scope ->> 'principal' = $2)
         ORDER BY id LIMIT 1"
    ))
    .bind(issuer)
    .bind(principal)
    .fetch_optional(executor)
    .await?;
    row.map(Hold::try_from).transpose()
}
