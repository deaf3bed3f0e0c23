//! People's word on a grant, and taking it back.

use std::collections::HashMap;

use cortex_core::grant::{Grant, State};
use cortex_core::record::What;
use cortex_core::record::personal::{PersonalKind, of_person};
use cortex_core::{Digest, GrantId, Person, PolicyName, Principal};
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::super::row::{Stamp, insert};
use super::super::{micros, personal};
use super::ends::{Ended, end};
use super::rows::{GrantRow, select_grant};
use super::{GrantError, StoreError, corrupt, get};
use crate::approval::ApproverRules;

/// One person's word on a grant.
#[derive(Debug, Clone)]
pub struct Word {
    /// Yes or no.
    pub approve: bool,
    /// Their comment.
    pub comment: Option<String>,
    /// The digest of the request that they saw.
    pub seen: Digest,
}

/// Takes a person's decision. Of two at once, one goes first and the other sees what it did.
pub async fn decide(
    connection: &mut PgConnection,
    id: GrantId,
    person: &Person,
    word: Word,
    rules: &ApproverRules,
    stamp: &Stamp,
) -> Result<Grant, GrantError> {
    let now = stamp.clock.now();
    let mut tx = connection.begin().await?;
    let grant = lock(&mut tx, id, now).await?;
    if word.seen != grant.request_digest {
        return Err(GrantError::Stale { seen: word.seen, current: grant.request_digest });
    }
    if let Some(error) = GrantError::of_state(&grant.state) {
        return Err(error);
    }
    let author = author(&mut tx, &grant.policy).await?;
    grant.may_decide(person, &rules.of_author(&author), now)?;
    let (person, word) = committed(&mut tx, person, word, stamp).await?;
    insert_word(&mut tx, id, &person, &word, now).await?;
    let status = grant.after(word.approve);
    if status != "requested" {
        set_status(&mut tx, id, status, grant.holds_until(now, rules.approved_for), now).await?;
    }
    let what = What::GrantDecided {
        grant_id: id,
        policy: grant.policy.clone(),
        request_digest: grant.request_digest,
        dag_id: Some(grant.dag_id().to_string()),
        run_id: grant.run_id().map(ToString::to_string),
        by: Principal::Person(person),
        approve: word.approve,
        comment: word.comment,
        status: status.to_owned(),
        break_glass: grant.is_break_glass(),
    };
    insert(&mut tx, &[stamp.draft(what).map_err(corrupt)?], stamp).await?;
    tx.commit().await?;
    if status != "requested" {
        metrics::histogram!("cortex_grant_wait_seconds", "decision" => status)
            .record(now.duration_since(grant.requested_at).as_secs_f64());
    }
    get(connection, id, now).await?.ok_or(GrantError::NotFound)
}

/// Takes a grant back that waits or holds, if `may` allows it. `by` is who does, as principal.
pub async fn withdraw(
    connection: &mut PgConnection,
    id: GrantId,
    by: &str,
    comment: Option<&str>,
    may: impl FnOnce(&Grant) -> Result<(), GrantError> + Send,
    stamp: &Stamp,
) -> Result<Grant, GrantError> {
    let now = stamp.clock.now();
    let mut tx = connection.begin().await?;
    let grant = lock(&mut tx, id, now).await?;
    may(&grant)?;
    if !matches!(grant.state, State::Requested { .. } | State::Approved { .. }) {
        return Err(GrantError::Decided(grant.state.name()));
    }
    end(&mut tx, &grant, Ended { status: "withdrawn", by: Some(by), because: comment }, stamp).await?;
    tx.commit().await?;
    get(connection, id, now).await?.ok_or(GrantError::NotFound)
}

/// Locked before it is read: a statement that waits for the lock still sees the decisions as they were when it
/// began, and would not count the one that it waited for.
async fn lock(tx: &mut PgConnection, id: GrantId, now: Timestamp) -> Result<Grant, GrantError> {
    sqlx::query("SELECT 1 FROM grant_request WHERE id = $1 FOR UPDATE")
        .bind(id.uuid())
        .execute(&mut *tx)
        .await?;
    let row: Option<GrantRow> =
        sqlx::query_as(select_grant!("WHERE g.id = $1")).bind(id.uuid()).fetch_optional(tx).await?;
    Ok(row.ok_or(GrantError::NotFound)?.grant(now)?)
}

/// Who put the version in force that a live grant is about: another one would have made it void.
async fn author(tx: &mut PgConnection, policy: &PolicyName) -> Result<String, GrantError> {
    let author = authors(tx, &[policy.to_string()]).await?.remove(policy.as_str());
    Ok(author.ok_or_else(|| corrupt("a grant of a policy that never was"))?)
}

/// Who put the newest version of each of these policies in force, as principals.
pub async fn authors(
    connection: &mut PgConnection,
    policies: &[String],
) -> Result<HashMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT h.name, opened_principal(d.applied_by) FROM document_head h JOIN document d USING (kind, name, version)
         WHERE h.kind = 'policy' AND h.name = ANY($1)",
    )
    .bind(policies)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// A person's word as the log has it: decisions are for ever, and name whose they are as it does.
async fn committed(
    tx: &mut PgConnection,
    person: &Person,
    word: Word,
    stamp: &Stamp,
) -> Result<(Person, Word), StoreError> {
    let (mut person, mut word) = (person.clone(), word);
    let comment = word.comment.as_mut().map(|comment| (PersonalKind::Text, comment));
    personal::commit(tx, of_person(&mut person, comment), &*stamp.random).await?;
    Ok((person, word))
}

async fn insert_word(
    tx: &mut PgConnection,
    id: GrantId,
    person: &Person,
    word: &Word,
    now: Timestamp,
) -> Result<(), GrantError> {
    sqlx::query(
        "INSERT INTO grant_decision (grant_id, person, account, approve, comment, decided_at)
         VALUES ($1, $2, $3, $4, $5, timestamptz 'epoch' + $6 * interval '1 microsecond')",
    )
    .bind(id.uuid())
    .bind(Principal::Person(person.clone()).subject())
    .bind(serde_json::to_value(person).map_err(corrupt)?)
    .bind(word.approve)
    .bind(word.comment.as_deref())
    .bind(micros(now))
    .execute(tx)
    .await?;
    Ok(())
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
