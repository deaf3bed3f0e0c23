//! How often each cloud may be asked for a credential, as the real ones limit it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::Cloud;

/// The window in which calls are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// One cloud's quota.
#[derive(Debug, Default)]
struct Quota {
    per_window: usize,
    /// When the calls of the last window were made.
    calls: VecDeque<Instant>,
    refused: u64,
}

/// The quotas that are set; a cloud without one takes any number of calls.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<HashMap<Cloud, Quota>>);

impl Quotas {
    pub(crate) fn set(&self, cloud: Cloud, per_window: usize) {
        self.quotas().insert(cloud, Quota { per_window, ..Quota::default() });
    }

    /// Whether one more call is within the quota. One that is not does not count against it.
    pub(crate) fn spend(&self, cloud: Cloud) -> bool {
        let now = Instant::now();
        let mut quotas = self.quotas();
        let Some(quota) = quotas.get_mut(&cloud) else { return true };
        while quota.calls.front().is_some_and(|call| now.duration_since(*call) >= WINDOW) {
            quota.calls.pop_front();
        }
        if quota.calls.len() >= quota.per_window {
            quota.refused += 1;
            return false;
        }
        quota.calls.push_back(now);
        true
    }

    pub(crate) fn refused(&self, cloud: Cloud) -> u64 {
        self.quotas().get(&cloud).map_or(0, |quota| quota.refused)
    }

    fn quotas(&self) -> MutexGuard<'_, HashMap<Cloud, Quota>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_than_the_quota() {
        let quotas = Quotas::default();
        assert!(quotas.spend(Cloud::Aws), "there is none");
        quotas.set(Cloud::Aws, 2);
        assert!(quotas.spend(Cloud::Aws) && quotas.spend(Cloud::Aws) && !quotas.spend(Cloud::Aws));
        tokio::time::advance(WINDOW).await;
        assert!(quotas.spend(Cloud::Aws));
        assert_eq!((quotas.refused(Cloud::Aws), quotas.refused(Cloud::Google)), (1, 0));
    }
}
