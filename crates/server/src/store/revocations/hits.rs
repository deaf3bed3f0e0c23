//! Which issuances a revocation hits, found page by page in the record.

use cortex_core::record::{Settled, SettledHow, What};
use cortex_core::revocation::{Selector, State};
use cortex_core::{IssuanceId, IssuerName, RevocationId, Scope, credential};
use cortex_providers::{Fate, Revokers};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::first_meant;
use crate::store::barrier::selector;
use crate::store::row::{Stamp, insert};
use crate::store::{StoreError, micros, timestamp};

/// How many issuances are taken at once: their ids have to fit one entry of the record.
const PAGE: i64 = 500;

/// One issuance of a revocation, and how far it has come.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Hit {
    /// The issuance.
    #[schema(value_type = Uuid)]
    pub issuance_id: IssuanceId,
    /// The provider.
    pub provider: String,
    /// What the cloud has to change, such as a role's ARN; none where no cloud has a part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When the credential expires; of one that was on its way, at the latest.
    #[schema(value_type = String, format = DateTime)]
    pub credential_expires_at: Timestamp,
    /// `state` is `pending` with `attempts` and `last_error`, `enforced` with `at` and `evidence`, or `expires_at`
    /// with `time` and `why`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub state: State,
}

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
           AND ($9::text IS NULL OR o.principal = $9
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
    let row: Option<SpreadRow> = sqlx::query_as(
        "SELECT id, issuance_id, scope, (extract(epoch FROM since) * 1000000)::int8 AS since, up_to, spread_to
         FROM revocation WHERE NOT spread AND ($1::uuid IS NULL OR id = $1)
         ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
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
        rows.push(stamp.row(what).map_err(|e| StoreError::Corrupt(e.to_string()))?);
    }
    if !rows.is_empty() {
        insert(tx, &rows).await?;
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

#[derive(sqlx::FromRow)]
struct HitRow {
    issuance_id: Uuid,
    provider: String,
    target: String,
    expires_at: i64,
    state: String,
    settled_at: Option<i64>,
    evidence: Option<Value>,
    why: Option<String>,
    attempts: Option<i32>,
    last_error: Option<String>,
}

/// The columns of a [`HitRow`].
macro_rules! select_hit {
    ($rest:literal) => {
        concat!(
            "SELECT l.issuance_id, l.provider, l.target,
                    (extract(epoch FROM l.expires_at) * 1000000)::int8 AS expires_at, l.state,
                    (extract(epoch FROM l.settled_at) * 1000000)::int8 AS settled_at, l.evidence, l.why, t.attempts,
                    t.last_error
             FROM revoked_lease l LEFT JOIN revocation_target t USING (provider, target) ",
            $rest
        )
    };
}

impl TryFrom<HitRow> for Hit {
    type Error = StoreError;

    fn try_from(row: HitRow) -> Result<Self, StoreError> {
        let HitRow {
            issuance_id,
            provider,
            target,
            expires_at,
            state,
            settled_at,
            evidence,
            why,
            attempts,
            last_error,
        } = row;
        let expires_at = timestamp(expires_at)?;
        let state = match (state.as_str(), settled_at, evidence, why) {
            ("pending", None, None, None) => State::Pending { attempts: attempts.unwrap_or(0), last_error },
            ("enforced", Some(at), Some(evidence), None) => State::Enforced { at: timestamp(at)?, evidence },
            ("expires_at", Some(_), None, Some(why)) => State::ExpiresAt { time: expires_at, why },
            _ => {
                return Err(StoreError::Corrupt(format!(
                    "the revocation of {issuance_id} has no such state"
                )));
            }
        };
        let target = Some(target).filter(|target| !target.is_empty());
        Ok(Self {
            issuance_id: issuance_id.into(),
            provider,
            target,
            credential_expires_at: expires_at,
            state,
        })
    }
}

/// The issuances of a revocation after `after`, in the order of their ids.
pub async fn hits(
    pool: &PgPool,
    revocation: RevocationId,
    after: Option<IssuanceId>,
    limit: i64,
) -> Result<Vec<Hit>, StoreError> {
    let rows: Vec<HitRow> = sqlx::query_as(select_hit!(
        "JOIN revocation_hit h USING (issuance_id)
         WHERE h.revocation_id = $1 AND ($2::uuid IS NULL OR l.issuance_id > $2)
         ORDER BY l.issuance_id LIMIT $3"
    ))
    .bind(revocation.uuid())
    .bind(after.map(IssuanceId::uuid))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Hit::try_from).collect()
}

/// How far the revocation of one issuance has come, if it is revoked.
pub async fn of_issuance(pool: &PgPool, id: Uuid) -> Result<Option<Hit>, StoreError> {
    let row: Option<HitRow> =
        sqlx::query_as(select_hit!("WHERE l.issuance_id = $1")).bind(id).fetch_optional(pool).await?;
    row.map(Hit::try_from).transpose()
}
