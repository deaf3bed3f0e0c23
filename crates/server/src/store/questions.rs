//! What auditors ask by that no column of the record has.

use std::collections::HashMap;

use cortex_core::record::{Entry, Opening, What, target};
use cortex_core::{Digest, Principal};
use sqlx::{Connection as _, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::StoreError;
use super::log::corrupt;
use super::streams::{self, Claimed, Leaf, Place};
use jiff::Timestamp;

/// The cursor's name: none that a configured stream can have.
pub(crate) const CURSOR: &str = ":facts";

/// What is known of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fact {
    id: Uuid,
    policy_digest: Option<Digest>,
    target: Option<String>,
    triggering_user: Option<String>,
    break_glass: bool,
    rules: Vec<String>,
}

impl Fact {
    /// What a leaf says; none where nobody asks by any of it.
    fn read(leaf: &Leaf) -> Result<Option<Self>, StoreError> {
        let entry: Entry = serde_json::from_slice(&leaf.record)
            .map_err(|error| corrupt(format!("leaf {} of {}: {error}", leaf.index, leaf.origin)))?;
        Ok(Self::of(entry))
    }

    /// What an entry says; none where nobody asks by any of it.
    pub(super) fn of(entry: Entry) -> Option<Self> {
        let id = entry.id.uuid();
        match entry.what {
            What::Intent(opening) | What::Issued { opening, .. } => {
                Some(Self { id, ..Self::of_opening(*opening) })
            }
            What::Denial(denial) => Some(Self {
                id,
                policy_digest: denial.policy_digest,
                triggering_user: denial.principal.and_then(user),
                rules: denial.reasons.into_iter().map(|reason| reason.rule).collect(),
                ..Self::default()
            }),
            What::GrantRequested { principal, policy_digest, break_glass, .. } => Some(Self {
                id,
                policy_digest: Some(policy_digest),
                triggering_user: user(principal),
                break_glass,
                ..Self::default()
            }),
            What::GrantDecided { break_glass: true, .. } => {
                Some(Self { id, break_glass: true, ..Self::default() })
            }
            _ => None,
        }
    }

    /// Of a record of which nothing is known.
    pub(super) fn none_of(id: Uuid) -> Self {
        Self { id, ..Self::default() }
    }

    /// Each rule once, in their order: as the table has them.
    fn in_order(mut self) -> Self {
        self.rules.sort();
        self.rules.dedup();
        self
    }

    fn of_opening(opening: Opening) -> Self {
        Self {
            policy_digest: Some(opening.policy_digest),
            target: target(&opening.scope),
            triggering_user: user(opening.principal),
            break_glass: opening.grant.is_some_and(|grant| grant.break_glass),
            ..Self::default()
        }
    }

    /// Whether it has anything beside its rules.
    fn says_something(&self) -> bool {
        self.policy_digest.is_some()
            || self.triggering_user.is_some()
            || self.target.is_some()
            || self.break_glass
    }
}

fn user(principal: Principal) -> Option<String> {
    match principal {
        Principal::Run(run) => run.triggering_user,
        Principal::Person(_) | Principal::Service(_) => None,
    }
}

/// Writes down what these leaves say, and how far that goes, at once.
pub(crate) async fn note(
    pool: &PgPool,
    claimed: &Claimed,
    leaves: &[Leaf],
    then: Place,
    now: Timestamp,
) -> Result<(), StoreError> {
    let facts: Vec<Fact> =
        leaves.iter().filter_map(|leaf| Fact::read(leaf).transpose()).collect::<Result<_, _>>()?;
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    insert(&mut tx, &facts).await?;
    streams::arrived(&mut *tx, claimed, then, now).await?;
    tx.commit().await?;
    Ok(())
}

async fn insert(connection: &mut PgConnection, facts: &[Fact]) -> Result<(), StoreError> {
    let some: Vec<&Fact> = facts.iter().filter(|fact| fact.says_something()).collect();
    sqlx::query(
        "INSERT INTO record_fact (id, policy_digest, target, triggering_user, break_glass)
         SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[], $5::bool[]) ON CONFLICT DO NOTHING",
    )
    .bind(some.iter().map(|fact| fact.id).collect::<Vec<_>>())
    .bind(some.iter().map(|fact| fact.policy_digest.map(|d| d.as_bytes().to_vec())).collect::<Vec<_>>())
    .bind(some.iter().map(|fact| fact.target.as_deref()).collect::<Vec<_>>())
    .bind(some.iter().map(|fact| fact.triggering_user.as_deref()).collect::<Vec<_>>())
    .bind(some.iter().map(|fact| fact.break_glass).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let rules = facts.iter().flat_map(|fact| fact.rules.iter().map(|rule| (rule.as_str(), fact.id)));
    let (rules, ids): (Vec<&str>, Vec<Uuid>) = rules.unzip();
    sqlx::query(
        "INSERT INTO record_rule (rule, id) SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING",
    )
    .bind(rules)
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(())
}

/// How far what is known goes: a tree by its number, and an index in it. None where nothing is known yet.
pub(super) async fn known_to(executor: impl PgExecutor<'_>) -> Result<Option<(i32, i64)>, StoreError> {
    let query = sqlx::query_as("SELECT shard, next FROM stream_cursor WHERE name = $1");
    Ok(query.bind(CURSOR).fetch_optional(executor).await?)
}

type FactRow = (Uuid, Option<Vec<u8>>, Option<String>, Option<String>, bool);

/// The first of these records of which something else is known than its leaf says.
pub(super) async fn differing(
    connection: &mut PgConnection,
    expected: &[Fact],
) -> Result<Option<Uuid>, StoreError> {
    let ids: Vec<Uuid> = expected.iter().map(|fact| fact.id).collect();
    let facts: Vec<FactRow> = sqlx::query_as(
        "SELECT id, policy_digest, target, triggering_user, break_glass FROM record_fact WHERE id = ANY($1)",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let rules: Vec<(Uuid, String)> = sqlx::query_as("SELECT id, rule FROM record_rule WHERE id = ANY($1)")
        .bind(&ids)
        .fetch_all(connection)
        .await?;
    let mut found: HashMap<Uuid, Fact> = HashMap::new();
    for (id, digest, target, triggering_user, break_glass) in facts {
        let policy_digest = digest.map(|digest| digest.as_slice().try_into().map_err(corrupt)).transpose()?;
        found.insert(id, Fact { id, policy_digest, target, triggering_user, break_glass, rules: Vec::new() });
    }
    for (id, rule) in rules {
        found.entry(id).or_insert_with(|| Fact::none_of(id)).rules.push(rule);
    }
    let mut known = |id: Uuid| found.remove(&id).unwrap_or_else(|| Fact::none_of(id)).in_order();
    let differs = |fact: &&Fact| known(fact.id) != (*fact).clone().in_order();
    Ok(expected.iter().find(differs).map(|fact| fact.id))
}

/// A record of which something is known although there is none.
pub(super) async fn unfounded(executor: impl PgExecutor<'_>) -> Result<Option<Uuid>, StoreError> {
    Ok(sqlx::query_scalar(
        "(SELECT f.id FROM record_fact f WHERE NOT EXISTS (SELECT FROM record r WHERE r.id = f.id) LIMIT 1)
         UNION ALL
         (SELECT f.id FROM record_rule f WHERE NOT EXISTS (SELECT FROM record r WHERE r.id = f.id) LIMIT 1) LIMIT 1",
    )
    .fetch_optional(executor)
    .await?)
}

/// How many published records are not known yet.
pub async fn behind(executor: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    let progress = streams::progress(executor, &[CURSOR]).await?;
    Ok(progress.first().map_or(0, |progress| progress.behind))
}
