//! Carrying revocations out: finding what they hit, and making the clouds deny it.
//!
//! The queue is in Postgres (`store/revocations`). A target, such as an AWS role, is with one worker at a time; what it
//! has to deny is computed anew from everything that is revoked there, so that overlapping revocations never undo each
//! other and what has expired goes.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::record::SettledHow;
use cortex_core::{IssuanceId, RevocationId};
use cortex_providers::{Enforced, RevokeError, Revoker};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::broker::Broker;
use crate::store::StoreError;
use crate::store::revocations::queue::{self, Claimed};
use crate::store::revocations::{self, LONGEST_LIFE};

/// How often a worker that had nothing to do looks again.
pub const IDLE: Duration = Duration::from_millis(500);
/// How long a cloud may take to notice that a session is over: entries stay for this long after it.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// The longest pause between two attempts.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// How many pages of issuances one round finds at the most, before the clouds' turn comes.
const PAGES: usize = 20;

/// How revocations are carried out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationConfig {
    /// How many clouds' documents one replica changes side by side; each takes a connection to the database now and
    /// then, out of `database.max_connections`. Default 2, at most 16.
    pub workers: usize,
    /// How long a worker has a document to itself before another one takes over, in seconds: longer than a provider's
    /// deadline for it. Default 60.
    pub claim_s: i64,
    /// How often a document in which something is denied is compared with what it has to be, in seconds. What has
    /// expired goes then, and what somebody else changed is put right. Default 60.
    pub review_s: i64,
}

impl Default for RevocationConfig {
    fn default() -> Self {
        Self { workers: 2, claim_s: 60, review_s: 60 }
    }
}

impl RevocationConfig {
    /// What cannot work; `slowest` is the longest that a provider may take for one document.
    pub(crate) fn faults(&self, slowest: SignedDuration) -> Vec<String> {
        let mut faults = Vec::new();
        if !(1..=16).contains(&self.workers) {
            faults.push(format!("revocation.workers is {}: write 1 to 16", self.workers));
        }
        if !(5..=3_600).contains(&self.review_s) {
            faults.push(format!("revocation.review_s is {}: write 5 to 3,600 seconds", self.review_s));
        }
        if self.claim_s <= slowest.as_secs() || self.claim_s > 3_600 {
            let (claim, slowest) = (self.claim_s, slowest.as_secs());
            faults.push(format!(
                "revocation.claim_s is {claim}: write more than the {slowest} seconds that a provider may take, and at \
                 most 3,600"
            ));
        }
        faults
    }
}

/// Works for as long as the replica runs.
pub(crate) async fn work_forever(broker: Arc<Broker>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = work(&broker).await {
            tracing::warn!(%error, "revocations could not be carried out for now; trying again");
        }
    }
}

/// One worker's round: finds what was hit, then changes clouds' documents until none is due.
pub async fn work(broker: &Broker) -> Result<(), StoreError> {
    let due = queue::due(&broker.pool, broker.clock.now()).await?;
    if due.to_spread {
        for _ in 0..PAGES {
            if !spread(broker, None).await? {
                break;
            }
        }
    }
    if due.to_end {
        end_expired(broker).await?;
    }
    if due.to_spread || due.to_enforce {
        let patience = SignedDuration::from_secs(broker.revocation.claim_s);
        while let Some(claimed) = queue::claim(&broker.pool, patience, broker.recorder.stamp()).await? {
            enforce(broker, &claimed).await?;
        }
    }
    Ok(())
}

/// Finds the next page of what revocations hit, `only` this one if it is given. Answers whether there may be more.
pub(crate) async fn spread(broker: &Broker, only: Option<RevocationId>) -> Result<bool, StoreError> {
    let mut connection = broker.pool.acquire().await?;
    let slack = broker.recorder.intent_deadline();
    revocations::spread(&mut connection, only, &broker.live().revokers, slack, broker.recorder.stamp()).await
}

async fn end_expired(broker: &Broker) -> Result<(), StoreError> {
    let mut connection = broker.pool.acquire().await?;
    let ended = queue::end_expired(&mut connection, broker.recorder.stamp()).await?;
    if ended > 0 {
        tracing::warn!(ended, "credentials expired before their cloud had confirmed that they are revoked");
    }
    Ok(())
}

/// Says how much is owed: what no cloud has confirmed yet.
pub(crate) async fn measure(broker: &Broker) -> Result<(), StoreError> {
    let debt = queue::debt(&broker.pool).await?;
    for provider in broker.live().revokers.names() {
        let owed = debt.iter().find(|(of, ..)| of == provider);
        let count = owed.map_or(0, |(_, count, _)| u32::try_from(*count).unwrap_or(u32::MAX));
        let age = owed.map_or(0.0, |(.., oldest)| broker.clock.now().duration_since(*oldest).as_secs_f64());
        metrics::gauge!("cortex_revocations_pending", "provider" => provider.to_owned())
            .set(f64::from(count));
        metrics::gauge!("cortex_revocations_oldest_seconds", "provider" => provider.to_owned()).set(age);
    }
    Ok(())
}

async fn enforce(broker: &Broker, claimed: &Claimed) -> Result<(), StoreError> {
    let now = broker.clock.now();
    let live = broker.live();
    let Some(revoker) = live.revokers.get(&claimed.provider) else {
        let why = format!("this Cortex is not configured to revoke at {}", claimed.provider);
        let retry_at = later(now, LONGEST_PAUSE);
        return queue::fail(&broker.pool, claimed, &why, retry_at, broker.recorder.stamp()).await;
    };
    let leases = queue::live(&broker.pool, claimed, earlier(now, SKEW)).await?;
    let patience = revoker.patience().unsigned_abs();
    let asked = tokio::time::timeout(patience, revoker.enforce(&claimed.target, &leases, now)).await;
    match asked.unwrap_or_else(|_| Err(RevokeError::late(&claimed.provider))) {
        Ok(enforced) => {
            metrics::counter!("cortex_revocation_writes_total", "provider" => claimed.provider.clone(), "outcome" => "confirmed")
                .increment(1);
            let pending: Vec<IssuanceId> =
                leases.iter().filter(|lease| !lease.enforced).map(|lease| lease.issuance_id).collect();
            confirm(broker, claimed, revoker, enforced, &pending, leases.is_empty()).await
        }
        Err(error) => {
            metrics::counter!("cortex_revocation_writes_total", "provider" => claimed.provider.clone(), "outcome" => "failed")
                .increment(1);
            let target = &claimed.target;
            tracing::warn!(%error, target, attempts = claimed.attempts + 1, "a cloud did not confirm a revocation");
            let retry_at = later(now, pause(broker, claimed.attempts, error.retry_after));
            queue::fail(&broker.pool, claimed, &error.to_string(), retry_at, broker.recorder.stamp()).await
        }
    }
}

async fn confirm(
    broker: &Broker,
    claimed: &Claimed,
    revoker: &dyn Revoker,
    enforced: Enforced,
    pending: &[IssuanceId],
    nothing_left: bool,
) -> Result<(), StoreError> {
    let stamp = broker.recorder.stamp();
    let mut connection = broker.pool.acquire().await?;
    let Enforced { evidence, left_out } = enforced;
    let (out, covered): (Vec<_>, Vec<_>) = pending.iter().partition(|id| left_out.issuances.contains(id));
    let how = SettledHow::Enforced { evidence };
    queue::settle(&mut connection, claimed, &covered, &how, stamp).await?;
    queue::settle(&mut connection, claimed, &out, &SettledHow::ExpiresAt { why: left_out.why }, stamp)
        .await?;
    drop(connection);
    if nothing_left && queue::forget(&broker.pool, claimed).await? {
        return Ok(());
    }
    let now = broker.clock.now();
    let review = later(now, SignedDuration::from_secs(broker.revocation.review_s));
    queue::release(&broker.pool, claimed, review, later(now, revoker.pace()), now).await
}

/// The pause before the next attempt: it doubles from a second, is jittered so that replicas do not return together,
/// and is never shorter than what the cloud asked for.
fn pause(broker: &Broker, attempts: i32, asked: Option<SignedDuration>) -> SignedDuration {
    let doubled = SignedDuration::from_secs(1_i64 << attempts.clamp(0, 10)).min(LONGEST_PAUSE);
    let mut jitter = [0];
    broker.random.fill(&mut jitter);
    let share = i32::from(jitter.first().copied().unwrap_or_default());
    let jittered = doubled / 2 + doubled / 2 * share / 255;
    jittered.max(asked.unwrap_or_default()).min(LONGEST_LIFE)
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(now)
}

fn earlier(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_sub(by).unwrap_or(now)
}
