//! Who asks how often, has how much under way and holds how many credentials that live: by issuer, DAG, run and policy.
//!
//! It is kept in this replica's memory alone, for a bounded number of holders; who was not heard of for an hour is
//! forgotten, and a restart forgets everything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::rate::{Bucket, FURTHEST, Rate};
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{AdmissionConfig, Reason, Shed};

/// How many holders are known at once: some 10 MB. One that is forgotten begins anew.
const HOLDERS_MAX: u64 = 20_000;
/// How long a holder is remembered who is not heard of.
const REMEMBERED: Duration = Duration::from_hours(1);
/// When to come back where nothing says when there is room.
const SOON: Duration = Duration::from_secs(1);

/// Whom a limit is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Issuer(String),
    Dag(String),
    Run(String),
    Policy(String),
}

/// What a holder may do; none where there is no limit.
#[derive(Debug, Clone, Copy)]
struct Limits {
    rate: Option<Rate>,
    exchanges: Option<u32>,
    leases: Option<u32>,
    reason: Reason,
}

impl Holder {
    fn limits(&self, config: &AdmissionConfig) -> Limits {
        let limit = |value: u32| (value > 0).then_some(value);
        let rate = |per_second: u32, burst: u32| limit(per_second).map(|_| Rate::new(per_second, burst));
        match self {
            Self::Issuer(_) => Limits {
                rate: rate(config.issuer_per_second, config.issuer_burst),
                exchanges: None,
                leases: None,
                reason: Reason::Issuer,
            },
            Self::Dag(_) => Limits {
                rate: rate(config.dag_per_second, config.dag_burst),
                exchanges: None,
                leases: limit(config.dag_active_leases),
                reason: Reason::Dag,
            },
            Self::Run(_) => Limits {
                rate: rate(config.run_per_second, config.run_burst),
                exchanges: limit(config.run_exchanges),
                leases: limit(config.run_active_leases),
                reason: Reason::Run,
            },
            Self::Policy(_) => Limits {
                rate: rate(config.policy_per_second, config.policy_burst),
                exchanges: limit(config.policy_exchanges),
                leases: None,
                reason: Reason::Policy,
            },
        }
    }
}

/// What one holder does.
struct Account {
    bucket: Bucket,
    exchanges: u32,
    /// When each credential that lives ends, the next one first.
    leases: BinaryHeap<Reverse<Timestamp>>,
    /// Credentials that are being minted.
    reserved: u32,
}

impl Account {
    fn new() -> Self {
        let bucket = Bucket::new(Instant::now().into_std());
        Self { bucket, exchanges: 0, leases: BinaryHeap::new(), reserved: 0 }
    }

    /// How many credentials live or are being minted.
    fn active(&mut self, now: Timestamp) -> u32 {
        while self.leases.peek().is_some_and(|Reverse(end)| *end <= now) {
            self.leases.pop();
        }
        u32::try_from(self.leases.len()).unwrap_or(u32::MAX).saturating_add(self.reserved)
    }
}

type Shared = Arc<Mutex<Account>>;

fn open(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every holder that was heard of lately.
pub(super) struct Holders(Cache<Holder, Shared>);

impl Holders {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(HOLDERS_MAX).time_to_idle(REMEMBERED).build())
    }

    fn account(&self, holder: &Holder) -> Shared {
        self.0.get_with_by_ref(holder, || Arc::new(Mutex::new(Account::new())))
    }

    /// Lets an exchange of all `holders` begin, or of none of them.
    pub(super) fn begin(&self, holders: &[Holder], config: &AdmissionConfig) -> Result<Vec<Exchange>, Shed> {
        let mut begun: Vec<Exchange> = Vec::with_capacity(holders.len());
        for holder in holders {
            match Exchange::begin(self.account(holder), holder.limits(config)) {
                Ok(exchange) => begun.push(exchange),
                Err(shed) => {
                    begun.into_iter().for_each(Exchange::undo);
                    return Err(shed);
                }
            }
        }
        Ok(begun)
    }

    /// Keeps room for `count` credentials of all `holders`, or of none of them.
    pub(super) fn reserve(
        &self,
        holders: &[Holder],
        count: u32,
        now: Timestamp,
        config: &AdmissionConfig,
    ) -> Result<Vec<Reserved>, Shed> {
        holders
            .iter()
            .map(|holder| Reserved::new(self.account(holder), count, now, holder.limits(config)))
            .collect()
    }
}

/// One exchange of one holder, until it is dropped.
pub(super) struct Exchange {
    account: Shared,
    rate: Option<Rate>,
}

impl Exchange {
    fn begin(account: Shared, limits: Limits) -> Result<Self, Shed> {
        let mut state = open(&account);
        if limits.exchanges.is_some_and(|most| state.exchanges >= most) {
            return Err(Shed { reason: limits.reason, retry_after: SOON });
        }
        if let Some(rate) = limits.rate {
            let taken = state.bucket.take(rate, Instant::now().into_std(), Duration::ZERO);
            taken.map_err(|retry_after| Shed { reason: limits.reason, retry_after })?;
        }
        state.exchanges += 1;
        drop(state);
        Ok(Self { account, rate: limits.rate })
    }

    /// As if it had not begun.
    fn undo(self) {
        if let Some(rate) = self.rate {
            open(&self.account).bucket.give_back(rate);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = open(&self.account);
        state.exchanges = state.exchanges.saturating_sub(1);
    }
}

/// Room for credentials of one holder that are being minted, until it is dropped.
pub(super) struct Reserved {
    account: Shared,
    left: u32,
}

impl Reserved {
    fn new(account: Shared, count: u32, now: Timestamp, limits: Limits) -> Result<Self, Shed> {
        let mut state = open(&account);
        let active = state.active(now);
        if limits.leases.is_some_and(|most| active.saturating_add(count) > most) {
            let next = state.leases.peek().map(|Reverse(end)| end.duration_since(now).unsigned_abs());
            let retry_after = next.unwrap_or(SOON).min(FURTHEST);
            return Err(Shed { reason: Reason::Leases, retry_after });
        }
        state.reserved += count;
        drop(state);
        Ok(Self { account, left: count })
    }

    /// One of them was minted, and lives until `end`.
    pub(super) fn minted(&mut self, end: Timestamp) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let mut state = open(&self.account);
        state.reserved = state.reserved.saturating_sub(1);
        state.leases.push(Reverse(end));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = open(&self.account);
        state.reserved = state.reserved.saturating_sub(self.left);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn config() -> AdmissionConfig {
        AdmissionConfig {
            run_per_second: 1,
            run_burst: 2,
            run_active_leases: 3,
            dag_per_second: 100,
            dag_burst: 100,
            run_exchanges: 2,
            ..AdmissionConfig::default()
        }
    }

    fn run(name: &str) -> [Holder; 2] {
        [Holder::Dag("prod/sales".into()), Holder::Run(name.into())]
    }

    #[tokio::test(start_paused = true)]
    async fn one_run_that_asks_too_often_takes_nothing_from_the_others() {
        let (holders, config) = (Holders::new(), config());
        for _ in 0..2 {
            assert!(holders.begin(&run("a"), &config).is_ok());
        }
        for _ in 0..500 {
            let shed = holders.begin(&run("a"), &config).err().unwrap();
            assert_eq!(shed.reason, Reason::Run);
        }
        assert!(holders.begin(&run("b"), &config).is_ok(), "what was turned away was given back to its DAG");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_bounded_until_it_ends() {
        let (holders, config) = (Holders::new(), AdmissionConfig { run_per_second: 0, ..config() });
        let first = holders.begin(&run("a"), &config).ok().unwrap();
        let _second = holders.begin(&run("a"), &config).ok().unwrap();
        assert!(holders.begin(&run("a"), &config).is_err());
        drop(first);
        assert!(holders.begin(&run("a"), &config).is_ok());
    }

    #[test]
    fn credentials_count_until_they_end_and_those_that_came_to_nothing_do_not() {
        let (holders, config, now) = (Holders::new(), config(), Timestamp::UNIX_EPOCH);
        let mut reserved = holders.reserve(&run("a"), 3, now, &config).ok().unwrap();
        assert!(holders.reserve(&run("a"), 1, now, &config).is_err());
        let end = now + SignedDuration::from_secs(10);
        for one in &mut reserved {
            one.minted(end);
        }
        drop(reserved);
        assert!(holders.reserve(&run("a"), 2, now, &config).is_ok(), "two came to nothing");
        let shed = holders.reserve(&run("a"), 3, now, &config).err().unwrap();
        assert_eq!((shed.reason, shed.retry_after), (Reason::Leases, Duration::from_secs(10)));
        assert!(holders.reserve(&run("a"), 3, end, &config).is_ok(), "it has ended");
    }
}
