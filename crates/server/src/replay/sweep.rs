//! Going through the record of some policies from its newest end: pages are read one after the other, and looked at
//! on threads of their own meanwhile.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::PolicyName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::ReplayError;
use crate::store::replay;

/// How many records are read at once.
const PAGE: u64 = 1_000;
/// How long one page may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a replay may go.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most records of one policy; the newest are looked at.
    pub records: u64,
    /// The longest time.
    pub time: Duration,
    /// How many pages are decided at once, each on a thread of its own; at least 1.
    pub workers: usize,
}

impl Bounds {
    /// Everything that is on record, on all cores: for an operator at the command line.
    pub fn none() -> Self {
        // One page more than there are cores, so that none of them waits for the database.
        Self { records: u64::MAX, time: Duration::MAX, workers: cores() + 1 }
    }
}

/// How many threads this machine runs at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Why not everything was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// There are more records than may be looked at.
    Records,
    /// It took too long.
    Time,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// How many records were read.
    pub records: u64,
    /// The time of the oldest record that was read of the policy at hand.
    #[schema(value_type = String, format = DateTime)]
    pub reached: Timestamp,
    /// How much of the time to look back over is behind it, 0 to 100.
    pub percent: u8,
}

/// What is made of the records.
pub(super) trait Look: Send + Sync + 'static {
    /// What one page comes to, and all of them.
    type Seen: Default + Send + 'static;

    /// Looks at some leaves of the policy with this number.
    fn look(&self, policy: usize, leaves: &[Vec<u8>]) -> Self::Seen;

    /// Adds what another page came to.
    fn add(seen: &mut Self::Seen, more: Self::Seen);
}

/// One way through the record. Dropping it ends it: no page more is read.
pub(super) struct Sweep<L: Look> {
    pool: PgPool,
    look: Arc<L>,
    policies: Vec<PolicyName>,
    since: Timestamp,
    until: Timestamp,
    bounds: Bounds,
    began: Instant,
    /// The number of the policy that is read, and how far.
    at: usize,
    before: Uuid,
    of_this: u64,
    records: u64,
    oldest: Option<Timestamp>,
    cut: Option<Cut>,
    pages: JoinSet<L::Seen>,
    seen: L::Seen,
}

/// What a sweep came to.
pub(super) struct Swept<S> {
    pub(super) seen: S,
    pub(super) cut: Option<Cut>,
    /// The time of the oldest record that was read.
    pub(super) oldest: Option<Timestamp>,
}

impl<L: Look> Sweep<L> {
    pub(super) fn new(
        pool: PgPool,
        look: L,
        policies: Vec<PolicyName>,
        (since, until): (Timestamp, Timestamp),
        bounds: Bounds,
    ) -> Self {
        Self {
            pool,
            look: Arc::new(look),
            policies,
            since,
            until,
            bounds,
            began: Instant::now(),
            at: 0,
            before: Uuid::max(),
            of_this: 0,
            records: 0,
            oldest: None,
            cut: None,
            pages: JoinSet::new(),
            seen: L::Seen::default(),
        }
    }

    /// Goes one page further; none at the end.
    pub(super) async fn step(&mut self) -> Result<Option<Progress>, ReplayError> {
        if self.pages.len() < self.bounds.workers
            && let Some(leaves) = self.next_page().await?
        {
            let (look, policy) = (Arc::clone(&self.look), self.at);
            self.pages.spawn_blocking(move || look.look(policy, &leaves));
            return Ok(Some(self.progress()));
        }
        match self.pages.join_next().await {
            Some(Ok(seen)) => {
                L::add(&mut self.seen, seen);
                Ok(Some(self.progress()))
            }
            Some(Err(_)) => Err(ReplayError::Failed),
            None => Ok(None),
        }
    }

    /// What it came to.
    pub(super) fn end(self) -> Swept<L::Seen> {
        Swept { seen: self.seen, cut: self.cut, oldest: self.oldest }
    }

    /// The next leaves, of the policy `at`; none at the end of them all.
    async fn next_page(&mut self) -> Result<Option<Vec<Vec<u8>>>, ReplayError> {
        while let Some(policy) = self.policies.get(self.at) {
            if self.began.elapsed() >= self.bounds.time {
                self.cut = Some(Cut::Time);
                self.at = self.policies.len();
                return Ok(None);
            }
            let limit = PAGE.min(self.bounds.records.saturating_sub(self.of_this));
            // One row more than may be looked at says whether there is one.
            let read = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
            let page = replay::requests(&self.pool, policy.as_str(), self.since, self.before, read);
            let mut page = timeout(PATIENCE, page).await.map_err(|_| ReplayError::Slow)??;
            let more = page.len() as u64 > limit;
            page.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            if let Some((last, _)) = page.last() {
                self.take(*last, page.len() as u64);
                return Ok(Some(page.into_iter().map(|(_, leaf)| leaf).collect()));
            }
            if more {
                self.cut = Some(Cut::Records);
            }
            self.at += 1;
            (self.before, self.of_this) = (Uuid::max(), 0);
        }
        Ok(None)
    }

    fn take(&mut self, last: Uuid, count: u64) {
        self.before = last;
        self.of_this += count;
        self.records += count;
        let reached = made_at(last).unwrap_or(self.since);
        self.oldest = Some(self.oldest.map_or(reached, |oldest| oldest.min(reached)));
    }

    fn progress(&self) -> Progress {
        let reached = made_at(self.before).unwrap_or(self.until);
        let whole = self.until.duration_since(self.since).as_secs().max(1);
        let behind = self.until.duration_since(reached).as_secs().clamp(0, whole);
        let policies = i64::try_from(self.policies.len().max(1)).unwrap_or(i64::MAX);
        let done = i64::try_from(self.at).unwrap_or(i64::MAX).min(policies);
        let current = if done == policies { 0 } else { behind.saturating_mul(100) / whole };
        let percent = (done.saturating_mul(100).saturating_add(current)) / policies;
        Progress { records: self.records, reached, percent: u8::try_from(percent).unwrap_or(100) }
    }
}

/// When an id was made: the time within a UUID version 7, in milliseconds.
pub(super) fn made_at(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}
