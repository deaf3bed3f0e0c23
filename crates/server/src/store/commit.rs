//! One commit of the record: many jobs, each whole or not at all, in one statement.
//!
//! A statement is a transaction of its own, so a commit is one round trip. What the jobs need is looked at within it:
//! a grant has to be active and have a use left, a token unspent. A job that is refused leaves the others alone.

use std::collections::HashSet;
use std::time::Duration;

use cortex_identity::Replay;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::micros;
use super::recorder::RecordError;
use super::row::{self, Row, insert_rows, rows};

/// Something to be committed, whole or not at all.
#[derive(Default)]
pub(super) struct Job {
    pub(super) rows: Vec<Row>,
    pub(super) spend: Option<Replay>,
    pub(super) unspend: Option<Replay>,
    /// The grant that it uses, and when, in microseconds.
    pub(super) grant: Option<(Uuid, i64)>,
    /// Issuance, deadline and worst-case expiry of each intent, the times in microseconds.
    pub(super) opens: Vec<(Uuid, i64, i64)>,
    /// Of what is released after its commit: the epoch in which that was decided.
    pub(super) epoch: Option<i64>,
}

pub(super) type Verdict = Result<(), RecordError>;

/// Answers what did not go as asked: a job whose grant is inactive or whose token is spent, and a row that was
/// passed over because one like it is there. An outcome that is new closes its intent; one that is not closes
/// nothing: what was there before it did.
const COMMIT: &str = concat!(
    "WITH ",
    rows!(),
    ", spend AS (SELECT * FROM unnest($20::int8[], $21::text[], $22::bytea[], $23::int8[])
                     AS t (job, issuer, jti_hash, expires_at)),
       uses AS (SELECT job, grant_id, timestamptz 'epoch' + at * interval '1 microsecond' AS at,
                       row_number() OVER (PARTITION BY grant_id ORDER BY job) AS place
                FROM unnest($24::int8[], $25::uuid[], $32::int8[]) AS t (job, grant_id, at)),
       -- Locked until the commit, so that no decision on the grant slips between, and nobody else takes the last
       -- use of one whose uses are counted.
       uncounted AS (SELECT id, expires_at FROM grant_request
                     WHERE id = ANY($25::uuid[]) AND status = 'approved' AND max_uses IS NULL
                     ORDER BY id FOR SHARE),
       counted AS (SELECT id, expires_at, max_uses - uses AS uses_left FROM grant_request
                   WHERE id = ANY($25::uuid[]) AND status = 'approved' AND max_uses IS NOT NULL
                   ORDER BY id FOR UPDATE),
       inactive AS (SELECT job FROM uses
                    WHERE NOT EXISTS (SELECT FROM uncounted WHERE id = grant_id AND expires_at > at)
                      AND NOT EXISTS (SELECT FROM counted
                                      WHERE id = grant_id AND expires_at > at AND place <= uses_left)),
       -- The same until the commit, so that no freeze and no revocation slips between. This lock comes first.
       epoch AS MATERIALIZED (SELECT epoch_of_release() AS epoch),
       overtaken AS (SELECT job FROM unnest($33::int8[], $34::int8[]) AS t (job, decided_in), epoch
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
                  FROM unnest($26::int8[], $27::uuid[], $28::int8[], $29::int8[]) AS t (job, id, deadline, expiry)
                  WHERE job NOT IN (SELECT job FROM refused)),
       closed AS (DELETE FROM open_intent WHERE issuance_id IN
                      (SELECT issuance_id FROM written WHERE kind = 'issuance.outcome')),
       unspent AS (DELETE FROM spent_token WHERE (issuer, jti_hash) IN
                       (SELECT issuer, jti_hash FROM unnest($30::text[], $31::bytea[]) AS t (issuer, jti_hash)))
     SELECT 'inactive', job, NULL::uuid FROM inactive
     UNION ALL SELECT 'overtaken', job, NULL FROM overtaken
     UNION ALL SELECT 'replayed', job, NULL FROM replayed
     UNION ALL SELECT 'passed over', job, id FROM rows
               WHERE job NOT IN (SELECT job FROM refused) AND id NOT IN (SELECT id FROM written)"
);

/// Something that did not go as asked: what, the job, and the row where it is about one.
type Exception = (String, i64, Option<Uuid>);

/// Commits `batch`.
pub(super) async fn commit(pool: &PgPool, batch: &[Job]) -> Result<Vec<Verdict>, sqlx::Error> {
    let mut verdicts: Vec<Verdict> = batch.iter().map(|_| Ok(())).collect();
    refuse_twins(batch, &mut verdicts);
    let mut connection = pool.acquire().await?;
    let exceptions = execute(&mut connection, &numbered(batch, &verdicts)).await?;
    let mut passed_over = Vec::new();
    for (what, job, row) in exceptions {
        let Some(verdict) = usize::try_from(job).ok().and_then(|job| verdicts.get_mut(job)) else { continue };
        match (what.as_str(), row) {
            ("inactive", _) => *verdict = Err(RecordError::GrantGone),
            ("overtaken", _) => *verdict = Err(RecordError::Overtaken),
            ("replayed", _) => *verdict = Err(RecordError::Replayed),
            (_, row) => passed_over.extend(row),
        }
    }
    if !passed_over.is_empty() {
        refuse_superseded(&mut connection, batch, &passed_over, &mut verdicts).await?;
    }
    Ok(verdicts)
}

/// The jobs that are not refused yet, each with its number.
fn numbered<'a>(batch: &'a [Job], verdicts: &[Verdict]) -> Vec<(i64, &'a Job)> {
    (0..).zip(batch).zip(verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(job, _)| job).collect()
}

async fn execute(connection: &mut PgConnection, jobs: &[(i64, &Job)]) -> Result<Vec<Exception>, sqlx::Error> {
    let rows: Vec<_> = jobs.iter().flat_map(|(n, job)| job.rows.iter().map(|row| (*n, row))).collect();
    let spends: Vec<_> = jobs.iter().filter_map(|(n, job)| Some((*n, job.spend.as_ref()?))).collect();
    let grants: Vec<_> = jobs.iter().filter_map(|(n, job)| Some((*n, job.grant?))).collect();
    let opens: Vec<_> = jobs.iter().flat_map(|(n, job)| job.opens.iter().map(|open| (*n, open))).collect();
    let epochs: Vec<_> = jobs.iter().filter_map(|(n, job)| Some((*n, job.epoch?))).collect();
    let unspends: Vec<_> = jobs.iter().filter_map(|(_, job)| job.unspend.as_ref()).collect();
    row::bind(sqlx::query_as(COMMIT), &rows)
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
fn refuse_twins(batch: &[Job], verdicts: &mut [Verdict]) {
    let mut seen = HashSet::new();
    for (job, verdict) in batch.iter().zip(verdicts) {
        let Some(replay) = &job.spend else { continue };
        if !seen.insert((replay.issuer.as_str(), replay.jti_hash.as_bytes().as_slice())) {
            *verdict = Err(RecordError::Replayed);
        }
    }
}

/// A row that was passed over is either there from an earlier try of the same job, or another row took its
/// place.
async fn refuse_superseded(
    connection: &mut PgConnection,
    batch: &[Job],
    passed_over: &[Uuid],
    verdicts: &mut [Verdict],
) -> Result<(), sqlx::Error> {
    let present = present(connection, passed_over).await?;
    let displaced: HashSet<Uuid> = passed_over.iter().copied().filter(|id| !present.contains(id)).collect();
    for (job, verdict) in batch.iter().zip(verdicts) {
        if verdict.is_ok() && job.rows.iter().any(|row| displaced.contains(&row.id)) {
            *verdict = Err(RecordError::Superseded);
        }
    }
    Ok(())
}

async fn present(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM record WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(ids.into_iter().collect())
}

/// A commit whose answer was lost may have happened: look the rows up instead of writing them twice. By now a freeze or
/// a revocation may have come, so what is released after its commit is not, unless the epoch is still its own.
pub(super) async fn settle(pool: &PgPool, batch: &[Job], why: &str, patience: Duration) -> Vec<Verdict> {
    tracing::warn!(jobs = batch.len(), error = why, "a commit of the record failed or is uncertain");
    metrics::counter!("cortex_record_commit_failures_total").increment(1);
    let ids: Vec<Uuid> = batch.iter().filter_map(|job| job.rows.first()).map(|row| row.id).collect();
    let look_up = async {
        let mut connection = pool.acquire().await?;
        let epoch: i64 =
            sqlx::query_scalar("SELECT epoch FROM release_epoch").fetch_one(&mut *connection).await?;
        Ok::<_, sqlx::Error>((present(&mut connection, &ids).await?, epoch))
    };
    let (present, epoch) = match tokio::time::timeout(patience, look_up).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => (HashSet::new(), 0),
    };
    let there = |job: &Job| {
        job.rows.first().is_some_and(|row| present.contains(&row.id))
            && job.epoch.is_none_or(|of| of == epoch)
    };
    let gone = || Err(RecordError::Unavailable(why.to_owned()));
    batch.iter().map(|job| if there(job) { Ok(()) } else { gone() }).collect()
}
