//! What opens the commitments in the log, for as long as nobody is erased: whom records name, and what is theirs.

use std::collections::{BTreeSet, HashMap, HashSet};

use cortex_core::record::Entry;
use cortex_core::record::personal::{self, Personal, PersonalKind, Place};
use cortex_log::personal::{Opening, SALT_BYTES};
use sqlx::{PgConnection, PgExecutor};

use super::StoreError;
use super::log::corrupt;
use crate::random::Random;

/// How often a value is looked for that others write or erase at the same time.
const TRIES: usize = 4;

/// Puts commitments in the place of personal values, and keeps what opens them: in the caller's transaction, so that
/// nobody is named by a record whom nobody can open. Until that has ended, nobody of these is erased.
pub(super) async fn commit(
    connection: &mut PgConnection,
    places: Vec<Place<'_>>,
    random: &dyn Random,
) -> Result<(), StoreError> {
    // In one order for everybody, so that two transactions cannot wait for each other.
    let wanted: BTreeSet<Personal> = places.iter().filter_map(Place::personal).collect();
    let known = commitments(connection, &wanted, random).await?;
    for mut place in places {
        let commitment = match place.personal() {
            Some(personal) => known.get(&personal).cloned(),
            None => place.commitment().map(str::to_owned),
        };
        if let Some(commitment) = commitment {
            place.commit(&commitment);
        }
    }
    Ok(())
}

/// A principal as the log names it. What opens it is kept, as [`commit`] does.
pub(super) async fn principal(
    connection: &mut PgConnection,
    principal: &str,
    random: &dyn Random,
) -> Result<String, StoreError> {
    let mut text = principal.to_owned();
    commit(connection, vec![Place::Principal(&mut text)], random).await?;
    Ok(text)
}

/// The commitments of these values: those that are kept, and new ones.
async fn commitments(
    connection: &mut PgConnection,
    wanted: &BTreeSet<Personal>,
    random: &dyn Random,
) -> Result<HashMap<Personal, String>, StoreError> {
    let mut known = HashMap::new();
    for _ in 0..TRIES {
        let unknown = |known: &HashMap<Personal, String>| {
            wanted.iter().filter(|one| !known.contains_key(*one)).collect::<Vec<_>>()
        };
        let values = unknown(&known).into_iter().filter(|one| one.kind != PersonalKind::Text).collect();
        known.extend(find(connection, values).await?);
        let new = unknown(&known);
        if new.is_empty() {
            return Ok(known);
        }
        // Of two who name somebody for the first time, one writes, and the other one finds it.
        known.extend(keep(connection, new, random).await?);
    }
    if wanted.iter().all(|one| known.contains_key(one)) {
        return Ok(known);
    }
    Err(corrupt("somebody whom a record names is being erased; try again"))
}

type Row = (String, String, String, String);

/// Finds the values among `of` that these rows are of.
fn matched(of: &[&Personal], rows: Vec<Row>) -> Vec<(Personal, String)> {
    let find = |(kind, owner, value, commitment): Row| {
        let one =
            of.iter().find(|one| one.kind.name() == kind && one.owner == owner && one.value == value)?;
        Some(((*one).clone(), commitment))
    };
    rows.into_iter().filter_map(find).collect()
}

async fn find(
    connection: &mut PgConnection,
    values: Vec<&Personal>,
) -> Result<Vec<(Personal, String)>, StoreError> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT p.kind, p.owner, p.value, p.commitment
         FROM personal p JOIN unnest($1::text[], $2::text[], $3::text[]) AS t (kind, owner, value)
              ON p.kind = t.kind AND p.owner = t.owner AND p.value = t.value AND p.kind <> 'text'
         ORDER BY p.kind, p.owner, p.value FOR KEY SHARE OF p",
    )
    .bind(values.iter().map(|one| one.kind.name()).collect::<Vec<_>>())
    .bind(values.iter().map(|one| one.owner.as_str()).collect::<Vec<_>>())
    .bind(values.iter().map(|one| one.value.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(matched(&values, rows))
}

/// Commits to values anew, those that nobody else does at the same time.
async fn keep(
    connection: &mut PgConnection,
    values: Vec<&Personal>,
    random: &dyn Random,
) -> Result<Vec<(Personal, String)>, StoreError> {
    let mut salts = Vec::with_capacity(values.len());
    let mut texts = Vec::with_capacity(values.len());
    for one in &values {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt);
        texts.push(Opening::new(&salt, one.value.clone()).commitment);
        salts.push(salt.to_vec());
    }
    let rows: Vec<Row> = sqlx::query_as(
        "INSERT INTO personal (commitment, salt, kind, owner, value)
         SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[])
         ON CONFLICT DO NOTHING RETURNING kind, owner, value, commitment",
    )
    .bind(texts)
    .bind(salts)
    .bind(values.iter().map(|one| one.kind.name()).collect::<Vec<_>>())
    .bind(values.iter().map(|one| one.owner.as_str()).collect::<Vec<_>>())
    .bind(values.iter().map(|one| one.value.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(matched(&values, rows))
}

/// Puts personal values back in the place of their commitments, for whoever may read records; where they were erased,
/// that they were.
async fn open(executor: impl PgExecutor<'_>, places: Vec<Place<'_>>) -> Result<(), StoreError> {
    let wanted: HashSet<&str> = places.iter().filter_map(Place::commitment).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let found: Vec<(String, String)> =
        sqlx::query_as("SELECT commitment, value FROM personal WHERE commitment = ANY($1)")
            .bind(wanted.into_iter().collect::<Vec<_>>())
            .fetch_all(executor)
            .await?;
    let known: HashMap<String, String> = found.into_iter().collect();
    for mut place in places {
        let value = place.commitment().and_then(|commitment| known.get(commitment));
        place.open(value.map(String::as_str));
    }
    Ok(())
}

/// Opens what these entries commit to.
pub(crate) async fn open_entries(
    executor: impl PgExecutor<'_>,
    entries: &mut [Entry],
) -> Result<(), StoreError> {
    open(executor, entries.iter_mut().flat_map(|entry| entry.what.personal()).collect()).await
}

/// Leaves as readers are shown them: JSON, in which names stand in the place of commitments. What is no entry that this
/// Cortex knows stays as it is.
pub async fn open_leaves<'a>(
    executor: impl PgExecutor<'_>,
    leaves: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut opened: Vec<Vec<u8>> = leaves.map(<[u8]>::to_vec).collect();
    let committing = opened.iter().enumerate().filter(|(_, leaf)| leaf.contains(&b'~'));
    let read = committing.filter_map(|(n, leaf)| Some((n, serde_json::from_slice::<Entry>(leaf).ok()?)));
    let (places, mut entries): (Vec<usize>, Vec<Entry>) = read.unzip();
    open_entries(executor, &mut entries).await?;
    for (n, entry) in places.into_iter().zip(entries) {
        if let Some(leaf) = opened.get_mut(n) {
            *leaf = serde_json::to_vec(&entry).map_err(corrupt)?;
        }
    }
    Ok(opened)
}

/// Every way in which records may name this principal: as it is, and by its commitment.
pub(crate) async fn spellings(
    executor: impl PgExecutor<'_>,
    principal: &str,
) -> Result<Vec<String>, StoreError> {
    let mut spellings = vec![personal::on_record(principal)];
    if personal::by_commitment(principal, "").is_none() {
        return Ok(spellings);
    }
    let commitment = commitment_of(executor, PersonalKind::Person, principal).await?;
    spellings.extend(commitment.and_then(|commitment| personal::by_commitment(principal, &commitment)));
    Ok(spellings)
}

/// Every way in which records may name a user who starts runs.
pub(crate) async fn user_spellings(
    executor: impl PgExecutor<'_>,
    name: &str,
) -> Result<Vec<String>, StoreError> {
    let commitment = commitment_of(executor, PersonalKind::User, name).await?;
    Ok([name.to_owned()].into_iter().chain(commitment).collect())
}

async fn commitment_of(
    executor: impl PgExecutor<'_>,
    kind: PersonalKind,
    value: &str,
) -> Result<Option<String>, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT commitment FROM personal WHERE kind = $1 AND owner = '' AND value = $2 AND kind <> 'text'",
    );
    Ok(query.bind(kind.name()).bind(value).fetch_optional(executor).await?)
}

/// Openings behind the commitment `after`, in the order of commitments; `limit` at the most.
pub(crate) async fn page(
    executor: impl PgExecutor<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<Opening>, StoreError> {
    let rows: Vec<(String, Vec<u8>, String)> = sqlx::query_as(
        "SELECT commitment, salt, value FROM personal WHERE commitment > $1 ORDER BY commitment LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    let opening = |(commitment, salt, value): (String, Vec<u8>, String)| {
        let salt: [u8; SALT_BYTES] = salt.try_into().map_err(|_| corrupt("a salt is not 32 bytes"))?;
        Ok(Opening { commitment, ..Opening::new(&salt, value) })
    };
    rows.into_iter().map(opening).collect()
}
