//! Approvals: requested once for one exact request, decided once.

use cortex_core::grant::{Approval, Approvers, Grant, NotAllowed, State};
use cortex_core::record::What;
use cortex_core::{Digest, GrantId, Person, PolicyName, Principal};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::row::{Stamp, insert};
use super::{StoreError, micros, timestamp};

/// What a run asks people to approve.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Who asks.
    pub principal: Principal,
    /// What, whole.
    pub request: Value,
    /// Its digest.
    pub request_digest: Digest,
    /// The policy that wants the approval.
    pub policy: PolicyName,
    /// The policy's version.
    pub policy_digest: Digest,
    /// Who may approve.
    pub approvers: Approvers,
    /// Why, in the requester's words.
    pub reason: Option<String>,
    /// After this it is too late to approve.
    pub expires_at: Timestamp,
}

/// Why a request or a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is no such grant.
    #[error("there is no such grant")]
    NotFound,
    /// It was decided before, or its time is over.
    #[error("the grant is {0} and takes no more decisions")]
    Decided(&'static str),
    /// This person decided on it before.
    #[error("you have decided on this grant before")]
    AlreadyYours,
    /// This person may not decide on it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// Too many requests wait.
    #[error("{0} requests wait for approval under this policy; decide on some first")]
    TooMany(i64),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for GrantError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

#[derive(sqlx::FromRow)]
struct GrantRow {
    id: Uuid,
    request: Value,
    request_digest: Vec<u8>,
    policy: String,
    policy_digest: Vec<u8>,
    triggering_user: Option<String>,
    reason: Option<String>,
    approvers: Value,
    requested_at: i64,
    status: String,
    expires_at: i64,
    decided_at: Option<i64>,
    decisions: Value,
}

#[derive(serde::Deserialize)]
struct DecisionRow {
    person: String,
    approve: bool,
    comment: Option<String>,
    at: i64,
}

/// The columns of a [`GrantRow`], its decisions among them.
macro_rules! select_grant {
    ($rest:literal) => {
        concat!(
            "SELECT g.id, g.request, g.request_digest, g.policy, g.policy_digest, g.triggering_user, g.reason,
                    g.approvers, (extract(epoch FROM g.requested_at) * 1000000)::int8 AS requested_at, g.status,
                    (extract(epoch FROM g.expires_at) * 1000000)::int8 AS expires_at,
                    (extract(epoch FROM g.decided_at) * 1000000)::int8 AS decided_at,
                    COALESCE((SELECT jsonb_agg(jsonb_build_object('person', d.person, 'approve', d.approve,
                                     'comment', d.comment,
                                     'at', (extract(epoch FROM d.decided_at) * 1000000)::int8)
                                     ORDER BY d.decided_at)
                              FROM grant_decision d WHERE d.grant_id = g.id), '[]') AS decisions
             FROM grant_request g ",
            $rest
        )
    };
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn corrupt(what: impl ToString) -> StoreError {
    StoreError::Corrupt(what.to_string())
}

impl TryFrom<GrantRow> for Grant {
    type Error = StoreError;

    fn try_from(row: GrantRow) -> Result<Self, StoreError> {
        let state = state(&row)?;
        let GrantRow {
            id,
            request,
            request_digest,
            policy,
            policy_digest,
            triggering_user,
            reason,
            approvers,
            requested_at,
            status: _,
            expires_at: _,
            decided_at: _,
            decisions: _,
        } = row;
        Ok(Self {
            id: id.into(),
            request,
            request_digest: request_digest.as_slice().try_into().map_err(corrupt)?,
            policy: policy.parse().map_err(corrupt)?,
            policy_digest: policy_digest.as_slice().try_into().map_err(corrupt)?,
            triggering_user,
            reason,
            approvers: serde_json::from_value(approvers).map_err(corrupt)?,
            requested_at: timestamp(requested_at)?,
            state,
        })
    }
}

fn state(row: &GrantRow) -> Result<State, StoreError> {
    let decisions: Vec<DecisionRow> = serde_json::from_value(row.decisions.clone()).map_err(corrupt)?;
    let expires_at = timestamp(row.expires_at)?;
    let decided_at = row.decided_at.map(timestamp).transpose()?;
    let (yes, no): (Vec<_>, Vec<_>) = decisions.into_iter().partition(|decision| decision.approve);
    let word = |d: DecisionRow| {
        Ok::<_, StoreError>(Approval { person: d.person, comment: d.comment, at: timestamp(d.at)? })
    };
    let approvals = yes.into_iter().map(word).collect::<Result<Vec<_>, _>>()?;
    let missing = || corrupt("a grant without the data of its status");
    Ok(match row.status.as_str() {
        "requested" => State::Requested { expires_at, approvals },
        "approved" => State::Approved { decided_at: decided_at.ok_or_else(missing)?, expires_at, approvals },
        "denied" => State::Denied {
            decided_at: decided_at.ok_or_else(missing)?,
            by: word(no.into_iter().next().ok_or_else(missing)?)?,
        },
        "expired" => State::Expired { at: expires_at },
        other => return Err(corrupt(format!("grant status {other:?}"))),
    })
}

/// The newest grant for exactly this request, its time taken into account.
pub async fn find(
    connection: &mut PgConnection,
    request_digest: Digest,
    now: Timestamp,
) -> Result<Option<Grant>, StoreError> {
    expire(connection, now).await?;
    let row: Option<GrantRow> =
        sqlx::query_as(select_grant!("WHERE g.request_digest = $1 ORDER BY g.id DESC LIMIT 1"))
            .bind(request_digest.as_bytes().as_slice())
            .fetch_optional(connection)
            .await?;
    row.map(Grant::try_from).transpose()
}

/// Marks what is over. Readers do this first, so that no grant is used past its time.
async fn expire(connection: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE grant_request SET status = 'expired'
         WHERE status IN ('requested', 'approved')
           AND expires_at <= timestamptz 'epoch' + $1 * interval '1 microsecond'",
    )
    .bind(micros(now))
    .execute(connection)
    .await
    .map(drop)
}

/// Requests an approval, or answers the one that is live for exactly this request.
pub async fn request(
    connection: &mut PgConnection,
    new: NewGrant,
    max_waiting: i64,
    stamp: &Stamp,
) -> Result<Grant, GrantError> {
    let id = GrantId::new(stamp.clock.now(), stamp.random.id_bits());
    let mut tx = connection.begin().await?;
    let waiting: i64 =
        sqlx::query_scalar("SELECT count(*) FROM grant_request WHERE policy = $1 AND status = 'requested'")
            .bind(new.policy.as_str())
            .fetch_one(&mut *tx)
            .await?;
    if waiting >= max_waiting {
        return Err(GrantError::TooMany(waiting));
    }
    if insert_request(&mut tx, id, &new, stamp).await? {
        let row = stamp.row(What::GrantRequested {
            grant_id: id,
            request: new.request,
            request_digest: new.request_digest,
            principal: new.principal,
            policy: new.policy,
            policy_digest: new.policy_digest,
            reason: new.reason,
        });
        insert(&mut tx, &[row.map_err(corrupt)?]).await?;
    }
    tx.commit().await?;
    find(connection, new.request_digest, stamp.clock.now()).await?.ok_or(GrantError::NotFound)
}

async fn insert_request(
    tx: &mut PgConnection,
    id: GrantId,
    new: &NewGrant,
    stamp: &Stamp,
) -> Result<bool, GrantError> {
    let run = new.principal.as_run().ok_or_else(|| corrupt("only runs wait for grants"))?;
    let inserted = sqlx::query(
        "INSERT INTO grant_request (id, request_digest, request, policy, policy_digest, dag_id, run_id,
                                    triggering_user, reason, approvers, requested_at, status, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, timestamptz 'epoch' + $11 * interval '1 microsecond',
                 'requested', timestamptz 'epoch' + $12 * interval '1 microsecond')
         ON CONFLICT DO NOTHING",
    )
    .bind(id.uuid())
    .bind(new.request_digest.as_bytes().as_slice())
    .bind(&new.request)
    .bind(new.policy.as_str())
    .bind(new.policy_digest.as_bytes().as_slice())
    .bind(run.dag_id.as_str())
    .bind(run.run_id.as_str())
    .bind(run.triggering_user.as_deref())
    .bind(new.reason.as_deref())
    .bind(serde_json::to_value(&new.approvers).map_err(corrupt)?)
    .bind(micros(stamp.clock.now()))
    .bind(micros(new.expires_at))
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// One person's word on a grant.
#[derive(Debug, Clone)]
pub struct Word {
    /// Yes or no.
    pub approve: bool,
    /// Their comment.
    pub comment: Option<String>,
    /// Until when the run may use the approval, should this word complete it.
    pub approved_until: Timestamp,
}

/// Takes a person's decision. Of two at once, one goes first and the other sees what it did.
pub async fn decide(
    connection: &mut PgConnection,
    id: GrantId,
    person: &Person,
    word: Word,
    stamp: &Stamp,
) -> Result<Grant, GrantError> {
    expire(connection, stamp.clock.now()).await?;
    let mut tx = connection.begin().await?;
    // Locked before it is read: a statement that waits for the lock still sees the decisions as they were when it
    // began, and would not count the one that it waited for.
    sqlx::query("SELECT 1 FROM grant_request WHERE id = $1 FOR UPDATE")
        .bind(id.uuid())
        .execute(&mut *tx)
        .await?;
    let row: Option<GrantRow> =
        sqlx::query_as(select_grant!("WHERE g.id = $1")).bind(id.uuid()).fetch_optional(&mut *tx).await?;
    let grant = Grant::try_from(row.ok_or(GrantError::NotFound)?)?;
    let approvals = match &grant.state {
        State::Requested { approvals, .. } => approvals.len(),
        State::Approved { .. } => return Err(GrantError::Decided("approved")),
        State::Denied { .. } => return Err(GrantError::Decided("denied")),
        State::Expired { .. } => return Err(GrantError::Decided("expired")),
    };
    grant.may_decide(person)?;
    let by = Principal::Person(person.clone());
    insert_word(&mut tx, id, &by.subject(), &word, stamp.clock.now()).await?;
    let enough = u32::try_from(approvals + 1).is_ok_and(|count| count >= grant.approvers.quorum);
    let status = match (word.approve, enough) {
        (false, _) => "denied",
        (true, true) => "approved",
        (true, false) => "requested",
    };
    if status != "requested" {
        set_status(&mut tx, id, status, word.approved_until, stamp.clock.now()).await?;
    }
    let what = What::GrantDecided {
        grant_id: id,
        policy: grant.policy.clone(),
        request_digest: grant.request_digest,
        by,
        approve: word.approve,
        comment: word.comment,
        status: status.to_owned(),
    };
    insert(&mut tx, &[stamp.row(what).map_err(corrupt)?]).await?;
    tx.commit().await?;
    get(connection, id, stamp.clock.now()).await?.ok_or(GrantError::NotFound)
}

async fn insert_word(
    tx: &mut PgConnection,
    id: GrantId,
    person: &str,
    word: &Word,
    now: Timestamp,
) -> Result<(), GrantError> {
    let inserted = sqlx::query(
        "INSERT INTO grant_decision (grant_id, person, approve, comment, decided_at)
         VALUES ($1, $2, $3, $4, timestamptz 'epoch' + $5 * interval '1 microsecond') ON CONFLICT DO NOTHING",
    )
    .bind(id.uuid())
    .bind(person)
    .bind(word.approve)
    .bind(word.comment.as_deref())
    .bind(micros(now))
    .execute(tx)
    .await?;
    if inserted.rows_affected() == 1 { Ok(()) } else { Err(GrantError::AlreadyYours) }
}

async fn set_status(
    tx: &mut PgConnection,
    id: GrantId,
    status: &str,
    approved_until: Timestamp,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE grant_request
         SET status = $2, decided_at = timestamptz 'epoch' + $3 * interval '1 microsecond',
             expires_at = CASE WHEN $2 = 'approved' THEN timestamptz 'epoch' + $4 * interval '1 microsecond'
                               ELSE expires_at END
         WHERE id = $1",
    )
    .bind(id.uuid())
    .bind(status)
    .bind(micros(now))
    .bind(micros(approved_until))
    .execute(tx)
    .await
    .map(drop)
}

/// One grant.
pub async fn get(
    connection: &mut PgConnection,
    id: GrantId,
    now: Timestamp,
) -> Result<Option<Grant>, StoreError> {
    expire(connection, now).await?;
    let row: Option<GrantRow> =
        sqlx::query_as(select_grant!("WHERE g.id = $1")).bind(id.uuid()).fetch_optional(connection).await?;
    row.map(Grant::try_from).transpose()
}

/// Grants, newest first, before `before`, in one status if `status` is given.
pub async fn list(
    connection: &mut PgConnection,
    status: Option<&str>,
    before: Option<GrantId>,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Grant>, StoreError> {
    expire(connection, now).await?;
    let rows: Vec<GrantRow> = sqlx::query_as(select_grant!(
        "WHERE ($1::text IS NULL OR g.status = $1) AND ($2::uuid IS NULL OR g.id < $2)
         ORDER BY g.id DESC LIMIT $3"
    ))
    .bind(status)
    .bind(before.map(GrantId::uuid))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Grant::try_from).collect()
}
