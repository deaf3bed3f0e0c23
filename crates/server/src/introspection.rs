//! Whether a token that Cortex signed for an API is active.

use cortex_core::record::Caller;
use cortex_core::{Holder, IssuanceId, PolicyName, Principal};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::barrier::Bar;
use crate::broker::Broker;
use crate::store::{StoreError, issuances};

/// The header's type of the tokens that are for APIs (RFC 9068).
const ACCESS_TOKEN: &str = "at+jwt";

/// What the record says of a token's issuance.
#[derive(Deserialize)]
struct Opening {
    principal: Principal,
    policy: PolicyName,
    caller: Caller,
}

/// The claims of `token`, if Cortex issued it, it has not expired and it is not revoked.
pub(crate) async fn active(
    broker: &Broker,
    issuer: &str,
    token: &str,
) -> Result<Option<Map<String, Value>>, StoreError> {
    let Some(claims) = broker.keyring.read_own(token, ACCESS_TOKEN) else { return Ok(None) };
    let now = broker.clock.now();
    let ends_later = claims.get("exp").and_then(Value::as_i64).is_some_and(|exp| now.as_second() < exp);
    let own = claims.get("iss").and_then(Value::as_str) == Some(issuer);
    let id = claims.get("jti").and_then(Value::as_str).and_then(|jti| jti.parse::<IssuanceId>().ok());
    let (true, true, Some(id)) = (own, ends_later, id) else { return Ok(None) };
    let Some((leaf, epoch)) = issuances::signed(&broker.pool, id).await? else { return Ok(None) };
    let opening: Opening =
        serde_json::from_slice(&leaf).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    if broker.barriers.known().epoch() < epoch {
        broker.barriers.refresh(&broker.pool).await?;
    }
    let holder = Holder {
        principal: &opening.principal,
        claimed_by: opening.caller.claimed_by.as_deref(),
        policy: &opening.policy,
    };
    let bar = broker.barriers.known().bars(&holder, id, now);
    Ok(if matches!(bar, Some(Bar::Revoked(_))) { None } else { Some(claims) })
}
