//! What is so now: in this replica's memory, read at each scrape, and in the database, read every ten seconds.

use jiff::Timestamp;

use super::process;
use crate::broker::Broker;
use crate::store::StoreError;
use crate::store::measures::{self, Waiting};

/// Measures what is in memory.
pub(crate) fn at_scrape(broker: &Broker) {
    for status in broker.live().identity.status() {
        let labels = [("issuer", status.issuer.to_string())];
        metrics::gauge!("cortex_jwks_keys", &labels).set(number(status.keys.keys));
        if let Some(age) = status.keys.age {
            metrics::gauge!("cortex_jwks_age_seconds", &labels).set(age.as_secs_f64());
        }
    }
    metrics::gauge!("cortex_policies").set(number(broker.library.catalogue().len()));
    metrics::gauge!("cortex_freezes").set(number(broker.barriers.known().freezes(broker.clock.now())));
    let held = broker.leases.held();
    metrics::gauge!("cortex_leases").set(float(held.count));
    metrics::gauge!("cortex_leases_bytes").set(float(held.bytes));
    metrics::gauge!("cortex_leases_limit_bytes").set(float(held.limit_bytes));
    let (waiting, limit) = broker.recorder.queue();
    metrics::gauge!("cortex_record_queue_jobs").set(number(waiting));
    metrics::gauge!("cortex_record_queue_limit_jobs").set(number(limit));
    let idle = broker.pool.num_idle();
    let used = usize::try_from(broker.pool.size()).unwrap_or(usize::MAX).saturating_sub(idle);
    metrics::gauge!("cortex_database_connections", "state" => "idle").set(number(idle));
    metrics::gauge!("cortex_database_connections", "state" => "used").set(number(used));
    metrics::gauge!("cortex_database_connections_limit")
        .set(f64::from(broker.pool.options().get_max_connections()));
    process::measure();
}

/// Measures what is in the database, and whether it answers.
pub(crate) async fn from_database(broker: &Broker) -> Result<(), StoreError> {
    let measured = measure(broker).await;
    metrics::gauge!("cortex_database_up").set(f64::from(measured.is_ok()));
    measured
}

async fn measure(broker: &Broker) -> Result<(), StoreError> {
    let before = broker.clock.now();
    let measured = measures::read(&broker.pool, before).await?;
    let now = broker.clock.now();
    // The database looked at its clock somewhere in between.
    let between = before.saturating_add(now.duration_since(before) / 2).unwrap_or(now);
    metrics::gauge!("cortex_clock_ahead_seconds")
        .set(between.duration_since(measured.database_clock).as_secs_f64());
    metrics::gauge!("cortex_intents_open").set(float(measured.open_intents));
    metrics::gauge!("cortex_grants_waiting").set(float(measured.grants.count));
    metrics::gauge!("cortex_grants_oldest_seconds").set(age(&measured.grants, now));
    metrics::gauge!("cortex_log_size").set(float(measured.log_size));
    metrics::gauge!("cortex_log_unpublished_leaves").set(float(measured.log_unpublished));
    metrics::gauge!("cortex_log_waiting_records").set(float(measured.log.count));
    metrics::gauge!("cortex_log_waiting_seconds").set(age(&measured.log, now));
    let mut outbox = measures::outbox(&broker.pool).await?;
    for endpoint in broker.notifier.names() {
        let waiting = outbox.remove(endpoint).unwrap_or_default();
        let labels = [("endpoint", endpoint.to_owned())];
        metrics::gauge!("cortex_notifications_waiting", &labels).set(float(waiting.count));
        metrics::gauge!("cortex_notifications_oldest_seconds", &labels).set(age(&waiting, now));
    }
    Ok(())
}

fn age(waiting: &Waiting, now: Timestamp) -> f64 {
    waiting.oldest.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0))
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and nobody counts to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
