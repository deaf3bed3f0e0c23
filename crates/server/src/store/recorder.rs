//! The record's one writer in a replica: what is waiting is committed together, and every caller is answered
//! after the commit that holds its rows.
//!
//! Two types carry the product's promise. A [`Ticket`] exists only once an intent is durable; a [`Committed`]
//! only once an outcome is. Minting consumes the first, opening a secret needs the second.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cortex_core::record::{LeafError, Opening, Outcome, What};
use cortex_core::{GrantId, IssuanceId, Lease};
use cortex_identity::Replay;
use cortex_providers::Ledger;
use jiff::{SignedDuration, Timestamp};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::micros;
use super::row::{Row, Stamp, insert};

/// How long an outcome is tried to be written before its secret is given up.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(10);

/// Permission to call a provider once: made by a committed intent, consumed by the mint.
#[derive(Debug)]
#[must_use = "an intent that is not minted stays open until the supervisor ends it"]
pub struct Ticket {
    issuance_id: IssuanceId,
    worst_case_expiry: Timestamp,
}

impl Ticket {
    /// Splits the permission from the duty to write down how it ended.
    pub fn redeem(self) -> (Self, OpenIntent) {
        let open = OpenIntent { issuance_id: self.issuance_id, worst_case_expiry: self.worst_case_expiry };
        (self, open)
    }
}

/// An intent whose outcome is still to be written.
#[derive(Debug)]
#[must_use = "the outcome has to be written"]
pub struct OpenIntent {
    issuance_id: IssuanceId,
    worst_case_expiry: Timestamp,
}

impl OpenIntent {
    /// When a credential of this intent ends at the latest.
    pub fn worst_case_expiry(&self) -> Timestamp {
        self.worst_case_expiry
    }
}

/// Proof that an issuance is on record: the key to its secret.
#[derive(Debug)]
pub struct Committed {
    issuance_id: IssuanceId,
}

impl Committed {
    /// The issuance that is on record.
    pub fn issuance_id(&self) -> IssuanceId {
        self.issuance_id
    }
}

impl Ledger for Committed {
    type Ticket = Ticket;
}

/// Why something could not be written down. Nothing is released on any of these.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// The token was exchanged before.
    #[error("the subject token was used before")]
    Replayed,
    /// The grant is no longer active.
    #[error("the grant is no longer active")]
    GrantGone,
    /// The supervisor was quicker: the issuance has ended otherwise.
    #[error("the issuance was ended by the supervisor")]
    Superseded,
    /// The database is away or slow.
    #[error("the record cannot be written: {0}")]
    Unavailable(String),
    /// An entry has no canonical form.
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

/// What one request wants on record before anything is minted or released: all of it, or nothing.
#[derive(Debug, Default)]
pub struct Admission {
    /// Intents for clouds.
    pub intents: Vec<Opening>,
    /// Credentials that Cortex signed itself.
    pub issued: Vec<(Opening, Lease)>,
    /// The token that this spends.
    pub replay: Option<Replay>,
    /// The grant that has to be active.
    pub grant: Option<GrantId>,
}

/// What an [`Admission`] became, in the same order.
#[derive(Debug)]
pub struct Admitted {
    /// Permissions to mint, one for each intent.
    pub tickets: Vec<Ticket>,
    /// Proofs, one for each credential that Cortex signed itself.
    pub committed: Vec<Committed>,
}

/// Something to be committed, whole or not at all.
#[derive(Default)]
struct Job {
    rows: Vec<Row>,
    spend: Option<Replay>,
    unspend: Option<Replay>,
    grant: Option<Uuid>,
    /// Issuance, deadline and worst-case expiry of each intent, the times in microseconds.
    opens: Vec<(Uuid, i64, i64)>,
    closes: Option<Uuid>,
}

type Verdict = Result<(), RecordError>;
type Waiting = (Job, oneshot::Sender<Verdict>);

/// How the writer works.
#[derive(Debug, Clone, Copy)]
pub struct RecorderOptions {
    /// The most jobs in one commit.
    pub max_batch: usize,
    /// How long one commit may take.
    pub commit_timeout: Duration,
    /// How long after its intent a mint is given up: provider timeout, outcome and slack.
    pub intent_deadline: SignedDuration,
}

/// The way to the record; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    jobs: mpsc::Sender<Waiting>,
    stamp: Stamp,
    intent_deadline: SignedDuration,
}

impl Recorder {
    /// Starts the writer; it ends when the last clone of this is dropped.
    pub fn start(pool: PgPool, stamp: Stamp, options: RecorderOptions) -> Self {
        let (jobs, waiting) = mpsc::channel(options.max_batch.saturating_mul(4));
        tokio::spawn(write(pool, waiting, options));
        Self { jobs, stamp, intent_deadline: options.intent_deadline }
    }

    /// Makes what is written: author, clock, randomness.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Commits a request's intents and own credentials, its token and its grant, all or nothing.
    pub async fn admit(&self, admission: Admission) -> Result<Admitted, RecordError> {
        let deadline = self.stamp.clock.now().saturating_add(self.intent_deadline);
        let deadline = micros(deadline.unwrap_or(Timestamp::MAX));
        let Admission { intents, issued, replay, grant } = admission;
        let mut rows = Vec::with_capacity(intents.len() + issued.len());
        let mut opens = Vec::with_capacity(intents.len());
        let mut tickets = Vec::with_capacity(intents.len());
        let mut committed = Vec::with_capacity(issued.len());
        for opening in intents {
            let (issuance_id, worst_case_expiry) = (opening.issuance_id, opening.worst_case_expiry);
            opens.push((issuance_id.uuid(), deadline, micros(worst_case_expiry)));
            tickets.push(Ticket { issuance_id, worst_case_expiry });
            rows.push(self.stamp.row(What::Intent(Box::new(opening)))?);
        }
        for (opening, lease) in issued {
            committed.push(Committed { issuance_id: opening.issuance_id });
            rows.push(self.stamp.row(What::Issued { opening: Box::new(opening), lease })?);
        }
        self.submit(Job { rows, spend: replay, grant: grant.map(GrantId::uuid), opens, ..Job::default() })
            .await?;
        Ok(Admitted { tickets, committed })
    }

    /// Writes how an intent ended, patiently: the same row again until it is there.
    pub async fn finish(&self, open: OpenIntent, outcome: Outcome) -> Result<Committed, RecordError> {
        let issuance_id = open.issuance_id;
        let row = self.stamp.row(What::Outcome { issuance_id, outcome })?;
        let attempts = async {
            let mut pause = Duration::from_millis(50);
            loop {
                let job = Job { rows: vec![row.clone()], closes: Some(issuance_id.uuid()), ..Job::default() };
                match self.submit(job).await {
                    Err(RecordError::Unavailable(_)) => tokio::time::sleep(pause).await,
                    other => return other,
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        match tokio::time::timeout(OUTCOME_PATIENCE, attempts).await {
            Ok(Ok(())) => Ok(Committed { issuance_id }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(RecordError::Unavailable("the outcome could not be written in time".into())),
        }
    }

    /// Ends an intent that its replica left open.
    pub(crate) async fn abandon(
        &self,
        issuance_id: IssuanceId,
        worst_case_expiry: Timestamp,
    ) -> Result<(), RecordError> {
        let message = "the replica that minted it did not say how it ended".to_owned();
        let outcome = Outcome::Indeterminate { message, worst_case_expiry };
        self.finish(OpenIntent { issuance_id, worst_case_expiry }, outcome).await.map(drop)
    }

    /// Writes something down that is neither intent nor outcome.
    pub async fn note(&self, what: What) -> Result<(), RecordError> {
        let rows = vec![self.stamp.row(what)?];
        self.submit(Job { rows, ..Job::default() }).await
    }

    /// Spends a token for an answer that needs no new record: a live lease, handed out again.
    pub async fn spend(&self, replay: Replay) -> Result<(), RecordError> {
        self.submit(Job { spend: Some(replay), ..Job::default() }).await
    }

    /// Gives a token back that nothing was minted with.
    pub async fn unspend(&self, replay: Replay) -> Result<(), RecordError> {
        self.submit(Job { unspend: Some(replay), ..Job::default() }).await
    }

    async fn submit(&self, job: Job) -> Result<(), RecordError> {
        let (done, answer) = oneshot::channel();
        let stopped = || RecordError::Unavailable("the writer has stopped".into());
        // A full queue says so at once: waiting in line for the line helps nobody.
        self.jobs.try_send((job, done)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => RecordError::Unavailable("the queue is full".into()),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn write(pool: PgPool, mut waiting: mpsc::Receiver<Waiting>, options: RecorderOptions) {
    let mut next = Vec::with_capacity(options.max_batch);
    while waiting.recv_many(&mut next, options.max_batch).await > 0 {
        let (batch, answers): (Vec<Job>, Vec<_>) = next.drain(..).unzip();
        metrics::histogram!("cortex_record_batch_size")
            .record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let verdicts = match tokio::time::timeout(options.commit_timeout, commit(&pool, &batch)).await {
            Ok(Ok(verdicts)) => verdicts,
            Ok(Err(error)) => settle(&pool, &batch, &error.to_string(), options.commit_timeout).await,
            Err(_) => settle(&pool, &batch, "the commit timed out", options.commit_timeout).await,
        };
        for (answer, verdict) in answers.into_iter().zip(verdicts) {
            // A caller that is gone needs no answer; its rows are written all the same.
            let _ = answer.send(verdict);
        }
    }
}

type Verdicts = Vec<Verdict>;

/// One transaction for the whole batch. A job that is refused (replay, grant) leaves the others alone.
async fn commit(pool: &PgPool, batch: &[Job]) -> Result<Verdicts, sqlx::Error> {
    let mut verdicts: Verdicts = batch.iter().map(|_| Ok(())).collect();
    let mut tx = pool.begin().await?;
    refuse_inactive_grants(&mut tx, batch, &mut verdicts).await?;
    refuse_replays(&mut tx, batch, &mut verdicts).await?;
    let rows: Vec<&Row> = accepted(batch, &verdicts).flat_map(|job| &job.rows).collect();
    if !rows.is_empty() {
        let new: HashSet<Uuid> = insert(&mut tx, &rows).await?.into_iter().collect();
        if new.len() < rows.len() {
            refuse_superseded(&mut tx, batch, &new, &mut verdicts).await?;
        }
    }
    open_and_close(&mut tx, batch, &verdicts).await?;
    tx.commit().await?;
    Ok(verdicts)
}

fn accepted<'a>(batch: &'a [Job], verdicts: &'a [Verdict]) -> impl Iterator<Item = &'a Job> {
    batch.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(job, _)| job)
}

async fn refuse_inactive_grants(
    tx: &mut PgConnection,
    batch: &[Job],
    verdicts: &mut Verdicts,
) -> Result<(), sqlx::Error> {
    let wanted: Vec<Uuid> = batch.iter().filter_map(|job| job.grant).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // Locked until the commit, so that no decision on the grant slips between.
    let active: HashSet<Uuid> = sqlx::query_scalar(
        "SELECT id FROM grant_request WHERE id = ANY($1) AND status = 'approved' ORDER BY id FOR SHARE",
    )
    .bind(wanted)
    .fetch_all(tx)
    .await?
    .into_iter()
    .collect();
    for (job, verdict) in batch.iter().zip(verdicts) {
        if job.grant.is_some_and(|grant| !active.contains(&grant)) {
            *verdict = Err(RecordError::GrantGone);
        }
    }
    Ok(())
}

async fn refuse_replays(
    tx: &mut PgConnection,
    batch: &[Job],
    verdicts: &mut Verdicts,
) -> Result<(), sqlx::Error> {
    let mut first: HashMap<(&str, &[u8]), (usize, i64)> = HashMap::new();
    for (index, job) in batch.iter().enumerate() {
        let (Some(replay), Some(Ok(()))) = (&job.spend, verdicts.get(index)) else { continue };
        let key = (replay.issuer.as_str(), replay.jti_hash.as_bytes().as_slice());
        if let std::collections::hash_map::Entry::Vacant(place) = first.entry(key) {
            place.insert((index, micros(replay.expires_at)));
        } else if let Some(verdict) = verdicts.get_mut(index) {
            *verdict = Err(RecordError::Replayed);
        }
    }
    if first.is_empty() {
        return Ok(());
    }
    let mut spent: Vec<_> = first.into_iter().collect();
    // Every replica takes the rows in one order, so that two batches cannot wait for each other.
    spent.sort_unstable();
    let new: Vec<i64> = sqlx::query_scalar(
        "WITH t AS (SELECT * FROM unnest($1::text[], $2::bytea[], $3::int8[], $4::int8[])
                        AS t (issuer, jti_hash, expires_at, index)),
              new AS (INSERT INTO spent_token (issuer, jti_hash, expires_at)
                      SELECT issuer, jti_hash, timestamptz 'epoch' + expires_at * interval '1 microsecond'
                      FROM t ON CONFLICT DO NOTHING RETURNING issuer, jti_hash)
         SELECT t.index FROM t JOIN new USING (issuer, jti_hash)",
    )
    .bind(spent.iter().map(|((issuer, _), _)| *issuer).collect::<Vec<_>>())
    .bind(spent.iter().map(|((_, jti), _)| *jti).collect::<Vec<_>>())
    .bind(spent.iter().map(|(_, (_, expires_at))| *expires_at).collect::<Vec<_>>())
    .bind(spent.iter().map(|(_, (index, _))| i64::try_from(*index).unwrap_or(-1)).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    let new: HashSet<i64> = new.into_iter().collect();
    for (_, (index, _)) in spent {
        if !new.contains(&i64::try_from(index).unwrap_or(-1))
            && let Some(verdict) = verdicts.get_mut(index)
        {
            *verdict = Err(RecordError::Replayed);
        }
    }
    Ok(())
}

/// A row that was passed over is either there from an earlier try of the same job, or another row took its
/// place.
async fn refuse_superseded(
    tx: &mut PgConnection,
    batch: &[Job],
    new: &HashSet<Uuid>,
    verdicts: &mut Verdicts,
) -> Result<(), sqlx::Error> {
    let missing: Vec<Uuid> = accepted(batch, verdicts)
        .flat_map(|job| &job.rows)
        .map(|row| row.id)
        .filter(|id| !new.contains(id))
        .collect();
    let present = present(tx, &missing).await?;
    for (job, verdict) in batch.iter().zip(verdicts) {
        let there = |row: &Row| new.contains(&row.id) || present.contains(&row.id);
        if verdict.is_ok() && !job.rows.iter().all(there) {
            *verdict = Err(RecordError::Superseded);
        }
    }
    Ok(())
}

async fn present(tx: &mut PgConnection, ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM record WHERE id = ANY($1)").bind(ids).fetch_all(tx).await?;
    Ok(ids.into_iter().collect())
}

async fn open_and_close(
    tx: &mut PgConnection,
    batch: &[Job],
    verdicts: &Verdicts,
) -> Result<(), sqlx::Error> {
    let opens: Vec<_> = accepted(batch, verdicts).flat_map(|job| job.opens.iter().copied()).collect();
    if !opens.is_empty() {
        sqlx::query(
            "INSERT INTO open_intent (issuance_id, deadline, worst_case_expiry)
             SELECT id, timestamptz 'epoch' + deadline * interval '1 microsecond',
                    timestamptz 'epoch' + expiry * interval '1 microsecond'
             FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS t (id, deadline, expiry)",
        )
        .bind(opens.iter().map(|open| open.0).collect::<Vec<_>>())
        .bind(opens.iter().map(|open| open.1).collect::<Vec<_>>())
        .bind(opens.iter().map(|open| open.2).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    // A superseded outcome closes nothing: what superseded it did.
    let closes: Vec<Uuid> = accepted(batch, verdicts).filter_map(|job| job.closes).collect();
    if !closes.is_empty() {
        sqlx::query("DELETE FROM open_intent WHERE issuance_id = ANY($1)")
            .bind(closes)
            .execute(&mut *tx)
            .await?;
    }
    let unspent: Vec<&Replay> = accepted(batch, verdicts).filter_map(|job| job.unspend.as_ref()).collect();
    if !unspent.is_empty() {
        sqlx::query(
            "DELETE FROM spent_token WHERE (issuer, jti_hash) IN
                 (SELECT issuer, jti_hash FROM unnest($1::text[], $2::bytea[]) AS t (issuer, jti_hash))",
        )
        .bind(unspent.iter().map(|replay| replay.issuer.as_str()).collect::<Vec<_>>())
        .bind(unspent.iter().map(|replay| replay.jti_hash.as_bytes().as_slice()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// A commit whose answer was lost may have happened: look the rows up instead of writing them twice.
async fn settle(pool: &PgPool, batch: &[Job], why: &str, patience: Duration) -> Verdicts {
    tracing::warn!(jobs = batch.len(), error = why, "a commit of the record failed or is uncertain");
    metrics::counter!("cortex_record_commit_failures_total").increment(1);
    let ids: Vec<Uuid> = batch.iter().filter_map(|job| job.rows.first()).map(|row| row.id).collect();
    let look_up = async {
        let mut connection = pool.acquire().await?;
        present(&mut connection, &ids).await
    };
    let present = match tokio::time::timeout(patience, look_up).await {
        Ok(Ok(present)) => present,
        Ok(Err(_)) | Err(_) => HashSet::new(),
    };
    let there = |job: &Job| job.rows.first().is_some_and(|row| present.contains(&row.id));
    let gone = || Err(RecordError::Unavailable(why.to_owned()));
    batch.iter().map(|job| if there(job) { Ok(()) } else { gone() }).collect()
}
