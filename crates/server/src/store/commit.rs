//! One commit of the record: many jobs, each whole or not at all, in one statement.
//!
//! A statement is a transaction of its own, so a commit is one round trip. What the jobs need is looked at within it:
//! a grant has to be active and have a use left, a token unspent. A job that is refused leaves the others alone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cortex_identity::Replay;
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::draft::{self, Draft};
use super::log::corrupt;
use super::pen::Pen;
use super::recorder::RecordError;
use super::row::{self, Row, insert_rows, rows};
use super::{StoreError, micros};
use crate::log::chain::{Batch, Sealed};

/// Something to be committed, whole or not at all.
#[derive(Default)]
pub(super) struct Job {
    pub(super) rows: Vec<Draft>,
    pub(super) spend: Option<Replay>,
    pub(super) unspend: Option<Replay>,
    /// The grant that it uses, and when, in microseconds.
    pub(super) grant: Option<(Uuid, i64)>,
    /// Issuance, deadline and worst-case expiry of each intent, the times in microseconds.
    pub(super) opens: Vec<(Uuid, i64, i64)>,
    /// Of what is released after its commit: the epoch in which that was decided.
    pub(super) epoch: Option<i64>,
}

/// How each of its rows is sealed, or why there are none.
pub(super) type Verdict = Result<Vec<Sealed>, RecordError>;

/// What the database answers to a chain that is not where its writer believes it to be.
const CHAIN_MOVED: &str = "CX001";

/// Answers what did not go as asked: a job whose grant is inactive or whose token is spent, and a row that was
/// passed over because one like it is there. An outcome that is new closes its intent; one that is not closes
/// nothing: what was there before it did.
const COMMIT: &str = concat!(
    "WITH ",
    rows!(),
    ", spend AS (SELECT * FROM unnest($24::int8[], $25::text[], $26::bytea[], $27::int8[])
                     AS t (job, issuer, jti_hash, expires_at)),
       uses AS (SELECT job, grant_id, timestamptz 'epoch' + at * interval '1 microsecond' AS at,
                       row_number() OVER (PARTITION BY grant_id ORDER BY job) AS place
                FROM unnest($28::int8[], $29::uuid[], $36::int8[]) AS t (job, grant_id, at)),
       -- Locked until the commit, so that no decision on the grant slips between, and nobody else takes the last
       -- use of one whose uses are counted.
       uncounted AS (SELECT id, expires_at FROM grant_request
                     WHERE id = ANY($29::uuid[]) AND status = 'approved' AND max_uses IS NULL
                     ORDER BY id FOR SHARE),
       counted AS (SELECT id, expires_at, max_uses - uses AS uses_left FROM grant_request
                   WHERE id = ANY($29::uuid[]) AND status = 'approved' AND max_uses IS NOT NULL
                   ORDER BY id FOR UPDATE),
       inactive AS (SELECT job FROM uses
                    WHERE NOT EXISTS (SELECT FROM uncounted WHERE id = grant_id AND expires_at > at)
                      AND NOT EXISTS (SELECT FROM counted
                                      WHERE id = grant_id AND expires_at > at AND place <= uses_left)),
       -- The same until the commit, so that no freeze and no revocation slips between. This lock comes first.
       epoch AS MATERIALIZED (SELECT epoch_of_release() AS epoch),
       overtaken AS (SELECT job FROM unnest($37::int8[], $38::int8[]) AS t (job, decided_in), epoch
                     WHERE decided_in <> epoch),
       barred AS (SELECT job FROM overtaken UNION ALL SELECT job FROM inactive),
       -- Every replica takes the tokens in one order, so that two commits cannot wait for each other.
       spent AS (INSERT INTO spent_token (issuer, jti_hash, expires_at)
                 SELECT issuer, jti_hash, timestamptz 'epoch' + expires_at * interval '1 microsecond'
                 FROM spend WHERE job NOT IN (SELECT job FROM barred) ORDER BY issuer, jti_hash
                 ON CONFLICT DO NOTHING RETURNING issuer, jti_hash),
       replayed AS (SELECT job FROM spend LEFT JOIN spent USING (issuer, jti_hash)
                    WHERE spent.issuer IS NULL AND job NOT IN (SELECT job FROM barred)),
       refused AS (SELECT job FROM barred UNION ALL SELECT job FROM replayed),
       -- Counted with what they let through: a commit that is lost counts nothing, one whose answer is lost once.
       used AS (UPDATE grant_request g
                SET uses = g.uses + t.count,
                    status = CASE WHEN g.uses + t.count = g.max_uses THEN 'spent' ELSE g.status END
                FROM (SELECT grant_id, count(*)::int4 AS count FROM uses JOIN counted ON id = grant_id
                      WHERE job NOT IN (SELECT job FROM refused) GROUP BY grant_id) t
                WHERE g.id = t.grant_id),
       written AS (",
    insert_rows!("WHERE job NOT IN (SELECT job FROM refused)"),
    "),
       opened AS (INSERT INTO open_intent (issuance_id, deadline, worst_case_expiry)
                  SELECT id, timestamptz 'epoch' + deadline * interval '1 microsecond',
                         timestamptz 'epoch' + expiry * interval '1 microsecond'
                  FROM unnest($30::int8[], $31::uuid[], $32::int8[], $33::int8[]) AS t (job, id, deadline, expiry)
                  WHERE job NOT IN (SELECT job FROM refused)),
       closed AS (DELETE FROM open_intent WHERE issuance_id IN
                      (SELECT issuance_id FROM written WHERE kind = 'issuance.outcome')),
       unspent AS (DELETE FROM spent_token WHERE (issuer, jti_hash) IN
                       (SELECT issuer, jti_hash FROM unnest($34::text[], $35::bytea[]) AS t (issuer, jti_hash)))
     SELECT 'inactive', job, NULL::uuid FROM inactive
     UNION ALL SELECT 'overtaken', job, NULL FROM overtaken
     UNION ALL SELECT 'replayed', job, NULL FROM replayed
     -- Asked for, so that the chain is advanced even where every row is refused.
     UNION ALL SELECT 'head', batch, NULL FROM head
     UNION ALL SELECT 'passed over', job, id FROM rows
               WHERE job NOT IN (SELECT job FROM refused) AND id NOT IN (SELECT id FROM written)"
);

/// Something that did not go as asked: what, the job, and the row where it is about one.
type Exception = (String, i64, Option<Uuid>);

/// Commits `batch`, each row as `pen` seals it.
pub(super) async fn commit(pool: &PgPool, batch: &[Job], pen: &mut Pen) -> Result<Vec<Verdict>, StoreError> {
    let mut connection = pool.acquire().await?;
    let first = attempt(&mut connection, batch, pen).await;
    // Somebody closed the chain, or an earlier commit came late after all: nothing of this one was written.
    let moved = |error: &StoreError| {
        let StoreError::Database(error) = error else { return false };
        error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code == CHAIN_MOVED)
    };
    match first {
        Err(error) if moved(&error) => attempt(&mut connection, batch, pen).await,
        other => other,
    }
}

async fn attempt(
    connection: &mut PgConnection,
    batch: &[Job],
    pen: &mut Pen,
) -> Result<Vec<Verdict>, StoreError> {
    let mut refused: HashMap<usize, RecordError> = twins(batch);
    let jobs: Vec<_> = (0..).zip(batch).filter(|(n, _)| !refused.contains_key(n)).collect();
    let jobs: Vec<_> = jobs.into_iter().map(|(n, job)| (i64::try_from(n).unwrap_or(i64::MAX), job)).collect();
    let Written { rows, sealed, exceptions } = write(connection, &jobs, pen).await?;
    let mut passed_over = HashSet::new();
    for (what, job, row) in exceptions {
        let error = match what.as_str() {
            "inactive" => RecordError::GrantGone,
            "overtaken" => RecordError::Overtaken,
            "replayed" => RecordError::Replayed,
            // The chain's head says nothing of a job.
            _ => {
                passed_over.extend(row);
                continue;
            }
        };
        refused.insert(usize::try_from(job).unwrap_or(usize::MAX), error);
    }
    let is_written = |job: i64, row: Uuid| {
        usize::try_from(job).is_ok_and(|job| !refused.contains_key(&job)) && !passed_over.contains(&row)
    };
    let placed = rows.iter().zip(&sealed.seals);
    let written =
        placed.filter(|((job, row), _)| is_written(*job, *row)).map(|((_, row), seal)| (*row, seal));
    let mut seals: HashMap<Uuid, Sealed> = written.clone().map(|(id, seal)| (id, seal.clone())).collect();
    pen.wrote(&sealed, written.map(|(_, seal)| seal.leaf).collect());
    // What was passed over is there from an earlier try of the same job, or another row took its place.
    seals.extend(sealed_before(connection, &passed_over).await?);
    Ok((0..).zip(batch).map(|(n, job)| verdict(job, refused.remove(&n), &seals)).collect())
}

/// A batch that is written: each row's job and id, how they are sealed, and what did not go as asked.
struct Written {
    rows: Vec<(i64, Uuid)>,
    sealed: Batch,
    exceptions: Vec<Exception>,
}

/// Writes the batch: in one statement, and where it has personal values in one transaction with what opens them.
async fn write(
    connection: &mut PgConnection,
    jobs: &[(i64, &Job)],
    pen: &mut Pen,
) -> Result<Written, StoreError> {
    let drafts: Vec<_> = jobs.iter().flat_map(|(n, job)| job.rows.iter().map(|row| (*n, row))).collect();
    if !drafts.iter().any(|(_, draft)| draft.is_personal()) {
        return seal_and_execute(connection, jobs, &drafts, pen).await;
    }
    pen.find(connection).await?;
    let mut tx = connection.begin().await?;
    // This lock comes first for everybody: see the statement.
    sqlx::query("SELECT epoch_of_release()").execute(&mut *tx).await?;
    let written = seal_and_execute(&mut tx, jobs, &drafts, pen).await?;
    tx.commit().await?;
    Ok(written)
}

async fn seal_and_execute(
    connection: &mut PgConnection,
    jobs: &[(i64, &Job)],
    drafts: &[(i64, &Draft)],
    pen: &mut Pen,
) -> Result<Written, StoreError> {
    let random = pen.random();
    let rows = draft::close(connection, drafts.iter().map(|(_, draft)| *draft).collect(), &*random).await?;
    let rows: Vec<(i64, &Row)> =
        drafts.iter().zip(&rows).map(|((job, _), row)| (*job, row.as_ref())).collect();
    let sealed = pen.seal(connection, &rows).await?;
    let exceptions = execute(connection, jobs, &rows, &sealed).await?;
    Ok(Written { rows: rows.iter().map(|(job, row)| (*job, row.id)).collect(), sealed, exceptions })
}

fn verdict(job: &Job, refused: Option<RecordError>, seals: &HashMap<Uuid, Sealed>) -> Verdict {
    if let Some(error) = refused {
        return Err(error);
    }
    let seals: Option<Vec<_>> = job.rows.iter().map(|row| seals.get(&row.id()).cloned()).collect();
    seals.ok_or(RecordError::Superseded)
}

async fn execute(
    connection: &mut PgConnection,
    jobs: &[(i64, &Job)],
    rows: &[(i64, &Row)],
    sealed: &Batch,
) -> Result<Vec<Exception>, sqlx::Error> {
    let spends: Vec<_> = jobs.iter().filter_map(|(n, job)| Some((*n, job.spend.as_ref()?))).collect();
    let grants: Vec<_> = jobs.iter().filter_map(|(n, job)| Some((*n, job.grant?))).collect();
    let opens: Vec<_> = jobs.iter().flat_map(|(n, job)| job.opens.iter().map(|open| (*n, open))).collect();
    let epochs: Vec<_> = jobs.iter().filter_map(|(n, job)| Some((*n, job.epoch?))).collect();
    let unspends: Vec<_> = jobs.iter().filter_map(|(_, job)| job.unspend.as_ref()).collect();
    row::bind(sqlx::query_as(COMMIT), rows, sealed)
        .bind(spends.iter().map(|(n, _)| *n).collect::<Vec<_>>())
        .bind(spends.iter().map(|(_, replay)| replay.issuer.as_str()).collect::<Vec<_>>())
        .bind(spends.iter().map(|(_, replay)| replay.jti_hash.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(spends.iter().map(|(_, replay)| micros(replay.expires_at)).collect::<Vec<_>>())
        .bind(grants.iter().map(|(n, _)| *n).collect::<Vec<_>>())
        .bind(grants.iter().map(|(_, (grant, _))| *grant).collect::<Vec<_>>())
        .bind(opens.iter().map(|(n, _)| *n).collect::<Vec<_>>())
        .bind(opens.iter().map(|(_, open)| open.0).collect::<Vec<_>>())
        .bind(opens.iter().map(|(_, open)| open.1).collect::<Vec<_>>())
        .bind(opens.iter().map(|(_, open)| open.2).collect::<Vec<_>>())
        .bind(unspends.iter().map(|replay| replay.issuer.as_str()).collect::<Vec<_>>())
        .bind(unspends.iter().map(|replay| replay.jti_hash.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(grants.iter().map(|(_, (_, at))| *at).collect::<Vec<_>>())
        .bind(epochs.iter().map(|(n, _)| *n).collect::<Vec<_>>())
        .bind(epochs.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
}

/// Of two jobs that spend one token, the first may.
fn twins(batch: &[Job]) -> HashMap<usize, RecordError> {
    let mut seen = HashSet::new();
    let spends = (0..).zip(batch).filter_map(|(n, job)| Some((n, job.spend.as_ref()?)));
    let again = spends
        .filter(|(_, replay)| !seen.insert((replay.issuer.as_str(), replay.jti_hash.as_bytes().as_slice())));
    again.map(|(n, _)| (n, RecordError::Replayed)).collect()
}

/// How rows that are there already are sealed.
async fn sealed_before(
    connection: &mut PgConnection,
    ids: &HashSet<Uuid>,
) -> Result<HashMap<Uuid, Sealed>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, Vec<u8>, String)> =
        sqlx::query_as("SELECT id, leaf, seal FROM record WHERE id = ANY($1) AND seal IS NOT NULL")
            .bind(ids.iter().copied().collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    rows.into_iter().map(|(id, entry, seal)| Ok((id, Sealed::read(&entry, seal).map_err(corrupt)?))).collect()
}

/// A commit whose answer was lost may have happened: look the rows up instead of writing them twice. By now a freeze or
/// a revocation may have come, so what is released after its commit is not, unless the epoch is still its own.
pub(super) async fn settle(pool: &PgPool, batch: &[Job], why: &str, patience: Duration) -> Vec<Verdict> {
    tracing::warn!(jobs = batch.len(), error = why, "a commit of the record failed or is uncertain");
    metrics::counter!("cortex_record_commit_failures_total").increment(1);
    let ids: HashSet<Uuid> = batch.iter().flat_map(|job| &job.rows).map(Draft::id).collect();
    let look_up = async {
        let mut connection = pool.acquire().await?;
        let epoch: i64 =
            sqlx::query_scalar("SELECT epoch FROM release_epoch").fetch_one(&mut *connection).await?;
        Ok::<_, StoreError>((sealed_before(&mut connection, &ids).await?, epoch))
    };
    let (found, epoch) = match tokio::time::timeout(patience, look_up).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => (HashMap::new(), 0),
    };
    let there = |job: &Job| {
        let current = !job.rows.is_empty() && job.epoch.is_none_or(|of| of == epoch);
        if current { verdict(job, None, &found).ok() } else { None }
    };
    batch.iter().map(|job| there(job).ok_or_else(|| RecordError::Unavailable(why.to_owned()))).collect()
}
