//! The door to the exchange: so many under way, so many more waiting for so long, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;

use super::AdmissionConfig;

/// A queue with a deadline in front of a bounded number of places.
pub(super) struct Door {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    patience: Duration,
}

/// A place among those under way, until it is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// One who waits, as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let place = waiting.fetch_add(1, Ordering::Relaxed);
        // Counted already, so that leaving takes it off again.
        let this = Self(waiting);
        metrics::gauge!("cortex_admission_waiting").increment(1.0);
        (place < most).then_some(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("cortex_admission_waiting").decrement(1.0);
    }
}

impl Door {
    pub(super) fn new(config: &AdmissionConfig) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.max_exchanges)),
            waiting: AtomicUsize::new(0),
            most_waiting: config.max_waiting,
            patience: Duration::from_millis(config.max_wait_ms),
        }
    }

    /// A place, at once or after a wait; none where too many wait already, or the wait is too long.
    pub(super) async fn enter(&self) -> Option<Place> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => return Some(Place::new(permit)),
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => {}
        }
        let _waiting = Waiting::new(&self.waiting, self.most_waiting)?;
        let permit = timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        permit.ok()?.ok().map(Place::new)
    }
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("cortex_admission_under_way").increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("cortex_admission_under_way").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(places: usize, waiting: usize) -> Door {
        Door::new(&AdmissionConfig {
            max_exchanges: places,
            max_waiting: waiting,
            ..AdmissionConfig::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_of_who_leaves() {
        let door = door(1, 1);
        let first = door.enter().await.unwrap();
        let (second, third, ()) = tokio::join!(door.enter(), door.enter(), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            drop(first);
        });
        assert!(second.is_some() && third.is_none(), "one waits, the other is turned away at once");
        drop(second);
        assert!(door.enter().await.is_some());
        assert_eq!(door.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_deadline() {
        let door = door(1, 10);
        let _first = door.enter().await.unwrap();
        let begun = tokio::time::Instant::now();
        assert!(door.enter().await.is_none());
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert_eq!(door.waiting.load(Ordering::Relaxed), 0);
    }
}
