//! Keeps what auditors ask by up to date: follows the log as a stream does, and writes down what its leaves say.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::broker::Broker;
use crate::notify::webhook;
use crate::store::StoreError;
use crate::store::questions::{self, CURSOR};
use crate::store::streams::{self, Claimed, Pause};

/// The most records of one step.
const BATCH: u64 = 1_024;
/// The most bytes of one step.
const BATCH_BYTES: usize = 8 << 20;
/// How long one step belongs to the replica that takes it.
const MINE: SignedDuration = SignedDuration::from_secs(30);

/// Follows for as long as it is polled.
pub(crate) async fn follow_forever(broker: &Broker, poll: Duration) {
    let mut begun = false;
    loop {
        match step(broker, &mut begun).await {
            Ok(true) => {}
            Ok(false) => tokio::time::sleep(poll).await,
            Err(error) => {
                tracing::warn!(%error, "what auditors ask by is not up to date; trying again");
                tokio::time::sleep(poll).await;
            }
        }
    }
}

/// Takes the next step, if there is one and no other replica takes it; answers whether it did.
async fn step(broker: &Broker, begun: &mut bool) -> Result<bool, StoreError> {
    let now = broker.clock.now();
    if !*begun {
        streams::begin(&broker.pool, &[CURSOR], now).await?;
        *begun = true;
    }
    let until = now.saturating_add(MINE).unwrap_or(Timestamp::MAX);
    let Some(claimed) = streams::claim(&broker.pool, &[CURSOR], now, until).await?.pop() else {
        return Ok(false);
    };
    if let Err(error) = read(broker, &claimed).await {
        let pause = webhook::pause(claimed.failures.saturating_add(1), &*broker.random);
        let until = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        streams::failed(&broker.pool, &claimed, &Pause { error: error.to_string(), until }).await?;
        return Err(error);
    }
    Ok(true)
}

async fn read(broker: &Broker, claimed: &Claimed) -> Result<(), StoreError> {
    let next = streams::next(&broker.pool, claimed, BATCH).await?.within(BATCH_BYTES);
    questions::note(&broker.pool, claimed, &next.leaves, next.then, broker.clock.now()).await
}
