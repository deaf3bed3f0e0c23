//! The door to a cloud account: how many calls go through it in a second and at once, and whether any does.
//!
//! Every mint goes through its account's door before its intent is written, so that what is turned away has no trace
//! but its count; and each call of a mint, retries included, takes a token of the account's rate. One account's door
//! knows nothing of another's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::rate::{Bucket, FURTHEST, Rate};
use cortex_core::{Digest, IssuanceId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::{Answer, Breaker};
use crate::config::BreakerConfig;

/// How many accounts have a door at once. Policies name them, so there are few.
const ACCOUNTS_MAX: usize = 1_000;

/// What holds for each account of a provider.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) provider: &'static str,
    pub(crate) per_second: u32,
    pub(crate) at_once: u32,
    pub(crate) breaker: BreakerConfig,
}

/// The accounts of one provider, each with its door.
pub(crate) struct Accounts {
    limits: Arc<Limits>,
    known: Mutex<HashMap<String, Arc<Account>>>,
}

impl Accounts {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits: Arc::new(limits), known: Mutex::default() }
    }

    /// The account of this name.
    pub(crate) fn get(&self, name: &str) -> Arc<Account> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = known.get(name) {
            return Arc::clone(account);
        }
        if known.len() >= ACCOUNTS_MAX {
            // What nobody uses at the moment is forgotten, with what was known of it.
            known.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let account = Arc::new(Account::new(name.to_owned(), Arc::clone(&self.limits)));
        known.insert(name.to_owned(), Arc::clone(&account));
        account
    }
}

/// One account's door.
pub(crate) struct Account {
    name: String,
    limits: Arc<Limits>,
    rate: Rate,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// The quota, as mints are let in.
    bucket: Bucket,
    /// The quota, as calls are made: those that were let in one after the other may have waited for the same commit.
    pace: Bucket,
    breaker: Breaker,
}

/// An account whose door is shut: nothing was called, and nothing is on record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Shut {
    /// Why.
    pub cause: Cause,
    /// The account, such as `aws/123456789012/eu-west-1`.
    pub account: String,
    /// What is the case, in one sentence.
    pub message: String,
    /// When to come back.
    pub retry_after: Duration,
}

/// Why an account's door is shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The account's quota is used up for the moment.
    Quota,
    /// The account did not answer lately.
    Away,
}

impl Cause {
    /// The word for it, in measurements and on record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "provider_quota",
            Self::Away => "provider_away",
        }
    }
}

impl Account {
    fn new(name: String, limits: Arc<Limits>) -> Self {
        // A burst and a second at the steady pace are together not more than the quota of a second.
        let burst = limits.per_second.div_ceil(10);
        let rate = Rate::new(limits.per_second - burst.min(limits.per_second.saturating_sub(1)), burst);
        let places = Arc::new(Semaphore::new(usize::try_from(limits.at_once.max(1)).unwrap_or(usize::MAX)));
        let full = Bucket::new(Instant::now().into_std());
        let state = State { bucket: full, pace: full, breaker: Breaker::CLOSED };
        Self { name, limits, rate, places, state: Mutex::new(state) }
    }

    /// Lets a mint in, after `patience` at the latest.
    pub(crate) async fn enter(self: &Arc<Self>, patience: Duration) -> Result<Pass, Shut> {
        let deadline = Instant::now() + patience;
        let probes = AtomicBool::new(self.ask()?);
        let mut pass = Pass { account: Arc::clone(self), place: None, paid: AtomicBool::new(false), probes };
        let place = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await;
        match place {
            Ok(Ok(place)) => pass.place = Some(place),
            // How long the calls before it take, nobody knows.
            Ok(Err(_)) | Err(_) => return Err(self.shut(Cause::Quota, Duration::from_secs(1))),
        }
        let wait = self.take(deadline)?;
        pass.paid.store(true, Ordering::Relaxed);
        sleep(wait).await;
        Ok(pass)
    }

    /// Whether the breaker lets a call through, and whether it is a probe.
    fn ask(&self) -> Result<bool, Shut> {
        let answer = self.changed(|state| state.breaker.ask(Instant::now()));
        match answer {
            Answer::Pass => Ok(false),
            Answer::Probe => Ok(true),
            Answer::Shut(retry_after) => Err(self.shut(Cause::Away, retry_after)),
        }
    }

    /// Takes a token of the quota that may be used by `deadline`. Answers how long to wait for it.
    fn take(&self, deadline: Instant) -> Result<Duration, Shut> {
        self.token(deadline, |state| &mut state.bucket)
    }

    /// Takes a step at the pace of the quota, by `deadline`. Answers how long to wait before it.
    fn step(&self, deadline: Instant) -> Result<Duration, Shut> {
        self.token(deadline, |state| &mut state.pace)
    }

    fn token(
        &self,
        deadline: Instant,
        bucket: impl FnOnce(&mut State) -> &mut Bucket,
    ) -> Result<Duration, Shut> {
        let now = Instant::now();
        let patience = deadline.saturating_duration_since(now);
        let taken = bucket(&mut self.state()).take(self.rate, now.into_std(), patience);
        taken.map_err(|retry_after| self.shut(Cause::Quota, retry_after))
    }

    fn shut(&self, cause: Cause, retry_after: Duration) -> Shut {
        let labels = [("provider", self.limits.provider), ("reason", cause.as_str())];
        metrics::counter!("cortex_provider_turned_away_total", &labels).increment(1);
        let message = match cause {
            Cause::Quota => {
                "More is asked of this cloud account at the moment than its quota allows; ask again."
            }
            Cause::Away => {
                "This cloud account did not answer lately, so it is not asked at the moment; ask again."
            }
        };
        Shut {
            cause,
            account: self.name.clone(),
            message: message.to_owned(),
            retry_after: retry_after.min(FURTHEST),
        }
    }

    /// Changes the state, and measures the breaker where that changed it.
    fn changed<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = state.breaker.as_number();
        let done = change(&mut state);
        let after = state.breaker.as_number();
        drop(state);
        if before.total_cmp(&after).is_ne() {
            let labels = [("provider", self.limits.provider.to_owned()), ("account", self.name.clone())];
            metrics::gauge!("cortex_provider_breaker_state", &labels).set(after);
            tracing::warn!(
                account = self.name,
                before,
                after,
                "a circuit breaker changed: 0 closed, 1 half open, 2 open"
            );
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mint that was let in: its place among those under way, and the token of its first call.
pub(crate) struct Pass {
    account: Arc<Account>,
    place: Option<OwnedSemaphorePermit>,
    paid: AtomicBool,
    /// Whether the breaker waits to hear how this one ends.
    probes: AtomicBool,
}

impl Pass {
    /// Waits until one more call may be made; not where that would be after `deadline`.
    pub(crate) async fn call(&self, deadline: Instant) -> Result<(), Shut> {
        if !self.paid.swap(false, Ordering::Relaxed) {
            sleep(self.account.take(deadline)?).await;
        }
        sleep(self.account.step(deadline)?).await;
        Ok(())
    }

    /// How its calls ended: whether the cloud gave an answer, be it a refusal.
    pub(crate) fn tell(&self, well: bool, issuance: IssuanceId) {
        let chance =
            Digest::of(issuance.to_string().as_bytes()).as_bytes().first().copied().unwrap_or_default();
        self.probes.store(false, Ordering::Relaxed);
        let breaker = &self.account.limits.breaker;
        self.account.changed(|state| state.breaker.tell(well, Instant::now(), breaker, chance));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let (unused, rate) = (*self.paid.get_mut(), self.account.rate);
        let probes = *self.probes.get_mut();
        self.account.changed(|state| {
            if unused {
                state.bucket.give_back(rate);
            }
            if probes {
                state.breaker.abandon(Instant::now());
            }
        });
        drop(self.place.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fixtures::issuance_id;

    const NOW: Duration = Duration::ZERO;

    fn accounts(per_second: u32, at_once: u32) -> Accounts {
        Accounts::new(Limits { provider: "aws", per_second, at_once, breaker: BreakerConfig::default() })
    }

    fn cause(entered: Result<Pass, Shut>) -> Option<Cause> {
        entered.err().map(|shut| shut.cause)
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_calls_than_the_quota() {
        let account = accounts(10, 100).get("a");
        let mut calls = Vec::new();
        for _ in 0..25 {
            let pass = account.enter(Duration::from_mins(1)).await.unwrap();
            pass.call(Instant::now() + Duration::from_secs(1)).await.unwrap();
            calls.push(Instant::now());
        }
        for (at, call) in calls.iter().enumerate() {
            let within = calls[at..].iter().filter(|later| **later - *call < Duration::from_secs(1)).count();
            assert!(within <= 10, "{within}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_not_used_is_given_back() {
        let account = accounts(1, 1).get("a");
        let pass = account.enter(NOW).await.unwrap();
        assert_eq!(cause(account.enter(NOW).await), Some(Cause::Quota), "there is one place");
        drop(pass);
        let pass = account.enter(NOW).await.unwrap();
        pass.call(Instant::now()).await.unwrap();
        drop(pass);
        assert_eq!(cause(account.enter(NOW).await), Some(Cause::Quota), "its call was made");
    }

    #[tokio::test(start_paused = true)]
    async fn one_account_that_is_away_shuts_no_other_door() {
        let accounts = accounts(100, 10);
        let (away, other) = (accounts.get("away"), accounts.get("other"));
        for _ in 0..5 {
            away.enter(NOW).await.unwrap().tell(false, issuance_id());
        }
        assert_eq!(cause(away.enter(NOW).await), Some(Cause::Away));
        assert!(other.enter(NOW).await.is_ok());
        tokio::time::advance(Duration::from_secs(6)).await;
        let probe = away.enter(NOW).await.unwrap();
        assert_eq!(cause(away.enter(NOW).await), Some(Cause::Away), "one probe at a time");
        drop(probe);
        let probe = away.enter(NOW).await.unwrap();
        probe.tell(true, issuance_id());
        assert!(away.enter(NOW).await.is_ok() && away.enter(NOW).await.is_ok());
    }
}
