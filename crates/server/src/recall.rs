//! A lease's handle: fetches the same credential again while it lives, cannot extend it, and stops when the
//! policy would no longer permit it.

use std::net::IpAddr;
use std::sync::Arc;

use cortex_core::policy::Ask;
use cortex_core::record::{Denial, What};
use cortex_core::{Decision, DecisionId};

use crate::broker::Broker;
use crate::denial::{self, Refused};
use crate::leases::LiveLease;

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
    let now = broker.clock.now();
    let lease = broker.leases.by_handle(handle, now).filter(|lease| lease.policy.as_str() == policy);
    let Some(lease) = lease else {
        broker.noise.count("lease", source, now);
        return Err(Refused::Request { description: NO_LEASE.to_owned(), decision_id: None });
    };
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
    if permitted { Ok(lease) } else { Err(deny(broker, &lease, source, request_id).await) }
}

async fn deny(broker: &Broker, lease: &LiveLease, source: Option<IpAddr>, request_id: &str) -> Refused {
    let decision_id = DecisionId::new(broker.clock.now(), broker.random.id_bits());
    let denied = Denial {
        decision_id,
        code: "lease_no_longer_permitted".to_owned(),
        reasons: Vec::new(),
        subject: lease.verified.principal().subject(),
        principal: Some(lease.verified.principal().clone()),
        request_id: request_id.to_owned(),
        source,
        policy: Some(lease.policy.to_string()),
        policy_digest: Some(lease.policy_digest),
        provider: Some(lease.provider.clone()),
        claimed_run: None,
        claimed_by: None,
    };
    match broker.recorder.note(What::Denial(Box::new(denied))).await {
        Ok(()) => {
            Refused::Target { description: "the policy no longer permits this lease".to_owned(), decision_id }
        }
        Err(_) => denial::unavailable("the record cannot be written at the moment"),
    }
}
