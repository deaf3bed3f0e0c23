//! Requesting an approval.

use cortex_core::grant::{Approvers, Asked, Grant};
use cortex_core::policy::ValidFor;
use cortex_core::record::What;
use cortex_core::record::personal::user;
use cortex_core::{Digest, GrantId, PolicyName, Principal, Run};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::super::row::{Stamp, insert};
use super::super::{StoreError, micros, personal};
use super::ends::expire;
use super::{GrantError, corrupt, find};

/// What people are asked to approve.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Whom it is for, and who asks.
    pub asked: Asked,
    /// What, whole.
    pub request: Value,
    /// Its digest.
    pub request_digest: Digest,
    /// The policy that wants the approval.
    pub policy: PolicyName,
    /// The policy's version.
    pub policy_digest: Digest,
    /// The number of that version.
    pub policy_version: i32,
    /// Who may approve.
    pub approvers: Approvers,
    /// How many exchanges may use it; none: any number.
    pub max_uses: Option<u16>,
    /// Why, in the requester's words.
    pub reason: Option<String>,
    /// The ticket, in the requester's words.
    pub ticket: Option<String>,
    /// After this it is too late to approve.
    pub expires_at: Timestamp,
}

impl NewGrant {
    fn principal(&self) -> Principal {
        match &self.asked {
            Asked::Run { requester, .. } => Principal::Run(requester.clone()),
            Asked::Standing { requester, .. } => Principal::Person(requester.clone()),
        }
    }

    /// What goes on record of it.
    fn what(self, id: GrantId) -> What {
        let principal = self.principal();
        let Self { asked, request, request_digest, policy, policy_digest, reason, ticket, .. } = self;
        match asked {
            Asked::Run { break_glass, .. } => What::GrantRequested {
                grant_id: id,
                request,
                request_digest,
                principal,
                policy,
                policy_digest,
                reason,
                ticket,
                break_glass,
            },
            Asked::Standing { .. } => What::PreapprovalMade {
                grant_id: id,
                request,
                request_digest,
                principal,
                policy,
                policy_digest,
                reason,
                ticket,
            },
        }
    }
}

/// A run as the log has it: who started it is committed to.
pub async fn run_on_record(
    connection: &mut PgConnection,
    run: &Run,
    stamp: &Stamp,
) -> Result<Run, StoreError> {
    let mut run = run.clone();
    let user = run.triggering_user.as_mut().map(user);
    personal::commit(connection, user.into_iter().collect(), &*stamp.random).await?;
    Ok(run)
}

/// Requests an approval, or answers the one that is live for exactly this request.
pub async fn request(
    connection: &mut PgConnection,
    new: NewGrant,
    max_waiting: i64,
    stamp: &Stamp,
) -> Result<Grant, GrantError> {
    let now = stamp.clock.now();
    let id = GrantId::new(now, stamp.random.id_bits());
    let digest = new.request_digest;
    let mut tx = connection.begin().await?;
    check_version(&mut tx, &new.policy, new.policy_digest).await?;
    check_room(&mut tx, &new.policy, max_waiting, now).await?;
    // What is over makes room for its successor: one live grant for one exact request.
    expire(&mut tx, Some(digest), stamp).await?;
    if insert_request(&mut tx, id, &new, now).await? {
        insert(&mut tx, &[stamp.draft(new.what(id)).map_err(corrupt)?], stamp).await?;
    }
    tx.commit().await?;
    find(connection, digest, now).await?.ok_or(GrantError::NotFound)
}

/// The version has to be in force until this is committed: what a new version makes void includes this then.
async fn check_version(tx: &mut PgConnection, policy: &PolicyName, digest: Digest) -> Result<(), GrantError> {
    let in_force: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT d.digest FROM document_head h JOIN document d USING (kind, name, version)
         WHERE h.kind = 'policy' AND h.name = $1 AND NOT h.retired FOR SHARE OF h",
    )
    .bind(policy.as_str())
    .fetch_optional(tx)
    .await?;
    if in_force.as_deref() == Some(digest.as_bytes().as_slice()) {
        Ok(())
    } else {
        Err(GrantError::PolicyChanged)
    }
}

async fn check_room(
    tx: &mut PgConnection,
    policy: &PolicyName,
    max_waiting: i64,
    now: Timestamp,
) -> Result<(), GrantError> {
    let waiting: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM grant_request WHERE policy = $1 AND status = 'requested'
           AND expires_at > timestamptz 'epoch' + $2 * interval '1 microsecond'",
    )
    .bind(policy.as_str())
    .bind(micros(now))
    .fetch_one(tx)
    .await?;
    if waiting >= max_waiting { Err(GrantError::TooMany(waiting)) } else { Ok(()) }
}

/// The columns that a run's grant and a standing one fill differently.
struct Columns<'a> {
    kind: &'static str,
    issuer: &'a str,
    dag_id: &'a str,
    run_id: Option<&'a str>,
    triggering_user: Option<&'a str>,
    tasks: Vec<&'a str>,
    valid_for: ValidFor,
    break_glass: bool,
}

impl<'a> Columns<'a> {
    fn of(asked: &'a Asked) -> Self {
        match asked {
            Asked::Run { requester, valid_for, break_glass } => Self {
                kind: "run",
                issuer: requester.issuer.as_str(),
                dag_id: requester.dag_id.as_str(),
                run_id: Some(requester.run_id.as_str()),
                triggering_user: requester.triggering_user.as_deref(),
                tasks: Vec::new(),
                valid_for: *valid_for,
                break_glass: *break_glass,
            },
            Asked::Standing { issuer, dag_id, tasks, .. } => Self {
                kind: "standing",
                issuer: issuer.as_str(),
                dag_id: dag_id.as_str(),
                run_id: None,
                triggering_user: None,
                tasks: tasks.iter().map(cortex_core::principal::Ident::as_str).collect(),
                valid_for: ValidFor::Task,
                break_glass: false,
            },
        }
    }
}

async fn insert_request(
    tx: &mut PgConnection,
    id: GrantId,
    new: &NewGrant,
    now: Timestamp,
) -> Result<bool, GrantError> {
    let columns = Columns::of(&new.asked);
    let inserted = sqlx::query(
        "INSERT INTO grant_request (id, kind, request_digest, request, policy, policy_digest, policy_version,
                                    requester, issuer, dag_id, run_id, triggering_user, tasks, valid_for,
                                    break_glass, reason, ticket, approvers, max_uses, status, requested_at,
                                    expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                 'requested', timestamptz 'epoch' + $20 * interval '1 microsecond',
                 timestamptz 'epoch' + $21 * interval '1 microsecond')
         ON CONFLICT DO NOTHING",
    )
    .bind(id.uuid())
    .bind(columns.kind)
    .bind(new.request_digest.as_bytes().as_slice())
    .bind(&new.request)
    .bind(new.policy.as_str())
    .bind(new.policy_digest.as_bytes().as_slice())
    .bind(new.policy_version)
    .bind(serde_json::to_value(new.principal()).map_err(corrupt)?)
    .bind(columns.issuer)
    .bind(columns.dag_id)
    .bind(columns.run_id)
    .bind(columns.triggering_user)
    .bind(columns.tasks)
    .bind(serde_json::to_value(columns.valid_for).map_err(corrupt)?)
    .bind(columns.break_glass)
    .bind(new.reason.as_deref())
    .bind(new.ticket.as_deref())
    .bind(serde_json::to_value(&new.approvers).map_err(corrupt)?)
    .bind(new.max_uses.map(i32::from))
    .bind(micros(now))
    .bind(micros(new.expires_at))
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}
