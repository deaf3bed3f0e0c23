//! Approvals: requested once for one exact request, decided once, ended once; each step with its record.

mod decide;
mod ends;
mod request;
mod rows;

use cortex_core::grant::{Grant, NotAllowed, State};
use cortex_core::{Digest, GrantId, Run};
use jiff::Timestamp;
use sqlx::PgConnection;

use super::{StoreError, micros};
use rows::{GrantRow, select_grant};

pub use decide::{Word, authors, decide, withdraw};
pub use ends::expire_due;
pub(super) use ends::{Theirs, Void, void, withdraw_theirs};
pub use request::{NewGrant, request, run_on_record};

/// Why a request or a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is no such grant.
    #[error("there is no such grant")]
    NotFound,
    /// It was decided before, or its time is over.
    #[error("the grant is {0} and takes no more decisions")]
    Decided(&'static str),
    /// What the person saw is not what the grant asks for.
    #[error(
        "you decided on {seen}, and this grant asks for {current}: look at it again; nothing was changed"
    )]
    Stale {
        /// The digest that came with the decision.
        seen: Digest,
        /// The digest of the grant's request.
        current: Digest,
    },
    /// The policy has changed since.
    #[error("{0}, so this request is void and cannot be approved; nothing was changed")]
    Voided(String),
    /// The policy changed while a request was made.
    #[error("the policy changed while this was requested; ask again")]
    PolicyChanged,
    /// This person may not decide on it.
    #[error("{0}")]
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

impl GrantError {
    /// Why a grant in this state takes no decision; none if it does.
    fn of_state(state: &State) -> Option<Self> {
        match state {
            State::Requested { .. } => None,
            State::Voided { because, .. } => Some(Self::Voided(because.clone())),
            other => Some(Self::Decided(other.name())),
        }
    }
}

/// The newest grant for exactly this request, as it stands at `now`.
pub async fn find(
    connection: &mut PgConnection,
    request_digest: Digest,
    now: Timestamp,
) -> Result<Option<Grant>, StoreError> {
    let row: Option<GrantRow> =
        sqlx::query_as(select_grant!("WHERE g.request_digest = $1 ORDER BY g.seq DESC LIMIT 1"))
            .bind(request_digest.as_bytes().as_slice())
            .fetch_optional(connection)
            .await?;
    row.map(|row| row.grant(now)).transpose()
}

/// The approval of this run, a scheduled one, that people gave before it ran, under this version of the policy.
pub async fn find_standing(
    connection: &mut PgConnection,
    policy_digest: Digest,
    run: &Run,
    now: Timestamp,
) -> Result<Option<Grant>, StoreError> {
    let row: Option<GrantRow> = sqlx::query_as(select_grant!(
        "WHERE g.kind = 'standing' AND g.status = 'approved' AND g.policy_digest = $1 AND g.issuer = $2
           AND g.dag_id = $3 AND (g.tasks = '{}' OR $4 = ANY (g.tasks))
           AND g.expires_at > timestamptz 'epoch' + $5 * interval '1 microsecond'
         ORDER BY g.seq DESC LIMIT 1"
    ))
    .bind(policy_digest.as_bytes().as_slice())
    .bind(run.issuer.as_str())
    .bind(run.dag_id.as_str())
    .bind(run.task_id.as_str())
    .bind(micros(now))
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.grant(now)).transpose()
}

/// One grant, as it stands at `now`.
pub async fn get(
    connection: &mut PgConnection,
    id: GrantId,
    now: Timestamp,
) -> Result<Option<Grant>, StoreError> {
    let row: Option<GrantRow> =
        sqlx::query_as(select_grant!("WHERE g.id = $1")).bind(id.uuid()).fetch_optional(connection).await?;
    row.map(|row| row.grant(now)).transpose()
}

/// Which grants to list; every filter that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this status.
    pub status: Option<String>,
    /// `run` or `standing`.
    pub kind: Option<String>,
    /// Of this policy.
    pub policy: Option<String>,
    /// Of this DAG.
    pub dag_id: Option<String>,
    /// Of this DAG run.
    pub run_id: Option<String>,
    /// Older than this one.
    pub before: Option<GrantId>,
    /// How many at the most.
    pub limit: i64,
}

/// Grants, newest first, as they stand at `now`.
pub async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    now: Timestamp,
) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<GrantRow> = sqlx::query_as(select_grant!(
        "WHERE ($1::text IS NULL OR $1 = CASE
                    WHEN g.status IN ('requested', 'approved')
                         AND g.expires_at <= timestamptz 'epoch' + $2 * interval '1 microsecond'
                    THEN 'expired' ELSE g.status END)
           AND ($3::text IS NULL OR g.kind = $3) AND ($4::text IS NULL OR g.policy = $4)
           AND ($5::text IS NULL OR g.dag_id = $5) AND ($6::text IS NULL OR g.run_id = $6)
           AND ($7::uuid IS NULL OR g.id < $7)
         ORDER BY g.id DESC LIMIT $8"
    ))
    .bind(filter.status.as_deref())
    .bind(micros(now))
    .bind(filter.kind.as_deref())
    .bind(filter.policy.as_deref())
    .bind(filter.dag_id.as_deref())
    .bind(filter.run_id.as_deref())
    .bind(filter.before.map(GrantId::uuid))
    .bind(filter.limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| row.grant(now)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn corrupt(what: impl ToString) -> StoreError {
    StoreError::Corrupt(what.to_string())
}
