//! Sessions at the console: what a browser's cookie stands for. Of the cookie only a hash is kept.

use std::net::IpAddr;

use cortex_core::record::{SessionEnd, What};
use cortex_core::{Digest, IssuerName, Person, Principal, SessionId};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, PgExecutor};
use uuid::Uuid;

use super::row::{Stamp, insert};
use super::{StoreError, micros, timestamp};

/// How often a session's use is written down, in seconds: a page is many requests.
const TOUCH_EVERY_S: i64 = 60;

/// One person's session.
#[derive(Debug, Clone, Serialize)]
pub struct Session {
    /// What admins and the record call it.
    pub id: SessionId,
    /// Who signed in, as their issuer said it then.
    pub person: Person,
    /// When they did.
    pub started_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen_at: Timestamp,
    /// When it ends at the latest.
    pub ends_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    person: Value,
    started_at: i64,
    last_seen_at: i64,
    ends_at: i64,
}

impl TryFrom<SessionRow> for Session {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> Result<Self, StoreError> {
        let SessionRow { id, person, started_at, last_seen_at, ends_at } = row;
        Ok(Self {
            id: id.into(),
            person: serde_json::from_value(person).map_err(|e| StoreError::Corrupt(e.to_string()))?,
            started_at: timestamp(started_at)?,
            last_seen_at: timestamp(last_seen_at)?,
            ends_at: timestamp(ends_at)?,
        })
    }
}

/// The columns of a [`SessionRow`].
macro_rules! select_session {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.person, (extract(epoch FROM s.started_at) * 1000000)::int8 AS started_at,
                    (extract(epoch FROM s.last_seen_at) * 1000000)::int8 AS last_seen_at,
                    (extract(epoch FROM s.ends_at) * 1000000)::int8 AS ends_at
             FROM session s ",
            $rest
        )
    };
}

/// Begins a session for whoever holds the secret with this hash.
pub async fn start(
    connection: &mut PgConnection,
    secret_hash: Digest,
    person: Person,
    ttl: SignedDuration,
    source: Option<IpAddr>,
    stamp: &Stamp,
) -> Result<Session, StoreError> {
    let now = stamp.clock.now();
    let session = Session {
        id: SessionId::new(now, stamp.random.id_bits()),
        person,
        started_at: now,
        last_seen_at: now,
        ends_at: now.saturating_add(ttl).unwrap_or(Timestamp::MAX),
    };
    let mut tx = connection.begin().await?;
    sqlx::query(
        "INSERT INTO session (id, secret_hash, issuer, subject, person, started_at, last_seen_at, ends_at)
         VALUES ($1, $2, $3, $4, $5, timestamptz 'epoch' + $6 * interval '1 microsecond',
                 timestamptz 'epoch' + $6 * interval '1 microsecond',
                 timestamptz 'epoch' + $7 * interval '1 microsecond')",
    )
    .bind(session.id.uuid())
    .bind(secret_hash.as_bytes().as_slice())
    .bind(session.person.issuer.as_str())
    .bind(&session.person.subject)
    .bind(serde_json::to_value(&session.person).map_err(|e| StoreError::Corrupt(e.to_string()))?)
    .bind(micros(now))
    .bind(micros(session.ends_at))
    .execute(&mut *tx)
    .await?;
    let by = Principal::Person(session.person.clone());
    let source = source.map(Into::into);
    let what = What::SessionStarted { session_id: session.id, by, ends_at: session.ends_at, source };
    note(&mut tx, [what], stamp).await?;
    tx.commit().await?;
    Ok(session)
}

/// The session that a secret stands for, if it lives, was used lately enough, and its person is let in. If it is `used` by
/// this, that is written down now and then.
pub async fn find(
    connection: &mut PgConnection,
    secret_hash: Digest,
    idle: SignedDuration,
    now: Timestamp,
    used: bool,
) -> Result<Option<Session>, StoreError> {
    let row: Option<SessionRow> = sqlx::query_as(select_session!(
        "WHERE s.secret_hash = $1
           AND s.ends_at > timestamptz 'epoch' + $2 * interval '1 microsecond'
           AND s.last_seen_at > timestamptz 'epoch' + ($2 - $3) * interval '1 microsecond'
           AND NOT EXISTS (SELECT FROM disabled_person d WHERE d.issuer = s.issuer AND d.subject = s.subject)"
    ))
    .bind(secret_hash.as_bytes().as_slice())
    .bind(micros(now))
    .bind(idle_micros(idle))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(session) = row.map(Session::try_from).transpose()? else { return Ok(None) };
    if used && now.duration_since(session.last_seen_at) >= SignedDuration::from_secs(TOUCH_EVERY_S) {
        sqlx::query(
            "UPDATE session SET last_seen_at = timestamptz 'epoch' + $2 * interval '1 microsecond' WHERE id = $1",
        )
        .bind(session.id.uuid())
        .bind(micros(now))
        .execute(connection)
        .await?;
    }
    Ok(Some(session))
}

fn idle_micros(idle: SignedDuration) -> i64 {
    i64::try_from(idle.as_micros()).unwrap_or(i64::MAX / 4)
}

/// Every session that lives, the latest first; 1,000 at the most.
pub async fn list(executor: impl PgExecutor<'_>, now: Timestamp) -> Result<Vec<Session>, StoreError> {
    let rows: Vec<SessionRow> = sqlx::query_as(select_session!(
        "WHERE s.ends_at > timestamptz 'epoch' + $1 * interval '1 microsecond'
         ORDER BY s.started_at DESC LIMIT 1000"
    ))
    .bind(micros(now))
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(Session::try_from).collect()
}

/// Ends one session. Whether there was one.
pub async fn end(
    connection: &mut PgConnection,
    id: SessionId,
    why: SessionEnd,
    by: &str,
    stamp: &Stamp,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await?;
    let ended: Vec<(Uuid, Value)> = sqlx::query_as("DELETE FROM session WHERE id = $1 RETURNING id, person")
        .bind(id.uuid())
        .fetch_all(&mut *tx)
        .await?;
    let any = !ended.is_empty();
    note_ends(&mut tx, ended, why, Some(by), stamp).await?;
    tx.commit().await?;
    Ok(any)
}

/// Ends every session of a person, in the caller's transaction.
pub(super) async fn end_all_of(
    tx: &mut PgConnection,
    issuer: &IssuerName,
    subject: &str,
    why: SessionEnd,
    by: &str,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let ended: Vec<(Uuid, Value)> =
        sqlx::query_as("DELETE FROM session WHERE issuer = $1 AND subject = $2 RETURNING id, person")
            .bind(issuer.as_str())
            .bind(subject)
            .fetch_all(&mut *tx)
            .await?;
    note_ends(tx, ended, why, Some(by), stamp).await
}

/// Ends sessions whose time is over or that were not used for `idle`; `limit` at the most.
pub async fn sweep(
    connection: &mut PgConnection,
    idle: SignedDuration,
    limit: i64,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let mut tx = connection.begin().await?;
    let ended: Vec<(Uuid, Value)> = sqlx::query_as(
        "DELETE FROM session WHERE id IN (
             SELECT id FROM session
             WHERE ends_at <= timestamptz 'epoch' + $1 * interval '1 microsecond'
                OR last_seen_at <= timestamptz 'epoch' + ($1 - $2) * interval '1 microsecond'
             LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING id, person",
    )
    .bind(micros(stamp.clock.now()))
    .bind(idle_micros(idle))
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    if !ended.is_empty() {
        note_ends(&mut tx, ended, SessionEnd::Expired, None, stamp).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn note_ends(
    tx: &mut PgConnection,
    ended: Vec<(Uuid, Value)>,
    why: SessionEnd,
    by: Option<&str>,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let mut whats = Vec::with_capacity(ended.len());
    for (id, person) in ended {
        let person: Person =
            serde_json::from_value(person).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        whats.push(What::SessionEnded {
            session_id: id.into(),
            person: Principal::Person(person).subject(),
            why,
            by: by.map(str::to_owned),
        });
    }
    note(tx, whats, stamp).await
}

async fn note(
    tx: &mut PgConnection,
    whats: impl IntoIterator<Item = What>,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let rows = whats.into_iter().map(|what| stamp.draft(what)).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(|e| StoreError::Corrupt(e.to_string()))?;
    if !rows.is_empty() {
        insert(tx, &rows, stamp).await?;
    }
    Ok(())
}
