//! Which issuances a revocation hits, found page by page in the record.

use cortex_core::record::{Settled, SettledHow, What};
use cortex_core::revocation::{Selector, State};
use cortex_core::{IssuanceId, IssuerName, RevocationId, Scope, credential};
use cortex_providers::{Fate, Revokers};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::first_meant;
use super::states::Hit;
use crate::store::barrier::selector;
use crate::store::row::{Stamp, insert};
use crate::store::{StoreError, micros, personal, timestamp};

/// How many issuances are taken at once: their ids have to fit one entry of the record.
const PAGE: i64 = 500;

/// What a revocation would hit.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Preview {
    /// The first issuances, each with the state that it would begin with.
    pub issuances: Vec<Hit>,
    /// Whether there are more than these.
    pub more: bool,
}

/// What the record says of an issuance.
#[derive(sqlx::FromRow)]
struct OpenedRow {
    issuance_id: Uuid,
    provider: String,
    expires_at: i64,
    in_flight: bool,
    leaf: Vec<u8>,
}

/// An issuance whose credential may live.
struct Opened {
    issuance_id: IssuanceId,
    provider: String,
    expires_at: Timestamp,
    in_flight: bool,
    means: credential::Revocation,
}

impl TryFrom<OpenedRow> for Opened {
    type Error = StoreError;

    fn try_from(row: OpenedRow) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Leaf {
            // Entries of before revocation do not say.
            #[serde(default = "expiry_only")]
            revocation: credential::Revocation,
        }
        let OpenedRow { issuance_id, provider, expires_at, in_flight, leaf } = row;
        let Leaf { revocation: means } =
            serde_json::from_slice(&leaf).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        let expires_at = timestamp(expires_at)?;
        Ok(Self { issuance_id: issuance_id.into(), provider, expires_at, in_flight, means })
    }
}

fn expiry_only() -> credential::Revocation {
    credential::Revocation::ExpiryOnly
}

/// The issuances after `after` that `selector` means and whose credentials may live, a page of them in the order of
/// their ids.
async fn opened(
    connection: &mut PgConnection,
    selector: &Selector,
    (after, up_to): (Uuid, Uuid),
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Opened>, StoreError> {
    let columns = Columns::of(selector);
    let names = match columns.principal {
        Some(principal) => Some(personal::spellings(&mut *connection, principal).await?),
        None => None,
    };
    let rows: Vec<OpenedRow> = sqlx::query_as(
        "SELECT o.issuance_id, o.provider, o.leaf, (o.kind = 'issuance.intent' AND e.id IS NULL) AS in_flight,
                (extract(epoch FROM COALESCE(e.expires_at, o.expires_at)) * 1000000)::int8 AS expires_at
         FROM record o
         LEFT JOIN record e ON e.kind = 'issuance.outcome' AND e.issuance_id = o.issuance_id
         WHERE o.kind IN ('issuance.intent', 'issuance.issued')
           AND o.issuance_id > $1 AND o.issuance_id <= $2
           AND COALESCE(e.expires_at, o.expires_at) > timestamptz 'epoch' + $3 * interval '1 microsecond'
           -- A mint that failed left nothing behind, unless what it left was withheld.
           AND (e.outcome IS DISTINCT FROM 'failed' OR e.expires_at IS NOT NULL)
           AND ($4::uuid IS NULL OR o.issuance_id = $4)
           AND ($5::text IS NULL OR o.issuer = $5)
           AND ($6::text IS NULL OR o.policy = $6)
           AND ($7::text IS NULL OR o.dag_id = $7)
           AND ($8::text IS NULL OR o.run_id = $8)
           AND ($9::text IS NULL OR o.principal = ANY($11)
                OR ($9 LIKE 'service%' AND convert_from(o.leaf, 'UTF8')::jsonb #>> '{caller,claimed_by}' = $9))
         ORDER BY o.issuance_id LIMIT $10",
    )
    .bind(after)
    .bind(up_to)
    .bind(micros(now))
    .bind(columns.issuance_id)
    .bind(columns.issuer)
    .bind(columns.policy)
    .bind(columns.dag_id)
    .bind(columns.run_id)
    .bind(columns.principal)
    .bind(limit)
    .bind(names)
    // Planned for these values, so that the index of what is given serves.
    .persistent(false)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Opened::try_from).collect()
}

/// A selector as the record's columns.
#[derive(Default)]
struct Columns<'a> {
    issuance_id: Option<Uuid>,
    issuer: Option<&'a str>,
    policy: Option<&'a str>,
    dag_id: Option<&'a str>,
    run_id: Option<&'a str>,
    principal: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(selector: &'a Selector) -> Self {
        let mut columns = Self::default();
        let scope = match selector {
            Selector::Issuance { issuance_id } => {
                return Self { issuance_id: Some(issuance_id.uuid()), ..columns };
            }
            // The time is in the ids: it is where the search begins.
            Selector::Within { scope, since: _ } => scope,
        };
        match scope {
            Scope::Everything {} => {}
            Scope::Issuer { issuer } => columns.issuer = Some(issuer.as_str()),
            Scope::Policy { policy } => columns.policy = Some(policy.as_str()),
            Scope::Dag { issuer, dag_id } => {
                columns.issuer = issuer.as_ref().map(IssuerName::as_str);
                columns.dag_id = Some(dag_id.as_str());
            }
            Scope::Run { issuer, dag_id, run_id } => {
                columns.issuer = issuer.as_ref().map(IssuerName::as_str);
                columns.dag_id = Some(dag_id.as_str());
                columns.run_id = Some(run_id.as_str());
            }
            Scope::Principal { principal } => columns.principal = Some(principal.as_str()),
        }
        columns
    }
}

/// What `selector` would hit now; nothing is changed.
pub async fn preview(
    connection: &mut PgConnection,
    selector: &Selector,
    revokers: &Revokers,
    now: Timestamp,
) -> Result<Preview, StoreError> {
    let begin = first_meant(selector, now).uuid();
    let found = opened(connection, selector, (begin, Uuid::max()), now, PAGE + 1).await?;
    let more = i64::try_from(found.len()).is_ok_and(|count| count > PAGE);
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let issuances = found.into_iter().take(page).map(|opened| opened.hit(revokers, now)).collect();
    Ok(Preview { issuances, more })
}

impl Opened {
    fn hit(self, revokers: &Revokers, now: Timestamp) -> Hit {
        let Self { issuance_id, provider, expires_at, in_flight: _, means } = self;
        let (target, state) = match revokers.fate(&provider, &means) {
            Fate::Asked { target } => (Some(target), State::Pending { attempts: 0, last_error: None }),
            Fate::AtOnce { evidence } => (None, State::Enforced { at: now, evidence }),
            Fate::ExpiryOnly { why } => (None, State::ExpiresAt { time: expires_at, why }),
        };
        Hit { issuance_id, provider, target, credential_expires_at: expires_at, state }
    }
}

#[derive(sqlx::FromRow)]
struct SpreadRow {
    id: Uuid,
    issuance_id: Option<Uuid>,
    scope: Option<Json<Scope>>,
    since: Option<i64>,
    up_to: Uuid,
    spread_to: Uuid,
}

/// The columns of a [`SpreadRow`].
macro_rules! select_spread {
    ($rest:literal) => {
        concat!(
            "SELECT id, issuance_id, scope, (extract(epoch FROM since) * 1000000)::int8 AS since, up_to, spread_to
             FROM revocation WHERE NOT spread ",
            $rest
        )
    };
}

/// Finds the next page of issuances of a revocation that has not found all of its own, `only` this one if it is given,
/// and puts them into the queue. Answers whether there may be more to do.
pub async fn spread(
    connection: &mut PgConnection,
    only: Option<RevocationId>,
    revokers: &Revokers,
    slack: SignedDuration,
    stamp: &Stamp,
) -> Result<bool, StoreError> {
    let now = stamp.clock.now();
    let mut tx = connection.begin().await?;
    let row: Option<SpreadRow> = sqlx::query_as(match only {
        Some(_) => select_spread!("AND id = $1 FOR UPDATE"),
        None => select_spread!("AND $1::uuid IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"),
    })
    .bind(only.map(RevocationId::uuid))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(SpreadRow { id, issuance_id, scope, since, up_to, spread_to }) = row else { return Ok(false) };
    let selector = selector(issuance_id, scope, since)?;
    let page = opened(&mut tx, &selector, (spread_to, up_to), now, PAGE).await?;
    let complete = i64::try_from(page.len()).is_ok_and(|count| count < PAGE);
    let reached = page.last().map_or(up_to, |last| last.issuance_id.uuid());
    store(&mut tx, id, page, revokers, (now, slack), stamp).await?;
    sqlx::query("UPDATE revocation SET spread_to = $2, spread = $3 WHERE id = $1")
        .bind(id)
        .bind(reached)
        .bind(complete)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// A page of issuances as the columns of `revoked_lease`.
#[derive(Default)]
struct Leases {
    ids: Vec<Uuid>,
    providers: Vec<String>,
    targets: Vec<String>,
    means: Vec<Value>,
    made_before: Vec<i64>,
    expires_at: Vec<i64>,
    states: Vec<&'static str>,
    evidence: Vec<Option<Value>>,
    whys: Vec<Option<String>>,
}

impl Leases {
    fn add(
        &mut self,
        opened: &Opened,
        fate: Fate,
        (now, slack): (Timestamp, SignedDuration),
    ) -> Result<(), StoreError> {
        let (target, state, evidence, why) = match fate {
            Fate::Asked { target } => (target, "pending", None, None),
            Fate::AtOnce { evidence } => (String::new(), "enforced", Some(evidence), None),
            Fate::ExpiryOnly { why } => (String::new(), "expires_at", None, Some(why)),
        };
        let means = serde_json::to_value(&opened.means).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        // What is under way is given up when the slack is over.
        let made_before = if opened.in_flight { now.saturating_add(slack).unwrap_or(now) } else { now };
        self.ids.push(opened.issuance_id.uuid());
        self.providers.push(opened.provider.clone());
        self.targets.push(target);
        self.means.push(means);
        self.made_before.push(micros(made_before));
        self.expires_at.push(micros(opened.expires_at));
        self.states.push(state);
        self.evidence.push(evidence);
        self.whys.push(why);
        Ok(())
    }
}

async fn store(
    tx: &mut PgConnection,
    revocation: Uuid,
    page: Vec<Opened>,
    revokers: &Revokers,
    (now, slack): (Timestamp, SignedDuration),
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let mut leases = Leases::default();
    for opened in &page {
        leases.add(opened, revokers.fate(&opened.provider, &opened.means), (now, slack))?;
    }
    let new = insert_leases(tx, &leases, now).await?;
    sqlx::query(
        "INSERT INTO revocation_hit (revocation_id, issuance_id) SELECT $1, unnest($2::uuid[]) ON CONFLICT DO NOTHING",
    )
    .bind(revocation)
    .bind(&leases.ids)
    .execute(&mut *tx)
    .await?;
    want(tx, &new, now).await?;
    let mut rows = Vec::new();
    for what in settled(&page, &new, revokers) {
        rows.push(stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?);
    }
    if !rows.is_empty() {
        insert(tx, &rows, stamp).await?;
    }
    Ok(())
}

/// Inserts what is not there yet. Answers the ids of what is new or begins anew.
async fn insert_leases(
    tx: &mut PgConnection,
    leases: &Leases,
    now: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO revoked_lease (issuance_id, provider, target, means, revoked_at, made_before, expires_at, state,
                                    settled_at, evidence, why)
         SELECT id, provider, target, means, timestamptz 'epoch' + $1 * interval '1 microsecond',
                timestamptz 'epoch' + made_before * interval '1 microsecond',
                timestamptz 'epoch' + expires_at * interval '1 microsecond', state,
                CASE WHEN state <> 'pending' THEN timestamptz 'epoch' + $1 * interval '1 microsecond' END,
                evidence, why
         FROM unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::int8[], $7::int8[], $8::text[], $9::jsonb[],
                     $10::text[])
              AS t (id, provider, target, means, made_before, expires_at, state, evidence, why)
         -- What could not be ended when it was first revoked, and can be now, is.
         ON CONFLICT (issuance_id) DO UPDATE
         SET state = 'pending', target = excluded.target, revoked_at = excluded.revoked_at, settled_at = NULL,
             why = NULL
         WHERE revoked_lease.state = 'expires_at' AND excluded.state = 'pending'
         RETURNING issuance_id",
    )
    .bind(micros(now))
    .bind(&leases.ids)
    .bind(&leases.providers)
    .bind(&leases.targets)
    .bind(&leases.means)
    .bind(&leases.made_before)
    .bind(&leases.expires_at)
    .bind(&leases.states)
    .bind(&leases.evidence)
    .bind(&leases.whys)
    .fetch_all(tx)
    .await
}

/// Tells the queue that more has to be denied.
async fn want(tx: &mut PgConnection, new: &[Uuid], now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO revocation_target (provider, target, wanted, next_at, not_before)
         SELECT DISTINCT provider, target, 1, timestamptz 'epoch' + $2 * interval '1 microsecond',
                         timestamptz 'epoch' + $2 * interval '1 microsecond'
         FROM revoked_lease WHERE issuance_id = ANY($1) AND state = 'pending' ORDER BY provider, target
         ON CONFLICT (provider, target) DO UPDATE
         SET wanted = revocation_target.wanted + 1, next_at = LEAST(revocation_target.next_at, excluded.next_at)",
    )
    .bind(new)
    .bind(micros(now))
    .execute(tx)
    .await
    .map(drop)
}

/// What is on record of those that no cloud is asked about: one entry for each provider and end.
fn settled(page: &[Opened], new: &[Uuid], revokers: &Revokers) -> Vec<What> {
    let mut entries: Vec<Settled> = Vec::new();
    for opened in page.iter().filter(|opened| new.contains(&opened.issuance_id.uuid())) {
        let how = match revokers.fate(&opened.provider, &opened.means) {
            Fate::Asked { .. } => continue,
            Fate::AtOnce { evidence } => SettledHow::Enforced { evidence },
            Fate::ExpiryOnly { why } => SettledHow::ExpiresAt { why },
        };
        let one = (opened.issuance_id, opened.expires_at);
        match entries.iter_mut().find(|entry| entry.provider == opened.provider && entry.how == how) {
            Some(entry) => entry.issuances.push(one),
            None => entries.push(Settled {
                provider: opened.provider.clone(),
                target: String::new(),
                how,
                issuances: vec![one],
            }),
        }
    }
    entries.into_iter().map(What::RevocationSettled).collect()
}
