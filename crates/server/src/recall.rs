//! A lease's handle: fetches the same credential again while it lives, cannot extend it, and stops when the
//! policy would no longer permit it or it is revoked or frozen.

use std::net::IpAddr;
use std::sync::Arc;

use cortex_core::policy::Ask;
use cortex_core::record::{Denial, What};
use cortex_core::{Decision, DecisionId};

use crate::admission;
use crate::barrier::Bar;
use crate::broker::Broker;
use crate::denial::{self, Refused};
use crate::leases::LiveLease;
use crate::mint::barrier_away;

/// What every holder of a handle is told that fetches nothing.
const NO_LEASE: &str = "no live lease under this handle here: it expired, or another replica holds it; send a fresh subject token";

/// Fetches the lease of `handle`, if `policy` is the one that it was issued under.
pub(crate) async fn by_handle(
    broker: &Broker,
    handle: &str,
    policy: &str,
    source: Option<IpAddr>,
    request_id: &str,
) -> Result<Arc<LiveLease>, Refused> {
    let _place = admission::at_the_door(broker, source, None).await?;
    let now = broker.clock.now();
    let lease = broker.leases.by_handle(handle, now).filter(|lease| lease.policy.as_str() == policy);
    let Some(lease) = lease else {
        broker.noise.count("lease", source, now);
        return Err(Refused::Request { description: NO_LEASE.to_owned(), decision_id: None });
    };
    let barrier = broker.barriers.asked_now(&broker.pool).await.map_err(|error| barrier_away(&error))?;
    if let Some(bar) = barrier.bars(&lease.holder(), lease.lease.issuance_id, now) {
        let code = match bar {
            Bar::Frozen(_) => "freeze",
            Bar::Revoked(_) => "revoked",
        };
        return Err(deny(broker, &lease, code, source, request_id, |id| denial::of_bar(&bar, id)).await);
    }
    let catalogue = broker.library.catalogue();
    let current = catalogue.policy(&lease.policy).and_then(|shelved| shelved.policy());
    let permitted = current.zip(catalogue.guardrails()).is_some_and(|(policy, guardrails)| {
        let ask = Ask {
            principal: lease.verified.principal(),
            provider: &lease.provider,
            source_ip: source,
            now,
            ttl: lease.ttl.min(policy.max_ttl()),
            // The approval was checked when the lease was issued; it cannot be extended here.
            approved: true,
            break_glass: lease.break_glass,
        };
        matches!(policy.decide(guardrails, &ask), Decision::Permit { .. })
    });
    if permitted {
        return Ok(lease);
    }
    let refused = |decision_id| Refused::Target {
        description: "the policy no longer permits this lease".to_owned(),
        decision_id,
    };
    Err(deny(broker, &lease, "lease_no_longer_permitted", source, request_id, refused).await)
}

async fn deny(
    broker: &Broker,
    lease: &LiveLease,
    code: &str,
    source: Option<IpAddr>,
    request_id: &str,
    refused: impl FnOnce(DecisionId) -> Refused,
) -> Refused {
    let decision_id = DecisionId::new(broker.clock.now(), broker.random.id_bits());
    let denied = Denial {
        decision_id,
        code: code.to_owned(),
        reasons: Vec::new(),
        subject: lease.verified.principal().subject(),
        principal: Some(lease.verified.principal().clone()),
        request_id: request_id.to_owned(),
        source: source.map(Into::into),
        policy: Some(lease.policy.to_string()),
        policy_digest: Some(lease.policy_digest),
        provider: Some(lease.provider.clone()),
        claimed_run: None,
        claimed_by: None,
    };
    denial::announce(&denied);
    match broker.recorder.note(What::Denial(Box::new(denied))).await {
        Ok(()) => refused(decision_id),
        Err(_) => denial::unavailable("the record cannot be written at the moment"),
    }
}
