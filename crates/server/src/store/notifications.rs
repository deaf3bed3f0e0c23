//! The outbox: what is still to be told to whom.

use cortex_core::record::What;
use cortex_core::{NotificationId, RecordId};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Connection as _, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::row::{Row, Stamp, insert};
use super::{StoreError, micros, personal, timestamp};

/// A notification that this replica is to send now.
#[derive(Debug, sqlx::FromRow)]
pub struct Due {
    /// Its id, the same at each try.
    #[sqlx(try_from = "Uuid")]
    pub id: NotificationId,
    /// To whom, by configured name.
    pub endpoint: String,
    /// The record's kind.
    pub event: String,
    /// How many tries there are with this one.
    pub attempts: i32,
    /// The record that it tells of.
    #[sqlx(try_from = "Uuid")]
    pub record_id: RecordId,
    /// That record as readers are shown it: JSON.
    pub leaf: Vec<u8>,
}

/// What follows a failed try.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// Another one.
    Again {
        /// When.
        at: Timestamp,
    },
    /// None, until an administrator wants one.
    Dead,
}

/// Writes into the outbox what `rows`, just recorded in this transaction, are to be told of.
pub(super) async fn enqueue(tx: &mut PgConnection, rows: &[&Row]) -> Result<(), sqlx::Error> {
    let notices: Vec<_> = rows.iter().flat_map(|row| row.notices.iter().map(move |one| (row, one))).collect();
    if notices.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO notification (id, endpoint, event, record_id, created_at, status, due_at)
         SELECT id, endpoint, event, record_id, at, 'pending', at
         FROM (SELECT id, endpoint, event, record_id, timestamptz 'epoch' + at * interval '1 microsecond' AS at
               FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::int8[])
                    AS t (id, endpoint, event, record_id, at)) t",
    )
    .bind(notices.iter().map(|(_, one)| one.id.uuid()).collect::<Vec<_>>())
    .bind(notices.iter().map(|(_, one)| one.endpoint.as_str()).collect::<Vec<_>>())
    .bind(notices.iter().map(|(row, _)| row.kind).collect::<Vec<_>>())
    .bind(notices.iter().map(|(row, _)| row.id).collect::<Vec<_>>())
    .bind(notices.iter().map(|(row, _)| row.at).collect::<Vec<_>>())
    .execute(tx)
    .await
    .map(drop)
}

/// Takes what is due for these endpoints, `limit` at the most. It is this replica's until `mine_until`; should the
/// replica end before it says how it went, another one sends it again.
pub async fn claim(
    pool: &PgPool,
    endpoints: &[&str],
    now: Timestamp,
    mine_until: Timestamp,
    limit: i64,
) -> Result<Vec<Due>, StoreError> {
    let mut due: Vec<Due> = sqlx::query_as(
        "UPDATE notification n SET attempts = n.attempts + 1,
                due_at = timestamptz 'epoch' + $3 * interval '1 microsecond'
         FROM (SELECT id FROM notification
               WHERE status = 'pending' AND due_at <= timestamptz 'epoch' + $2 * interval '1 microsecond'
                 AND endpoint = ANY($1)
               ORDER BY due_at, id LIMIT $4 FOR UPDATE SKIP LOCKED) due, record r
         WHERE n.id = due.id AND r.id = n.record_id
         RETURNING n.id, n.endpoint, n.event, n.attempts, n.record_id, r.leaf",
    )
    .bind(endpoints)
    .bind(micros(now))
    .bind(micros(mine_until))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let leaves = personal::open_leaves(pool, due.iter().map(|one| one.leaf.as_slice())).await?;
    due.iter_mut().zip(leaves).for_each(|(one, leaf)| one.leaf = leaf);
    Ok(due)
}

/// It arrived: nothing is left to do.
pub async fn delivered(executor: impl PgExecutor<'_>, id: NotificationId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM notification WHERE id = $1").bind(id.uuid()).execute(executor).await?;
    Ok(())
}

/// It did not arrive. A replica that was given up in the meantime changes nothing.
pub async fn failed(
    pool: &PgPool,
    due: &Due,
    error: &str,
    failure: Failure,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let (status, at) = match failure {
        Failure::Again { at } => ("pending", at),
        Failure::Dead => ("dead", stamp.clock.now()),
    };
    let changed = sqlx::query(
        "UPDATE notification SET status = $3, last_error = $4,
                due_at = timestamptz 'epoch' + $5 * interval '1 microsecond'
         WHERE id = $1 AND attempts = $2 AND status = 'pending'",
    )
    .bind(due.id.uuid())
    .bind(due.attempts)
    .bind(status)
    .bind(error)
    .bind(micros(at))
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 1 && matches!(failure, Failure::Dead) {
        let what = What::NotificationDead {
            notification_id: due.id,
            endpoint: due.endpoint.clone(),
            event: due.event.clone(),
            record_id: due.record_id,
            attempts: due.attempts,
            error: error.to_owned(),
        };
        insert(&mut tx, &[stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?], stamp).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// A notification in the outbox.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Notification)]
pub struct Notification {
    /// Its id, which the receiver sees too.
    #[schema(value_type = String, format = Uuid)]
    pub id: NotificationId,
    /// To whom, by configured name.
    pub endpoint: String,
    /// The record's kind.
    pub event: String,
    /// The record that it tells of.
    #[schema(value_type = String, format = Uuid)]
    pub record_id: RecordId,
    /// The grant, where it is about one.
    pub grant_id: Option<Uuid>,
    /// When that was.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// `pending` or `dead`.
    pub status: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it is tried next; of a dead one, when it was given up.
    #[schema(value_type = String, format = DateTime)]
    pub due_at: Timestamp,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

type Listed = (Uuid, String, String, Uuid, Option<Uuid>, i64, String, i32, i64, Option<String>);

/// What is in the outbox, newest first: in one status if `status` is given, before `before`.
pub async fn list(
    executor: impl PgExecutor<'_>,
    status: Option<&str>,
    before: Option<NotificationId>,
    limit: i64,
) -> Result<Vec<Notification>, StoreError> {
    let rows: Vec<Listed> = sqlx::query_as(
        "SELECT n.id, n.endpoint, n.event, n.record_id, r.grant_id,
                (extract(epoch FROM n.created_at) * 1000000)::int8, n.status, n.attempts,
                (extract(epoch FROM n.due_at) * 1000000)::int8, n.last_error
         FROM notification n JOIN record r ON r.id = n.record_id
         WHERE ($1::text IS NULL OR n.status = $1) AND ($2::uuid IS NULL OR n.id < $2)
         ORDER BY n.id DESC LIMIT $3",
    )
    .bind(status)
    .bind(before.map(NotificationId::uuid))
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(notification).collect()
}

fn notification(row: Listed) -> Result<Notification, StoreError> {
    let (id, endpoint, event, record_id, grant_id, created_at, status, attempts, due_at, last_error) = row;
    Ok(Notification {
        id: id.into(),
        endpoint,
        event,
        record_id: record_id.into(),
        grant_id,
        created_at: timestamp(created_at)?,
        status,
        attempts,
        due_at: timestamp(due_at)?,
        last_error,
    })
}

/// Tries a dead one again, from now on as if it were new; answers whether there was such a one.
pub async fn retry(
    executor: impl PgExecutor<'_>,
    id: NotificationId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let changed = sqlx::query(
        "UPDATE notification SET status = 'pending', attempts = 0, last_error = NULL,
                due_at = timestamptz 'epoch' + $2 * interval '1 microsecond'
         WHERE id = $1 AND status = 'dead'",
    )
    .bind(id.uuid())
    .bind(micros(now))
    .execute(executor)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Forgets what is older than `before`, delivered or not: the record keeps what it told of.
pub async fn forget(executor: impl PgExecutor<'_>, before: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM notification WHERE created_at < timestamptz 'epoch' + $1 * interval '1 microsecond'",
    )
    .bind(micros(before))
    .execute(executor)
    .await?;
    Ok(())
}
