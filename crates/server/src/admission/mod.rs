//! Admission: who is let in, before anything costs. What is turned away is told when to come back, each caller
//! another time, and is counted on record by DAG and network.
//!
//! In the order of the path: the door bounds what is under way at all, before a token is looked at; a verified
//! caller's issuer, DAG and run have each their rate; then the policy that names them; then the credentials that they
//! have already; and last the accounts at the clouds, which have doors of their own (`cortex_providers`).

mod config;
mod door;
mod holders;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cortex_core::{Principal, Run};
use cortex_identity::Verified;
use cortex_providers::Shut;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use config::AdmissionConfig;
pub(crate) use door::Place;
pub(crate) use turns::{Turn, Turns};

use crate::broker::Broker;
use crate::denial::Refused;
use crate::exchange::{Context, Request};
use crate::random::Random;
use door::Door;
use holders::{Exchange, Holder, Holders, Reserved};

/// When to come back if the door is full.
const CROWDED: Duration = Duration::from_secs(1);

/// Why somebody is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Too much is under way.
    Overload,
    /// The issuer's rate.
    Issuer,
    /// The DAG's rate.
    Dag,
    /// The run's rate, or what it has under way.
    Run,
    /// The policy's rate, or what is under way under it.
    Policy,
    /// The credentials that live already.
    Leases,
}

impl Reason {
    /// The word for it, in measurements and on record.
    fn as_str(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::Issuer => "limit_issuer",
            Self::Dag => "limit_dag",
            Self::Run => "limit_run",
            Self::Policy => "limit_policy",
            Self::Leases => "limit_leases",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Overload => "more is asked at the moment than this replica can answer; ask again",
            Self::Issuer => {
                "the runs of this Airflow ask more often than [admission] of Cortex allows; ask again"
            }
            Self::Dag => "the runs of this DAG ask more often than [admission] of Cortex allows; ask again",
            Self::Run => "this run asks more often than [admission] of Cortex allows; ask again",
            Self::Policy => {
                "this policy is asked for more often than [admission] of Cortex allows; ask again"
            }
            Self::Leases => {
                "as many credentials live already as [admission] of Cortex allows; ask again when one has ended"
            }
        }
    }
}

/// Somebody who was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shed {
    reason: Reason,
    retry_after: Duration,
}

/// What is let in, and by which rules.
pub(crate) struct Admission {
    rules: ArcSwap<Rules>,
    holders: Holders,
}

/// The rules of one configuration.
struct Rules {
    config: AdmissionConfig,
    requests: Arc<Semaphore>,
    door: Door,
}

impl Admission {
    /// Nobody is in yet.
    pub(crate) fn new(config: &AdmissionConfig) -> Self {
        Self { rules: ArcSwap::from_pointee(Rules::new(config)), holders: Holders::new() }
    }

    /// Other rules from now on; who is in already is not counted against them.
    pub(crate) fn set(&self, config: &AdmissionConfig) {
        if self.rules.load().config != *config {
            self.rules.store(Arc::new(Rules::new(config)));
        }
    }

    /// A place for one more request of any kind, if there is one.
    pub(crate) fn request(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.rules.load().requests).try_acquire_owned().ok()
    }

    /// How long an exchange waits for the quota of a cloud account.
    pub(crate) fn quota_patience(&self) -> Duration {
        Duration::from_millis(self.rules.load().config.max_quota_wait_ms)
    }
}

impl Rules {
    fn new(config: &AdmissionConfig) -> Self {
        Self {
            config: config.clone(),
            requests: Arc::new(Semaphore::new(config.max_requests)),
            door: Door::new(config),
        }
    }
}

/// Exchanges that were let in, as their holders see them; they count until this is dropped.
pub(crate) struct Entered {
    _exchanges: Vec<Exchange>,
}

/// Room for the credentials of one exchange; what is not minted is given back when this is dropped.
pub(crate) struct Room {
    reserved: Vec<Reserved>,
}

impl Room {
    /// One credential was minted, and lives until `end`.
    pub(crate) fn minted(&mut self, end: Timestamp) {
        for reserved in &mut self.reserved {
            reserved.minted(end);
        }
    }
}

/// A place for an exchange, before anything is looked at.
pub(crate) async fn at_the_door(
    broker: &Broker,
    source: Option<IpAddr>,
    gone: Option<&CancellationToken>,
) -> Result<Place, Refused> {
    let begun = tokio::time::Instant::now();
    let rules = broker.admission.rules.load_full();
    let place = match gone {
        None => rules.door.enter().await,
        // Who has gone away wants no place.
        Some(gone) => gone.run_until_cancelled(rules.door.enter()).await.flatten(),
    };
    metrics::histogram!("cortex_admission_wait_seconds").record(begun.elapsed().as_secs_f64());
    let shed = Shed { reason: Reason::Overload, retry_after: CROWDED };
    place.ok_or_else(|| turned_away(broker, source, None, shed))
}

/// Whether a caller who was verified may ask at all.
pub(crate) fn of_caller(broker: &Broker, request: &Request, verified: &Verified) -> Result<Entered, Refused> {
    let mut holders = Vec::with_capacity(3);
    if let Principal::Run(run) = verified.principal() {
        holders.push(Holder::Issuer(run.issuer.to_string()));
        holders.push(Holder::Dag(dag(run)));
    }
    holders.push(Holder::Run(verified.principal().subject()));
    enter(broker, request, verified.principal(), &holders)
}

/// Whether one more exchange may go on under its policy, which names the caller.
pub(crate) fn of_policy(broker: &Broker, context: &Context) -> Result<Entered, Refused> {
    let holders = [Holder::Policy(context.policy.name().to_string())];
    enter(broker, &context.request, context.principal(), &holders)
}

fn enter(
    broker: &Broker,
    request: &Request,
    principal: &Principal,
    holders: &[Holder],
) -> Result<Entered, Refused> {
    let rules = broker.admission.rules.load();
    let begun = broker.admission.holders.begin(holders, &rules.config);
    begun
        .map(|exchanges| Entered { _exchanges: exchanges })
        .map_err(|shed| turned_away(broker, request.source, principal.as_run().map(dag), shed))
}

/// Room for `count` more credentials of this run.
pub(crate) fn of_leases(broker: &Broker, context: &Context, count: usize) -> Result<Room, Refused> {
    let rules = broker.admission.rules.load();
    let mut holders = vec![Holder::Run(context.subject.clone())];
    holders.extend(context.principal().as_run().map(|run| Holder::Dag(dag(run))));
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let reserved = broker.admission.holders.reserve(&holders, count, broker.clock.now(), &rules.config);
    reserved.map(|reserved| Room { reserved }).map_err(|shed| {
        turned_away(broker, context.request.source, context.principal().as_run().map(dag), shed)
    })
}

/// A cloud account's door is shut: counted like everything that is turned away.
pub(crate) fn of_account(broker: &Broker, context: &Context, shut: &Shut) -> Refused {
    let dag = context.principal().as_run().map(dag);
    counted(broker, context.request.source, dag, shut.cause.as_str());
    Refused::Unavailable {
        description: shut.message.clone(),
        retry_after_s: seconds(shut.retry_after, &*broker.random),
    }
}

fn turned_away(broker: &Broker, source: Option<IpAddr>, dag: Option<String>, shed: Shed) -> Refused {
    counted(broker, source, dag, shed.reason.as_str());
    let description = shed.reason.sentence().to_owned();
    let retry_after_s = seconds(shed.retry_after, &*broker.random);
    match shed.reason {
        Reason::Overload => Refused::Unavailable { description, retry_after_s },
        _ => Refused::Limited { description, retry_after_s },
    }
}

fn counted(broker: &Broker, source: Option<IpAddr>, dag: Option<String>, reason: &'static str) {
    metrics::counter!("cortex_admission_shed_total", "reason" => reason).increment(1);
    broker.noise.count_of(reason, source, dag, broker.clock.now());
}

fn dag(run: &Run) -> String {
    format!("{}/{}", run.issuer, run.dag_id)
}

/// When to come back, in whole seconds: not sooner than `after`, and up to a quarter and a second later, so that those
/// who are told the same do not come back together.
pub(crate) fn seconds(after: Duration, random: &dyn Random) -> u32 {
    let mut chance = [0_u8; 1];
    random.fill(&mut chance);
    let spread = (after / 4 + Duration::from_secs(1)) * u32::from(chance[0]) / 255;
    let seconds = (after + spread).as_millis().div_ceil(1_000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(u8);

    impl Random for Always {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    #[test]
    fn nobody_is_told_to_come_back_too_soon_nor_all_at_once() {
        for (after, soonest, latest) in [(0, 1, 1), (1_000, 1, 3), (8_000, 8, 11), (30_000, 30, 39)] {
            let after = Duration::from_millis(after);
            assert_eq!(seconds(after, &Always(0)), soonest);
            assert_eq!(seconds(after, &Always(255)), latest);
        }
    }
}
