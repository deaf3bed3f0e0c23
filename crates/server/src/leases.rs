//! Credentials that are handed out again while they live, from this replica's memory alone.
//!
//! A run that asks again gets the same AWS session, and the holder of a lease's handle gets the same
//! credential. Nothing here is ever written down; a restart forgets it, and a fresh subject token mints anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::{Body, Digest, Holder, Lease, PolicyName, Principal, Run};
use cortex_identity::Verified;
use cortex_log::receipt::Receipt;
use jiff::{SignedDuration, Timestamp};
use moka::Expiry;
use moka::sync::Cache;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::LeasesConfig;
use crate::random::Random;

/// What every lease handle begins with, so that a leaked one is recognised.
pub const HANDLE_PREFIX: &str = "cortex_lease_";

/// A released credential that still lives.
pub struct LiveLease {
    /// Who proved to be whose it is.
    pub verified: Arc<Verified>,
    /// The policy that it was issued under.
    pub policy: PolicyName,
    /// The policy's version at the time.
    pub policy_digest: Digest,
    /// The provider.
    pub provider: String,
    /// The loggable half.
    pub lease: Lease,
    /// The secret.
    pub body: Body,
    /// What a client needs beside the secret.
    pub details: BTreeMap<String, Value>,
    /// What fetches it again.
    pub handle: Zeroizing<String>,
    /// The log's promise that its record will be in the log.
    pub receipt: Receipt,
    /// Whether it was let in although the policy was closed.
    pub break_glass: bool,
    /// Its whole life, from issue to expiry.
    pub ttl: SignedDuration,
}

impl LiveLease {
    /// Whose it is, as far as a freeze or a revocation can tell.
    pub fn holder(&self) -> Holder<'_> {
        Holder {
            principal: self.verified.principal(),
            claimed_by: self.verified.claimed_by(),
            policy: &self.policy,
        }
    }

    /// How long it still lives.
    pub fn remaining(&self, now: Timestamp) -> SignedDuration {
        self.lease.expires_at.duration_since(now)
    }

    /// What it takes in memory, in bytes, its places in both caches included: measured as the growth of a
    /// replica's resident memory over 13,500 leases, less their bodies.
    fn weight(&self) -> u32 {
        let body = match &self.body {
            Body::Token(token) => token.len(),
            Body::AwsKeys { session_token, .. } => session_token.len() + 200,
        };
        u32::try_from(body + self.receipt.seal.len() + 6_000).unwrap_or(u32::MAX)
    }
}

/// What makes two asks the same: run and how it was proven, policy version, provider, rendered scope, lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskKey(Digest);

impl AskKey {
    /// The key of one ask. `scope` is the rendered scope as canonical text.
    pub fn new(run: &Run, policy: Digest, provider: &str, scope: &Value, ttl: SignedDuration) -> Self {
        let (subject, attestation) = (Principal::Run(run.clone()).subject(), run.attestation.as_str());
        let text = format!("{subject}\n{attestation}\n{policy}\n{provider}\n{}\n{scope}", ttl.as_secs());
        Self(Digest::of(text.as_bytes()))
    }
}

struct UntilExpiry;

impl<K> Expiry<K, (Arc<LiveLease>, Duration)> for UntilExpiry {
    fn expire_after_create(&self, _: &K, value: &(Arc<LiveLease>, Duration), _: Instant) -> Option<Duration> {
        Some(value.1)
    }
}

/// The live leases of one replica.
pub struct Leases {
    by_ask: Cache<AskKey, (Arc<LiveLease>, Duration)>,
    by_handle: Cache<Digest, (Arc<LiveLease>, Duration)>,
    renew_below_percent: i64,
}

/// How much is held.
pub(crate) struct Held {
    /// How many leases, about.
    pub(crate) count: u64,
    /// What they take, in bytes, about.
    pub(crate) bytes: u64,
    /// What they may take, in bytes.
    pub(crate) limit_bytes: u64,
}

impl Leases {
    /// No leases yet.
    pub fn new(config: &LeasesConfig) -> Self {
        fn cache<K: std::hash::Hash + Eq + Send + Sync + 'static>(
            max_bytes: u64,
        ) -> Cache<K, (Arc<LiveLease>, Duration)> {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, value: &(Arc<LiveLease>, Duration)| value.0.weight())
                .expire_after(UntilExpiry)
                .build()
        }
        Self {
            by_ask: cache(config.max_bytes),
            by_handle: cache(config.max_bytes),
            renew_below_percent: config.renew_below_percent,
        }
    }

    /// The lease that answers this ask again, if enough of its life is left.
    pub fn again(&self, ask: AskKey, now: Timestamp) -> Option<Arc<LiveLease>> {
        let (lease, _) = self.by_ask.get(&ask)?;
        let enough = lease.remaining(now).as_secs() * 100 > lease.ttl.as_secs() * self.renew_below_percent;
        enough.then_some(lease)
    }

    /// The lease that `handle` fetches, while it lives.
    pub fn by_handle(&self, handle: &str, now: Timestamp) -> Option<Arc<LiveLease>> {
        let (lease, _) = self.by_handle.get(&Digest::of(handle.as_bytes()))?;
        (lease.remaining(now) > SignedDuration::ZERO).then_some(lease)
    }

    /// How much is held. Both places of a lease count against its memory, and it is counted once.
    pub(crate) fn held(&self) -> Held {
        let limit_bytes = self.by_handle.policy().max_capacity().unwrap_or(u64::MAX);
        Held { count: self.by_handle.entry_count(), bytes: self.by_handle.weighted_size(), limit_bytes }
    }

    /// Remembers a lease until it expires.
    pub fn remember(&self, ask: AskKey, lease: &Arc<LiveLease>, now: Timestamp) {
        let life = lease.remaining(now).unsigned_abs();
        self.by_ask.insert(ask, (Arc::clone(lease), life));
        self.by_handle.insert(Digest::of(lease.handle.as_bytes()), (Arc::clone(lease), life));
    }
}

/// A new handle: 256 random bits.
pub fn new_handle(random: &dyn Random) -> Zeroizing<String> {
    let mut bits = Zeroizing::new([0_u8; 32]);
    random.fill(bits.as_mut_slice());
    let mut handle = Zeroizing::new(String::with_capacity(64));
    handle.push_str(HANDLE_PREFIX);
    URL_SAFE_NO_PAD.encode_string(bits.as_slice(), &mut handle);
    handle
}
