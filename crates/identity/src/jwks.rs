//! Where an issuer's keys come from, and how long they are trusted.
//!
//! The last good set is kept while the issuer cannot be reached, for a bounded time. An unknown key id fetches the
//! set again, once for all who wait, and with a floor between two attempts, so that made-up key ids cost an issuer
//! nothing. Each issuer has a cache of its own: a slow one does not hold up another.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cortex_core::{Clock, IssuerName};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::config::{Algorithm, IssuerConfig};
use crate::endpoint::Endpoint;
use crate::fetch::{self, FetchError};
use crate::keys::{BadKeySet, KeySet};

/// Both requests together, discovery and key set, take no longer than this.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);

/// How often the refresh looks whether a set is due.
const TICK: Duration = Duration::from_secs(5);

/// Why keys could not be fetched. No part of what was fetched is in it.
#[derive(Debug, thiserror::Error)]
enum KeyFetchError {
    #[error("no answer within {} seconds", FETCH_DEADLINE.as_secs())]
    Deadline,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("its discovery document is malformed")]
    Discovery,
    #[error("its discovery document is of another issuer")]
    OtherIssuer,
    #[error("its discovery document names a key set that may not be fetched: the URL {0}")]
    KeySetUrl(&'static str),
    #[error(transparent)]
    KeySet(#[from] BadKeySet),
}

/// The members of a discovery document that matter (`OpenID` Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Debug)]
enum Source {
    /// The configured URL.
    KeySet(Endpoint),
    /// The issuer's discovery document says where.
    Discovery { iss: String, endpoint: Endpoint },
}

/// A key set, and since when.
#[derive(Debug)]
struct Loaded {
    keys: Arc<KeySet>,
    at: Timestamp,
}

/// What is known of an issuer's keys, for metrics, readiness and the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// How many keys can verify its tokens now; 0 while none were fetched, or while they are too old.
    pub keys: usize,
    /// How many keys of its set are not used, because they are weak, mistyped or of another purpose.
    pub dropped: usize,
    /// How long ago the keys were fetched; none if they never were.
    pub age: Option<SignedDuration>,
    /// Why the last attempt failed; none if it did not.
    pub last_error: Option<String>,
}

/// The keys of one issuer.
pub(crate) struct KeyCache {
    issuer: IssuerName,
    source: Source,
    pinned: Vec<Algorithm>,
    max_age: SignedDuration,
    max_stale: SignedDuration,
    min_refresh: SignedDuration,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    loaded: ArcSwapOption<Loaded>,
    last_error: ArcSwapOption<String>,
    /// When the last attempt began. Held during an attempt: this is what makes it single.
    attempt: Arc<Mutex<Option<Timestamp>>>,
}

impl KeyCache {
    /// A cache with nothing in it. `endpoint` is the issuer's own URL.
    pub(crate) fn new(
        config: &IssuerConfig,
        endpoint: Endpoint,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, &'static str> {
        let source = match &config.jwks_uri {
            Some(uri) => Source::KeySet(Endpoint::parse(uri)?),
            None => Source::Discovery { iss: config.iss.clone(), endpoint },
        };
        Ok(Self {
            issuer: config.name.clone(),
            source,
            pinned: config.algorithms.clone(),
            max_age: SignedDuration::from_secs(config.jwks_max_age.into()),
            max_stale: SignedDuration::from_secs(config.jwks_max_stale.into()),
            min_refresh: SignedDuration::from_secs(config.jwks_min_refresh.into()),
            http,
            clock,
            loaded: ArcSwapOption::empty(),
            last_error: ArcSwapOption::empty(),
            attempt: Arc::default(),
        })
    }

    /// The keys that may be used now, if any.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        let loaded = self.loaded.load();
        let loaded = loaded.as_ref()?;
        (self.age(loaded) <= self.max_stale).then(|| Arc::clone(&loaded.keys))
    }

    /// The keys to verify a token with, fetched if there are none, or if the token's key is not among them.
    pub(crate) async fn for_token(self: &Arc<Self>, kid: Option<&str>) -> Option<Arc<KeySet>> {
        let suffices = |cache: &Self| {
            let keys = cache.current();
            keys.is_some_and(|keys| kid.is_none() || keys.find(kid).is_some())
        };
        if !suffices(self) {
            self.refresh_unless(suffices).await;
        }
        self.current()
    }

    /// Fetches the keys if they are older than they should be.
    pub(crate) async fn refresh_if_due(self: &Arc<Self>) {
        let fresh = |cache: &Self| {
            let loaded = cache.loaded.load();
            loaded.as_ref().is_some_and(|loaded| !elapsed(loaded.at, cache.clock.now(), cache.max_age))
        };
        if !fresh(self) {
            self.refresh_unless(fresh).await;
        }
    }

    /// Keeps the keys fresh until it is dropped.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.refresh_if_due().await;
        }
    }

    /// One attempt to fetch the keys, unless another one that just ended was enough, or the last one began less
    /// than the floor ago. Whoever asked may go away: the attempt goes on for those who wait.
    async fn refresh_unless(self: &Arc<Self>, enough: impl Fn(&Self) -> bool) {
        let mut attempt = Arc::clone(&self.attempt).lock_owned().await;
        let now = self.clock.now();
        if enough(self) || attempt.is_some_and(|last| !elapsed(last, now, self.min_refresh)) {
            return;
        }
        *attempt = Some(now);
        let cache = Arc::clone(self);
        let task = tokio::spawn(async move {
            cache.fetch_and_keep(now).await;
            drop(attempt);
        });
        if task.await.is_err() {
            tracing::error!(issuer = %self.issuer, "the task that fetches keys died");
        }
    }

    async fn fetch_and_keep(&self, now: Timestamp) {
        let fetched = tokio::time::timeout(FETCH_DEADLINE, self.fetch()).await;
        match fetched.unwrap_or(Err(KeyFetchError::Deadline)) {
            Ok(keys) => self.keep(keys, now),
            Err(error) => {
                tracing::warn!(issuer = %self.issuer, %error, "keys not refreshed: the last good ones are kept");
                self.last_error.store(Some(Arc::new(error.to_string())));
            }
        }
    }

    fn keep(&self, keys: KeySet, at: Timestamp) {
        let before = self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.keys));
        // The same document keeps its parsed keys, and says nothing new about those that are dropped.
        let keys = match before.filter(|before| before.digest() == keys.digest()) {
            Some(before) => before,
            None => Arc::new(self.announce(keys)),
        };
        self.loaded.store(Some(Arc::new(Loaded { keys, at })));
        self.last_error.store(None);
    }

    fn announce(&self, keys: KeySet) -> KeySet {
        tracing::info!(issuer = %self.issuer, keys = keys.len(), digest = %keys.digest(), "keys changed");
        for why in keys.dropped() {
            tracing::warn!(issuer = %self.issuer, %why, "a key is not used");
        }
        keys
    }

    async fn fetch(&self) -> Result<KeySet, KeyFetchError> {
        let document = match &self.source {
            Source::KeySet(endpoint) => self.document(endpoint.url().clone()).await?,
            Source::Discovery { iss, endpoint } => {
                let found = self.document(endpoint.discovery()).await?;
                self.document(key_set_url(&found, iss, endpoint)?.url().clone()).await?
            }
        };
        Ok(KeySet::parse(&document, &self.pinned)?)
    }

    async fn document(&self, url: reqwest::Url) -> Result<Vec<u8>, FetchError> {
        fetch::fetch(self.http.get(url), reqwest::StatusCode::OK).await
    }

    fn age(&self, loaded: &Loaded) -> SignedDuration {
        self.clock.now().duration_since(loaded.at)
    }

    /// What is known of the keys.
    pub(crate) fn status(&self) -> KeyStatus {
        let loaded = self.loaded.load();
        KeyStatus {
            keys: self.current().map_or(0, |keys| keys.len()),
            dropped: loaded.as_ref().map_or(0, |loaded| loaded.keys.dropped().len()),
            age: loaded.as_ref().map(|loaded| self.age(loaded)),
            last_error: self.last_error.load().as_ref().map(|error| error.as_str().to_owned()),
        }
    }
}

/// Whether `period` has passed. A clock that went back must not hold up a refresh until it has caught up.
fn elapsed(since: Timestamp, now: Timestamp, period: SignedDuration) -> bool {
    let age = now.duration_since(since);
    age.is_negative() || age >= period
}

/// Where the discovery document says that the keys are. It may not lead from the network to this machine.
fn key_set_url(document: &[u8], iss: &str, issuer: &Endpoint) -> Result<Endpoint, KeyFetchError> {
    let found: Discovery = serde_json::from_slice(document).map_err(|_| KeyFetchError::Discovery)?;
    if found.issuer != iss {
        return Err(KeyFetchError::OtherIssuer);
    }
    let endpoint = Endpoint::parse(&found.jwks_uri).map_err(KeyFetchError::KeySetUrl)?;
    if endpoint.is_loopback() && !issuer.is_loopback() {
        return Err(KeyFetchError::KeySetUrl("is on this machine, the issuer is not"));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_does_not_lead_inwards() {
        let issuer = Endpoint::issuer("https://idp.example.com").unwrap();
        let ask = |iss: &str, jwks_uri: &str| {
            let document = serde_json::json!({"issuer": iss, "jwks_uri": jwks_uri}).to_string();
            key_set_url(document.as_bytes(), "https://idp.example.com", &issuer).is_ok()
        };
        assert!(ask("https://idp.example.com", "https://keys.example.net/jwks?p=x"));
        assert!(!ask("https://idp.example.com/", "https://keys.example.net/jwks"));
        assert!(!ask("https://evil.example", "https://keys.example.net/jwks"));
        for inwards in [
            "http://127.0.0.1:8200/v1/keys",
            "https://localhost/keys",
            "http://169.254.169.254/latest",
            "https://10.0.0.1/keys",
            "http://keys.example.net/jwks",
            "file:///etc/passwd",
            "/jwks",
        ] {
            assert!(!ask("https://idp.example.com", inwards), "{inwards}");
        }
    }
}
