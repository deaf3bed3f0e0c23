//! Erasing a person: what opens the log's commitments to them goes, and what tables have of them beside the log.
//!
//! The log stays as it is and verifies as before. It then shows that the same person did several things, and nothing
//! leads to who that was.

use std::collections::BTreeSet;

use cortex_core::principal::person_subject;
use cortex_core::record::personal::{ERASED, Place};
use cortex_core::record::{Erasure, SessionEnd, What};
use cortex_core::{IssuerName, Person, SignIn};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use super::grants::{Theirs, withdraw_theirs};
use super::log::corrupt;
use super::row::{Stamp, insert};
use super::{StoreError, freezes, holds, micros, people, personal, revocations, sessions};

/// Why nobody was erased. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Cortex can keep out only whom it remembers.
    #[error(
        "they are disabled, and Cortex keeps out only whom it remembers: enable them once their identity provider keeps them out"
    )]
    Disabled,
    /// A legal hold covers what names them.
    #[error("a legal hold in force covers what names them: it has to be lifted first")]
    Held,
    /// A freeze names them.
    #[error("a freeze in force names them: lift it first")]
    Frozen,
    /// A revocation names them.
    #[error("a revocation of the last day names them: credentials that it is about may still live")]
    Revoked,
    /// The reason has a name of theirs.
    #[error("the reason names them, and stays on record: write the number of a ticket instead")]
    Named,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ErasureError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Who is to be erased.
#[derive(Debug, Clone)]
pub struct NewErasure {
    /// The issuer that vouches for them.
    pub issuer: IssuerName,
    /// The `sub` that it knows them by.
    pub subject: String,
    /// What Airflows and operating systems call them, beside the names that their issuer says.
    pub users: Vec<String>,
    /// Why, in the words of the admin.
    pub reason: String,
    /// The admin, as principal.
    pub by: String,
}

/// What was erased.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Erased {
    /// The person as the log names them from now on: by a commitment that nothing opens.
    pub person: String,
    /// How many values went: names, addresses, texts.
    pub values: u64,
    /// How many requests for an approval were withdrawn, because they asked for it or had decided on it.
    pub withdrawn: usize,
}

/// Somebody who is being erased.
struct Leaver {
    /// Their principal.
    principal: String,
    /// The same as the log has it.
    committed: String,
    /// Everything that they are called, in lower case.
    names: Vec<String>,
    /// The commitments to what Airflows and command lines call them.
    users: Vec<String>,
}

impl Leaver {
    /// Everybody whose words and addresses are theirs.
    fn owners(&self) -> Vec<String> {
        let operators = self.names.iter().map(|name| format!("operator:{name}"));
        [self.principal.clone(), self.committed.clone()].into_iter().chain(operators).collect()
    }
}

/// Erases a person. Everything that names them ends or goes in one transaction, with its record.
pub async fn erase(
    connection: &mut PgConnection,
    erasure: NewErasure,
    stamp: &Stamp,
) -> Result<Erased, ErasureError> {
    let mut tx = connection.begin().await?;
    let leaver = leaver(&mut tx, &erasure, stamp).await?;
    check(&mut tx, &leaver, &erasure, stamp).await?;
    let NewErasure { issuer, subject, reason, by, .. } = erasure;
    sessions::end_all_of(&mut tx, &issuer, &subject, SessionEnd::Erased, &by, stamp).await?;
    // Whoever comes back as the same person is a new one to Cortex, and could have a second word.
    let theirs = Theirs {
        issuer: &issuer,
        subject: &subject,
        names: &leaver.names,
        principals: [&leaver.principal, &leaver.committed],
    };
    let withdrawn = withdraw_theirs(&mut tx, &theirs, &by, stamp).await?;
    let (person, users) = (leaver.committed.clone(), leaver.users.clone());
    let what = What::PersonErased(Erasure { person, users, reason, by });
    insert(&mut tx, &[stamp.draft(what).map_err(corrupt)?], stamp).await?;
    let values = forget(&mut tx, &leaver).await?;
    scrub(&mut tx, &leaver, (&issuer, &subject)).await?;
    tx.commit().await?;
    Ok(Erased { person: leaver.committed, values, withdrawn })
}

async fn leaver(tx: &mut PgConnection, erasure: &NewErasure, stamp: &Stamp) -> Result<Leaver, StoreError> {
    let principal = person_subject(&erasure.issuer, &erasure.subject);
    // Somebody of whom nothing is on record yet is one to whom this commits.
    let committed = personal::principal(tx, &principal, &*stamp.random).await?;
    // Nobody writes a record with these any more until this transaction has ended.
    let kept: Vec<(String, String)> = sqlx::query_as(
        "SELECT kind, value FROM personal
         WHERE owner = $1 OR (kind = 'person' AND owner = '' AND value = $1) ORDER BY commitment FOR UPDATE",
    )
    .bind(&principal)
    .fetch_all(&mut *tx)
    .await?;
    let mut names: BTreeSet<String> = erasure.users.iter().map(|name| name.to_lowercase()).collect();
    let called = |email: Option<String>, username: Option<String>| Person {
        issuer: erasure.issuer.clone(),
        subject: erasure.subject.clone(),
        email,
        username,
        groups: BTreeSet::new(),
        sign_in: SignIn::default(),
    };
    let mut add = |person: Person| names.extend(person.names().map(str::to_lowercase));
    add(called(None, None));
    for (kind, value) in kept {
        match kind.as_str() {
            "email" => add(called(Some(value), None)),
            "username" => add(called(None, Some(value))),
            _ => {}
        }
    }
    let names: Vec<String> = names.into_iter().collect();
    let users = sqlx::query_scalar(
        "SELECT commitment FROM personal
         WHERE (kind = 'user' AND lower(value) = ANY($1)) OR (kind = 'person' AND owner = '' AND value = ANY($2))
         ORDER BY commitment FOR UPDATE",
    )
    .bind(&names)
    .bind(names.iter().map(|name| format!("operator:{name}")).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(Leaver { principal, committed, names, users })
}

/// Whether they may be erased now.
async fn check(
    tx: &mut PgConnection,
    leaver: &Leaver,
    erasure: &NewErasure,
    stamp: &Stamp,
) -> Result<(), ErasureError> {
    let reason = erasure.reason.to_lowercase();
    if leaver.names.iter().any(|name| name.len() >= NAME_MIN && reason.contains(name)) {
        return Err(ErasureError::Named);
    }
    if people::is_disabled(&mut *tx, &erasure.issuer, &erasure.subject).await? {
        return Err(ErasureError::Disabled);
    }
    if holds::of_principal(&mut *tx, erasure.issuer.as_str(), &leaver.principal).await?.is_some() {
        return Err(ErasureError::Held);
    }
    let now = stamp.clock.now();
    let frozen: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM frozen WHERE lifted_at IS NULL AND scope ->> 'principal' = $1
             AND (until IS NULL OR until > timestamptz 'epoch' + $2 * interval '1 microsecond'))",
    )
    .bind(&leaver.principal)
    .bind(micros(now))
    .fetch_one(&mut *tx)
    .await?;
    if frozen {
        return Err(ErasureError::Frozen);
    }
    let revoked: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM revocation WHERE scope ->> 'principal' = $1
             AND requested_at > timestamptz 'epoch' + $2 * interval '1 microsecond')",
    )
    .bind(&leaver.principal)
    .bind(micros(revocations::since_longest_life(now)))
    .fetch_one(tx)
    .await?;
    if revoked { Err(ErasureError::Revoked) } else { Ok(()) }
}

/// Deletes what opens the log's commitments; answers how many there were.
async fn forget(tx: &mut PgConnection, leaver: &Leaver) -> Result<u64, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM personal WHERE commitment = ANY($1) OR owner = ANY($2)
             OR (kind = 'person' AND owner = '' AND value = $3)",
    )
    .bind(&leaver.users)
    .bind(leaver.owners())
    .bind(&leaver.principal)
    .execute(tx)
    .await?;
    Ok(gone.rows_affected())
}

/// Takes them out of the tables beside the log, which have names as they are.
async fn scrub(
    tx: &mut PgConnection,
    leaver: &Leaver,
    (issuer, subject): (&IssuerName, &str),
) -> Result<(), StoreError> {
    let mut shown = leaver.committed.clone();
    Place::Principal(&mut shown).open(None);
    let shown_subject = shown.rsplit(':').next().unwrap_or(ERASED).to_owned();
    let mut barred = 0;
    for table in [SCRUB_FREEZES, SCRUB_REVOCATIONS, SCRUB_HOLDS, SCRUB_DISABLED, SCRUB_ENDED] {
        let done =
            sqlx::query(table).bind(&leaver.principal).bind(&shown).bind(ERASED).execute(&mut *tx).await?;
        if [SCRUB_FREEZES, SCRUB_REVOCATIONS].contains(&table) {
            barred += done.rows_affected();
        }
    }
    sqlx::query(SCRUB_ASKED)
        .bind(issuer.as_str())
        .bind(subject)
        .bind(&shown_subject)
        .bind(ERASED)
        .execute(&mut *tx)
        .await?;
    sqlx::query(SCRUB_STARTED).bind(&leaver.names).bind(ERASED).execute(&mut *tx).await?;
    if barred > 0 {
        // The replicas have freezes in memory, and tell callers who set them.
        freezes::next_epoch(tx).await?;
    }
    Ok(())
}

/// A shorter name may be part of any word.
const NAME_MIN: usize = 3;

const SCRUB_FREEZES: &str = "UPDATE frozen SET
        reason = CASE WHEN set_by = $1 THEN $3 ELSE reason END,
        set_by = CASE WHEN set_by = $1 THEN $2 ELSE set_by END,
        lifted_by = CASE WHEN lifted_by = $1 THEN $2 ELSE lifted_by END,
        scope = CASE WHEN scope ->> 'principal' = $1 THEN jsonb_set(scope, '{principal}', to_jsonb($2)) ELSE scope END
    WHERE set_by = $1 OR lifted_by = $1 OR scope ->> 'principal' = $1";

const SCRUB_REVOCATIONS: &str = "UPDATE revocation SET
        reason = CASE WHEN requested_by = $1 THEN $3 ELSE reason END,
        requested_by = CASE WHEN requested_by = $1 THEN $2 ELSE requested_by END,
        scope = CASE WHEN scope ->> 'principal' = $1 THEN jsonb_set(scope, '{principal}', to_jsonb($2)) ELSE scope END
    WHERE requested_by = $1 OR scope ->> 'principal' = $1";

const SCRUB_HOLDS: &str = "UPDATE log_hold SET
        reason = CASE WHEN set_by = $1 THEN $3 ELSE reason END,
        set_by = CASE WHEN set_by = $1 THEN $2 ELSE set_by END,
        lifted_by = CASE WHEN lifted_by = $1 THEN $2 ELSE lifted_by END,
        scope = CASE WHEN scope ->> 'principal' = $1 THEN jsonb_set(scope, '{principal}', to_jsonb($2)) ELSE scope END
    WHERE set_by = $1 OR lifted_by = $1 OR scope ->> 'principal' = $1";

const SCRUB_DISABLED: &str =
    "UPDATE disabled_person SET disabled_by = $2 WHERE disabled_by = $1 AND $3 <> ''";

const SCRUB_ENDED: &str = "UPDATE grant_request SET ended_by = $2,
        ended_because = CASE WHEN ended_because IS NULL THEN NULL ELSE $3 END
    WHERE ended_by = $1";

/// What they asked for ahead of scheduled runs.
const SCRUB_ASKED: &str = "UPDATE grant_request SET
        requester = (requester || jsonb_build_object('subject', $3::text)) - 'email' - 'username',
        reason = CASE WHEN reason IS NULL THEN NULL ELSE $4 END,
        ticket = CASE WHEN ticket IS NULL THEN NULL ELSE $4 END
    WHERE kind = 'standing' AND requester ->> 'issuer' = $1 AND requester ->> 'subject' = $2";

/// What the runs asked for that they started.
const SCRUB_STARTED: &str = "UPDATE grant_request SET triggering_user = $2,
        requester = jsonb_set(requester, '{triggering_user}', to_jsonb($2::text), false),
        request = CASE WHEN lower(request ->> 'triggering_user') = ANY($1)
                       THEN jsonb_set(request, '{triggering_user}', to_jsonb($2::text)) ELSE request END
    WHERE lower(triggering_user) = ANY($1)";
