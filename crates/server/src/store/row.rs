//! A record as a row: the canonical bytes, and the projections that queries need.

use std::sync::Arc;

use cortex_core::record::{Archived, Denial, Dropped, Entry, GrantEnd, LeafError, Opening, Outcome, What};
use cortex_core::revocation::Selector;
use cortex_core::{Clock, Principal, RecordId, Scope};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::{PgConnection, Postgres, Row as _};
use uuid::Uuid;

use super::draft::{self, Draft};
use super::log::chains;
use super::{StoreError, micros, notifications};
use crate::log::chain::{Batch, Chains};
use crate::notify::{Endpoints, Notice};
use crate::random::Random;

/// Who writes: stamped on every record.
#[derive(Debug, Clone)]
pub struct Author {
    /// The replica's name.
    pub replica: String,
    /// Cortex's version.
    pub build: String,
}

/// Makes records: author, clock and randomness together.
#[derive(Clone)]
pub struct Stamp {
    /// Who writes.
    pub author: Author,
    /// When.
    pub clock: Arc<dyn Clock>,
    /// The bits of ids that time does not fill.
    pub random: Arc<dyn Random>,
    /// Who is told of what is recorded.
    pub endpoints: Endpoints,
    /// What seals it.
    pub chains: Arc<Chains>,
}

impl Stamp {
    /// Writes `what` down as of now; not stored yet.
    pub fn entry(&self, what: What) -> Entry {
        let at = self.clock.now();
        Entry {
            v: 1,
            id: RecordId::new(at, self.random.id_bits()),
            at,
            replica: self.author.replica.clone(),
            build: self.author.build.clone(),
            what,
        }
    }

    /// What the log says of itself, as a row: it names nobody.
    pub(super) fn row(&self, what: What) -> Result<Row, LeafError> {
        Row::new(&self.entry(what))
    }

    /// The record of `what`, to be written with [`insert`] or by the recorder.
    pub(super) fn draft(&self, what: What) -> Result<Draft, LeafError> {
        let entry = self.entry(what);
        let notices = self.endpoints.notices(&entry.what, entry.at, &*self.random);
        Draft::new(entry, notices)
    }
}

/// What a record is found by. Every column but the leaf is a projection of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) at: i64,
    pub(super) kind: &'static str,
    issuance_id: Option<Uuid>,
    decision_id: Option<Uuid>,
    principal: Option<String>,
    issuer: Option<String>,
    dag_id: Option<String>,
    run_id: Option<String>,
    task_id: Option<String>,
    policy: Option<String>,
    policy_digest: Option<Vec<u8>>,
    provider: Option<String>,
    outcome: Option<&'static str>,
    reason: Option<String>,
    grant_id: Option<Uuid>,
    expires_at: Option<i64>,
    pub(super) leaf: Vec<u8>,
    /// Who is told of it, written into the outbox with it.
    pub(super) notices: Vec<Notice>,
}

impl Row {
    pub(super) fn new(entry: &Entry) -> Result<Self, LeafError> {
        let mut row = Self {
            id: entry.id.uuid(),
            at: micros(entry.at),
            kind: entry.what.kind(),
            leaf: entry.leaf()?,
            ..Self::default()
        };
        row.project(&entry.what);
        Ok(row)
    }

    /// The same, of which somebody is told.
    pub(super) fn telling(self, notices: Vec<Notice>) -> Self {
        Self { notices, ..self }
    }

    fn project(&mut self, what: &What) {
        match what {
            What::Intent(opening) => {
                self.opening(opening);
                self.expires_at = Some(micros(opening.worst_case_expiry));
            }
            What::Issued { opening, lease } => {
                self.opening(opening);
                self.outcome = Some("issued");
                self.expires_at = Some(micros(lease.expires_at));
            }
            What::Outcome { issuance_id, outcome } => {
                self.issuance_id = Some(issuance_id.uuid());
                self.outcome = Some(outcome.name());
                self.outcome_details(outcome);
            }
            What::Denial(denial) => self.denial(denial),
            What::Denials { reason, .. } => self.reason = Some(reason.clone()),
            What::PolicyApplied(change) | What::PolicyRetired(change) => {
                self.policy = Some(change.name.clone());
                self.policy_digest = change.digest.map(|digest| digest.as_bytes().to_vec());
                self.principal = Some(change.by.clone());
            }
            What::GuardrailsApplied(change) => self.principal = Some(change.by.clone()),
            What::GrantRequested { .. }
            | What::PreapprovalMade { .. }
            | What::GrantDecided { .. }
            | What::GrantWithdrawn(_)
            | What::GrantExpired(_)
            | What::GrantVoided(_)
            | What::PreapprovalEnded(_) => self.grant(what),
            What::NotificationDead { event, .. } => self.reason = Some(event.clone()),
            What::FreezeSet { by, scope, .. }
            | What::FreezeLifted { by, scope, .. }
            | What::HoldSet { by, scope, .. }
            | What::HoldLifted { by, scope, .. } => self.stopped(by, scope),
            What::RevocationRequested { selector, by, .. } => self.revoked(by, selector),
            What::RevocationFailing { provider, .. } => self.provider = Some(provider.clone()),
            What::RevocationSettled(settled) => self.provider = Some(settled.provider.clone()),
            What::SessionStarted { .. }
            | What::SessionEnded { .. }
            | What::SessionRefused { .. }
            | What::PersonDisabled(_)
            | What::PersonEnabled(_)
            | What::PersonErased(_) => self.people(what),
            What::KeyCreated(change) | What::KeyRotated(change) | What::KeyRetired(change) => {
                self.principal = Some(change.by.clone());
            }
            What::ChainOpened(_) | What::ShardOpened(_) => {}
            What::Archived(Archived { by, .. }) | What::Dropped(Dropped { by, .. }) => {
                self.principal = Some(by.clone());
            }
        }
    }

    /// A row as the database has it.
    pub(super) fn read(row: &PgRow) -> Result<Self, StoreError> {
        let (kind, outcome): (String, Option<String>) = (row.try_get("kind")?, row.try_get("outcome")?);
        let known = |text: &str, all: &[&'static str]| all.iter().find(|name| **name == text).copied();
        Ok(Self {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            kind: known(&kind, What::KINDS).unwrap_or("unknown"),
            issuance_id: row.try_get("issuance_id")?,
            decision_id: row.try_get("decision_id")?,
            principal: row.try_get("principal")?,
            issuer: row.try_get("issuer")?,
            dag_id: row.try_get("dag_id")?,
            run_id: row.try_get("run_id")?,
            task_id: row.try_get("task_id")?,
            policy: row.try_get("policy")?,
            policy_digest: row.try_get("policy_digest")?,
            provider: row.try_get("provider")?,
            outcome: outcome.map(|name| known(&name, Outcome::NAMES).unwrap_or("unknown")),
            reason: row.try_get("reason")?,
            grant_id: row.try_get("grant_id")?,
            expires_at: row.try_get("expires_at")?,
            leaf: row.try_get("leaf")?,
            notices: Vec::new(),
        })
    }

    /// The first column that is not what the entry says.
    pub(super) fn differs_from(&self, entry: &Entry) -> Option<&'static str> {
        let mut true_row =
            Self { id: entry.id.uuid(), at: micros(entry.at), kind: entry.what.kind(), ..Self::default() };
        true_row.project(&entry.what);
        [
            ("id", self.id == true_row.id),
            ("at", self.at == true_row.at),
            ("kind", self.kind == true_row.kind),
            ("issuance_id", self.issuance_id == true_row.issuance_id),
            ("decision_id", self.decision_id == true_row.decision_id),
            ("principal", self.principal == true_row.principal),
            ("issuer", self.issuer == true_row.issuer),
            ("dag_id", self.dag_id == true_row.dag_id),
            ("run_id", self.run_id == true_row.run_id),
            ("task_id", self.task_id == true_row.task_id),
            ("policy", self.policy == true_row.policy),
            ("policy_digest", self.policy_digest == true_row.policy_digest),
            ("provider", self.provider == true_row.provider),
            ("outcome", self.outcome == true_row.outcome),
            ("reason", self.reason == true_row.reason),
            ("grant_id", self.grant_id == true_row.grant_id),
            ("expires_at", self.expires_at == true_row.expires_at),
        ]
        .into_iter()
        .find_map(|(column, same)| (!same).then_some(column))
    }

    fn denial(&mut self, denial: &Denial) {
        self.decision_id = Some(denial.decision_id.uuid());
        self.principal = Some(denial.subject.clone());
        if let Some(principal) = &denial.principal {
            self.run(principal);
        }
        self.policy.clone_from(&denial.policy);
        self.policy_digest = denial.policy_digest.map(|digest| digest.as_bytes().to_vec());
        self.provider.clone_from(&denial.provider);
        self.reason = Some(denial.code.clone());
    }

    fn grant_end(&mut self, end: &GrantEnd) {
        self.grant_id = Some(end.grant_id.uuid());
        self.principal.clone_from(&end.by);
        self.dag_id = Some(end.dag_id.clone());
        self.run_id.clone_from(&end.run_id);
        self.policy = Some(end.policy.to_string());
    }

    fn outcome_details(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Issued { lease, .. } => self.expires_at = Some(micros(lease.expires_at)),
            Outcome::Failed { code, withheld_until, .. } => {
                self.reason = Some(code.clone());
                self.expires_at = withheld_until.map(micros);
            }
            Outcome::Indeterminate { worst_case_expiry, .. } => {
                self.expires_at = Some(micros(*worst_case_expiry));
            }
        }
    }

    /// Approvals.
    fn grant(&mut self, what: &What) {
        match what {
            What::GrantRequested { grant_id, principal, policy, policy_digest, .. }
            | What::PreapprovalMade { grant_id, principal, policy, policy_digest, .. } => {
                self.grant_id = Some(grant_id.uuid());
                self.who(principal);
                self.policy = Some(policy.to_string());
                self.policy_digest = Some(policy_digest.as_bytes().to_vec());
            }
            What::GrantDecided { grant_id, policy, by, dag_id, run_id, .. } => {
                self.grant_id = Some(grant_id.uuid());
                self.who(by);
                self.dag_id.clone_from(dag_id);
                self.run_id.clone_from(run_id);
                self.policy = Some(policy.to_string());
            }
            What::GrantWithdrawn(end)
            | What::GrantExpired(end)
            | What::GrantVoided(end)
            | What::PreapprovalEnded(end) => self.grant_end(end),
            _ => {}
        }
    }

    /// Who signs in, and who no longer may.
    fn people(&mut self, what: &What) {
        match what {
            What::SessionStarted { by, .. } => self.who(by),
            What::SessionEnded { person, .. } => self.principal = Some(person.clone()),
            What::SessionRefused { reason, person, .. } => {
                self.principal = Some(person.clone());
                self.reason = Some(reason.clone());
            }
            What::PersonDisabled(change) | What::PersonEnabled(change) => {
                self.issuer = Some(change.issuer.to_string());
                self.principal = Some(change.by.clone());
            }
            What::PersonErased(erasure) => self.principal = Some(erasure.by.clone()),
            _ => {}
        }
    }

    fn opening(&mut self, opening: &Opening) {
        self.issuance_id = Some(opening.issuance_id.uuid());
        self.principal = Some(opening.subject.clone());
        self.run(&opening.principal);
        self.policy = Some(opening.policy.to_string());
        self.policy_digest = Some(opening.policy_digest.as_bytes().to_vec());
        self.provider = Some(opening.provider.clone());
        self.grant_id = opening.grant.as_ref().map(|grant| grant.id.uuid());
    }

    fn who(&mut self, principal: &Principal) {
        self.principal = Some(principal.subject());
        self.run(principal);
    }

    fn revoked(&mut self, by: &str, selector: &Selector) {
        match selector {
            Selector::Issuance { issuance_id } => {
                self.principal = Some(by.to_owned());
                self.issuance_id = Some(issuance_id.uuid());
            }
            Selector::Within { scope, .. } => self.stopped(by, scope),
        }
    }

    fn stopped(&mut self, by: &str, scope: &Scope) {
        self.principal = Some(by.to_owned());
        match scope {
            Scope::Everything {} | Scope::Principal { .. } => {}
            Scope::Issuer { issuer } => self.issuer = Some(issuer.to_string()),
            Scope::Policy { policy } => self.policy = Some(policy.to_string()),
            Scope::Dag { issuer, dag_id } => {
                self.issuer = issuer.as_ref().map(ToString::to_string);
                self.dag_id = Some(dag_id.to_string());
            }
            Scope::Run { issuer, dag_id, run_id } => {
                self.issuer = issuer.as_ref().map(ToString::to_string);
                self.dag_id = Some(dag_id.to_string());
                self.run_id = Some(run_id.to_string());
            }
        }
    }

    fn run(&mut self, principal: &Principal) {
        self.issuer = Some(principal.issuer().to_string());
        if let Some(run) = principal.as_run() {
            self.dag_id = Some(run.dag_id.to_string());
            self.run_id = Some(run.run_id.to_string());
            self.task_id = Some(run.task_id.to_string());
        }
    }
}

/// The rows that are bound first, as `rows`: their columns, beside each the job that it belongs to, its seal and its place
/// in the batch. And `head`: the chain's new head, where there are any.
macro_rules! rows {
    () => {
        "rows AS (SELECT * FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::uuid[], $5::text[], $6::text[],
                $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::text[], $13::text[], $14::text[],
                $15::uuid[], $16::int8[], $17::bytea[], $18::uuid[], $19::int8[], $20::text[])
             WITH ORDINALITY
             AS t (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy, policy_digest,
                   provider, outcome, reason, grant_id, expires_at, leaf, decision_id, job, seal, place)),
         head AS MATERIALIZED (SELECT advance_chain($21, $22, $23) AS batch WHERE EXISTS (SELECT FROM rows)) "
    };
}

/// Inserts `rows`, those that `$which` selects. A row whose id, opening or outcome is there already is passed over.
macro_rules! insert_rows {
    ($which:literal) => {
        concat!(
            "INSERT INTO record (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy,
                                 policy_digest, provider, outcome, reason, grant_id, expires_at, leaf, decision_id,
                                 chain, batch, place, seal)
             SELECT id, timestamptz 'epoch' + at * interval '1 microsecond', kind, issuance_id, principal, issuer,
                    dag_id, run_id, task_id, policy, policy_digest, provider, outcome, reason, grant_id,
                    timestamptz 'epoch' + expires_at * interval '1 microsecond', leaf, decision_id,
                    $21, head.batch, place, seal
             FROM rows, head ",
            $which,
            " ON CONFLICT DO NOTHING RETURNING id, kind, issuance_id"
        )
    };
}

pub(super) use {insert_rows, rows};

/// Binds `rows`, each with the number of its job, and what their chain says of them: the first 23 parameters of a
/// statement.
pub(super) fn bind<'q, O>(
    query: QueryAs<'q, Postgres, O, PgArguments>,
    rows: &[(i64, &'q Row)],
    batch: &'q Batch,
) -> QueryAs<'q, Postgres, O, PgArguments> {
    fn column<'q, T>(rows: &[(i64, &'q Row)], of: impl Fn(&'q Row) -> T) -> Vec<T> {
        rows.iter().map(|(_, row)| of(row)).collect()
    }
    query
        .bind(column(rows, |row| row.id))
        .bind(column(rows, |row| row.at))
        .bind(column(rows, |row| row.kind))
        .bind(column(rows, |row| row.issuance_id))
        .bind(column(rows, |row| row.principal.as_deref()))
        .bind(column(rows, |row| row.issuer.as_deref()))
        .bind(column(rows, |row| row.dag_id.as_deref()))
        .bind(column(rows, |row| row.run_id.as_deref()))
        .bind(column(rows, |row| row.task_id.as_deref()))
        .bind(column(rows, |row| row.policy.as_deref()))
        .bind(column(rows, |row| row.policy_digest.as_deref()))
        .bind(column(rows, |row| row.provider.as_deref()))
        .bind(column(rows, |row| row.outcome))
        .bind(column(rows, |row| row.reason.as_deref()))
        .bind(column(rows, |row| row.grant_id))
        .bind(column(rows, |row| row.expires_at))
        .bind(column(rows, |row| row.leaf.as_slice()))
        .bind(column(rows, |row| row.decision_id))
        .bind(rows.iter().map(|(job, _)| *job).collect::<Vec<_>>())
        .bind(batch.seals.iter().map(|sealed| sealed.seal.as_str()).collect::<Vec<_>>())
        .bind(batch.chain)
        .bind(batch.expected)
        .bind(batch.number)
}

/// Writes down, within somebody's transaction, what belongs to it, and who is to be told of it.
pub(super) async fn insert(
    connection: &mut PgConnection,
    drafts: &[Draft],
    stamp: &Stamp,
) -> Result<(), StoreError> {
    if drafts.is_empty() {
        return Ok(());
    }
    let rows = draft::close(connection, drafts.iter().collect(), &*stamp.random).await?;
    let rows: Vec<&Row> = rows.iter().map(AsRef::as_ref).collect();
    let batch = chains::at_the_desk(connection, &rows, stamp).await?;
    write(connection, &rows, &batch).await?;
    Ok(notifications::enqueue(connection, &rows).await?)
}

/// Writes a batch, every row of it.
pub(super) async fn write(
    connection: &mut PgConnection,
    rows: &[&Row],
    batch: &Batch,
) -> Result<(), StoreError> {
    let numbered: Vec<_> = rows.iter().map(|row| (0, *row)).collect();
    let query =
        sqlx::query_as::<_, (Uuid, String, Option<Uuid>)>(concat!("WITH ", rows!(), insert_rows!("")));
    let written = bind(query, &numbered, batch).fetch_all(&mut *connection).await?;
    if written.len() == rows.len() {
        return Ok(());
    }
    Err(StoreError::Corrupt("a record with the id of a new one is there already".to_owned()))
}
