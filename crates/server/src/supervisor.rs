//! What a replica does by itself: takes over changes, ends what a crash left open, writes down what was
//! counted. Every replica does all of it; the database sees to it that each thing happens once.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sqlx::postgres::PgListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::log::WITNESSED_EVERY;
use crate::questions;
use crate::revoking;
use crate::store::{CHANGES, RecordError, StoreError, grants, issuances, log, notifications, sessions};
use crate::telemetry;

/// How often overdue intents are looked for, in seconds: with the intents' own deadline, under a minute.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a notification is kept that does not arrive.
const NOTIFICATIONS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often counts are written down, in seconds.
const FLUSH: Duration = Duration::from_secs(10);

/// Starts the loops; they end when `stop` is cancelled.
pub fn start(
    broker: &Arc<Broker>,
    poll: Duration,
    log_every: Duration,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let run = |task: fn(Arc<Broker>, Duration) -> BoxedLoop, every: Duration| {
        let (task, stop) = (task(Arc::clone(broker), every), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    };
    run(|broker, poll| Box::pin(watch_changes(broker, poll)), poll);
    run(|broker, every| Box::pin(sweep_forever(broker, every)), SWEEP);
    run(|broker, every| Box::pin(flush_forever(broker, every)), FLUSH);
    run(
        |broker, every| Box::pin(async move { broker.log.work_forever(&broker.pool, every).await }),
        log_every,
    );
    let shown = |broker: Arc<Broker>, every| -> BoxedLoop {
        Box::pin(async move { broker.witnesses.work_forever(&broker.pool, every).await })
    };
    run(shown, WITNESSED_EVERY);
    for _ in 0..broker.revocation.workers {
        run(|broker, every| Box::pin(revoking::work_forever(broker, every)), revoking::IDLE);
    }
    run(|broker, _| Box::pin(refresh_keys(broker)), poll);
    run(|broker, poll| Box::pin(async move { broker.notifier.deliver_forever(&broker, poll).await }), poll);
    run(|broker, poll| Box::pin(async move { questions::follow_forever(&broker, poll).await }), poll);
    run(|broker, poll| Box::pin(async move { broker.streams.send_forever(&broker, poll).await }), poll);
}

/// Keeps the issuers' keys fresh, of those that are configured now.
async fn refresh_keys(broker: Arc<Broker>) {
    loop {
        let live = broker.live();
        tokio::select! {
            () = live.identity.refresh_loop() => {}
            () = broker.exchanged.notified() => {}
        }
    }
}

type BoxedLoop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Listens for changes of policies, keys, freezes and revocations, and looks for them every `poll` should a notification be lost.
async fn watch_changes(broker: Arc<Broker>, poll: Duration) {
    let mut listener = None;
    loop {
        if listener.is_none() {
            listener = listen(&broker).await;
        }
        take_over(&broker).await;
        match &mut listener {
            None => tokio::time::sleep(poll).await,
            Some(listening) => {
                if let Ok(Err(error)) = tokio::time::timeout(poll, listening.recv()).await {
                    tracing::warn!(%error, "the notification connection was lost; polling");
                    listener = None;
                }
            }
        }
    }
}

async fn listen(broker: &Broker) -> Option<PgListener> {
    let mut listener = PgListener::connect_with(&broker.pool).await.ok()?;
    listener.listen(CHANGES).await.ok()?;
    Some(listener)
}

async fn take_over(broker: &Broker) {
    if let Err(error) = broker.barriers.refresh(&broker.pool).await {
        tracing::warn!(%error, "freezes could not be refreshed; the last known ones hold");
    }
    if let Err(error) = broker.library.refresh(&broker.pool).await {
        tracing::warn!(%error, "policies could not be refreshed; the last known ones are in force");
    }
    if let Err(error) = broker.keyring.refresh(&broker.pool).await {
        tracing::warn!(%error, "keys could not be refreshed; the last known ones are in use");
    }
}

async fn sweep_forever(broker: Arc<Broker>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep(&broker).await {
            tracing::warn!(%error, "overdue intents could not be ended; trying again");
        }
    }
}

/// Ends every intent that its replica has given up, as indeterminate with its worst-case expiry, every grant whose
/// time is over and every session whose time is, and forgets spent tokens that have expired.
pub async fn sweep(broker: &Broker) -> Result<(), StoreError> {
    let now = broker.clock.now();
    for (issuance_id, worst_case_expiry) in issuances::overdue(&broker.pool, now, 500).await? {
        match broker.recorder.abandon(issuance_id, worst_case_expiry).await {
            Ok(()) => tracing::warn!(%issuance_id, "ended an intent that was left open: indeterminate"),
            // Its replica, or another one's supervisor, was quicker after all.
            Err(RecordError::Superseded) => issuances::close(&broker.pool, issuance_id).await?,
            Err(error) => tracing::warn!(%issuance_id, %error, "an overdue intent stays open for now"),
        }
    }
    log::chains::seen(&broker.pool, broker.recorder.stamp().chains.process(), now).await?;
    while grants::expire_due(&broker.pool, broker.recorder.stamp()).await? > 0 {}
    let before = now.saturating_sub(NOTIFICATIONS_KEPT).unwrap_or(Timestamp::MIN);
    notifications::forget(&broker.pool, before).await?;
    // An hour of grace covers every leeway and clock difference.
    let before = now.saturating_sub(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MIN);
    issuances::forget_expired_tokens(&broker.pool, before).await?;
    if let Some(sign_in) = &broker.sign_in {
        let mut connection = broker.pool.acquire().await?;
        sessions::sweep(&mut connection, sign_in.idle_ttl(), 500, broker.recorder.stamp()).await?;
    }
    Ok(())
}

async fn flush_forever(broker: Arc<Broker>, every: Duration) {
    let mut ticks = interval(every);
    loop {
        ticks.tick().await;
        flush(&broker).await;
        if let Err(error) = revoking::measure(&broker).await {
            tracing::warn!(%error, "what revocations are owed could not be counted");
        }
        if let Err(error) = telemetry::from_database(&broker).await {
            tracing::warn!(%error, "what waits in the database could not be counted");
        }
        // Measurements pile up until somebody reads them, and perhaps nobody does.
        if let Some(measurements) = telemetry::recorder() {
            measurements.run_upkeep();
        }
    }
}

/// Writes the counts of unverified callers down.
pub async fn flush(broker: &Broker) {
    if let Err(error) = broker.noise.flush(&broker.recorder).await {
        tracing::warn!(%error, "counts of unverified callers could not be recorded; kept");
    }
}
