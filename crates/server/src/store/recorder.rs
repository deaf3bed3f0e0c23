//! The record's one writer in a replica: what is waiting is committed together, and every caller is answered
//! after the commit that holds its rows.
//!
//! Two types carry the product's promise. A [`Ticket`] exists only once an intent is durable; a [`Committed`]
//! only once an outcome is. Minting consumes the first, opening a secret needs the second.

use std::time::Duration;

use cortex_core::record::{LeafError, Opening, Outcome, What};
use cortex_core::{GrantId, IssuanceId, Lease};
use cortex_identity::Replay;
use cortex_providers::Ledger;
use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::commit::{Job, Verdict, commit, settle};
use super::micros;
use super::pen::Pen;
use super::row::Stamp;
use crate::log::Health;
use crate::log::chain::Sealed;

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
    /// The issuance that it opened.
    pub fn issuance_id(&self) -> IssuanceId {
        self.issuance_id
    }

    /// When a credential of this intent ends at the latest.
    pub fn worst_case_expiry(&self) -> Timestamp {
        self.worst_case_expiry
    }
}

/// Proof that an issuance is on record: the key to its secret.
#[derive(Debug)]
pub struct Committed {
    issuance_id: IssuanceId,
    sealed: Sealed,
}

impl Committed {
    /// The issuance that is on record.
    pub fn issuance_id(&self) -> IssuanceId {
        self.issuance_id
    }

    /// How its record is sealed.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
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
    /// A freeze or a revocation was set since it was decided: it has to be decided again.
    #[error("a freeze or a revocation came in between")]
    Overtaken,
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
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// The epoch in which it was decided.
    pub epoch: i64,
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
    health: Health,
    intent_deadline: SignedDuration,
}

impl Recorder {
    /// Starts the writer; it ends when the last clone of this is dropped.
    pub fn start(pool: PgPool, stamp: Stamp, health: Health, options: RecorderOptions) -> Self {
        let (jobs, waiting) = mpsc::channel(options.max_batch.saturating_mul(4));
        let pen = Pen::new(stamp.clone(), health.clone());
        tokio::spawn(write(pool, waiting, options, pen));
        Self { jobs, stamp, health, intent_deadline: options.intent_deadline }
    }

    /// How many jobs wait, and how many may.
    pub(crate) fn queue(&self) -> (usize, usize) {
        let limit = self.jobs.max_capacity();
        (limit.saturating_sub(self.jobs.capacity()), limit)
    }

    /// Makes what is written: author, clock, randomness.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// How long after its intent a mint is given up.
    pub fn intent_deadline(&self) -> SignedDuration {
        self.intent_deadline
    }

    /// Commits a request's intents and own credentials, its token and its grant, all or nothing.
    pub async fn admit(&self, admission: Admission) -> Result<Admitted, RecordError> {
        let now = self.stamp.clock.now();
        let deadline = now.saturating_add(self.intent_deadline);
        let deadline = micros(deadline.unwrap_or(Timestamp::MAX));
        let Admission { epoch, intents, issued, replay, grant } = admission;
        let mut rows = Vec::with_capacity(intents.len() + issued.len());
        let mut opens = Vec::with_capacity(intents.len());
        let mut tickets = Vec::with_capacity(intents.len());
        let mut own = Vec::with_capacity(issued.len());
        for opening in intents {
            let (issuance_id, worst_case_expiry) = (opening.issuance_id, opening.worst_case_expiry);
            opens.push((issuance_id.uuid(), deadline, micros(worst_case_expiry)));
            tickets.push(Ticket { issuance_id, worst_case_expiry });
            rows.push(self.stamp.draft(What::Intent(Box::new(opening)))?);
        }
        for (opening, lease) in issued {
            own.push(opening.issuance_id);
            rows.push(self.stamp.draft(What::Issued { opening: Box::new(opening), lease })?);
        }
        let grant = grant.map(|grant| (grant.uuid(), micros(now)));
        let job = Job { rows, spend: replay, grant, opens, epoch: Some(epoch), ..Job::default() };
        let sealed = self.submit(job).await?.into_iter().skip(tickets.len());
        let committed = own.into_iter().zip(sealed);
        let committed = committed.map(|(issuance_id, sealed)| Committed { issuance_id, sealed }).collect();
        Ok(Admitted { tickets, committed })
    }

    /// Writes how an intent ended, patiently: the same row again until it is there. `epoch` is the one in which it was
    /// decided that what was minted may leave; none where nothing leaves.
    pub async fn finish(
        &self,
        open: &OpenIntent,
        outcome: Outcome,
        epoch: Option<i64>,
    ) -> Result<Committed, RecordError> {
        let issuance_id = open.issuance_id;
        let row = self.stamp.draft(What::Outcome { issuance_id, outcome })?;
        let attempts = async {
            let mut pause = Duration::from_millis(50);
            loop {
                let job = Job { rows: vec![row.clone()], epoch, ..Job::default() };
                match self.submit(job).await {
                    Err(RecordError::Unavailable(_)) => tokio::time::sleep(pause).await,
                    other => return other,
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        match tokio::time::timeout(OUTCOME_PATIENCE, attempts).await {
            Ok(Ok(sealed)) => {
                let sealed = sealed.into_iter().next().ok_or(RecordError::Superseded)?;
                Ok(Committed { issuance_id, sealed })
            }
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
        self.finish(&OpenIntent { issuance_id, worst_case_expiry }, outcome, None).await.map(drop)
    }

    /// Writes something down that is neither intent nor outcome.
    pub async fn note(&self, what: What) -> Result<(), RecordError> {
        let rows = vec![self.stamp.draft(what)?];
        self.submit(Job { rows, ..Job::default() }).await.map(drop)
    }

    /// Spends a token for an answer that needs no new record. Where that is a live lease, handed out again, `epoch` is
    /// the one in which it was decided that it may be.
    pub async fn spend(&self, replay: Replay, epoch: Option<i64>) -> Result<(), RecordError> {
        self.submit(Job { spend: Some(replay), epoch, ..Job::default() }).await.map(drop)
    }

    /// Gives a token back that nothing was minted with.
    pub async fn unspend(&self, replay: Replay) -> Result<(), RecordError> {
        self.submit(Job { unspend: Some(replay), ..Job::default() }).await.map(drop)
    }

    async fn submit(&self, job: Job) -> Verdict {
        // What is released after its commit is not while the log is in doubt; what happened is written down all the same.
        if let (Some(_), Some(fault)) = (job.epoch, self.health.fault()) {
            return Err(RecordError::Unavailable(fault.to_string()));
        }
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

async fn write(pool: PgPool, mut waiting: mpsc::Receiver<Waiting>, options: RecorderOptions, mut pen: Pen) {
    let mut next = Vec::with_capacity(options.max_batch);
    let sizes = metrics::histogram!("cortex_record_batch_size");
    let seconds = metrics::histogram!("cortex_record_commit_seconds");
    while waiting.recv_many(&mut next, options.max_batch).await > 0 {
        let (batch, answers): (Vec<Job>, Vec<_>) = next.drain(..).unzip();
        sizes.record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let begun = Instant::now();
        let verdicts =
            match tokio::time::timeout(options.commit_timeout, commit(&pool, &batch, &mut pen)).await {
                Ok(Ok(verdicts)) => verdicts,
                Ok(Err(error)) => settle(&pool, &batch, &error.to_string(), options.commit_timeout).await,
                Err(_) => settle(&pool, &batch, "the commit timed out", options.commit_timeout).await,
            };
        seconds.record(begun.elapsed().as_secs_f64());
        for (answer, verdict) in answers.into_iter().zip(verdicts) {
            // A caller that is gone needs no answer; its rows are written all the same.
            let _ = answer.send(verdict);
        }
    }
}
