//! From a token string to a proven principal: the trust boundary of Cortex.
//!
//! [`Identity::verify`] is the only way to a [`Verified`]. Issuers are an allow-list ([`IssuerConfig`]); no URL, key
//! or algorithm ever comes from a token, and a token that names an unknown issuer causes no request at all. The
//! rules are those of RFC 8725 (JWT best practices), made strict where the standards leave a choice:
//!
//! 1. at most 16 KiB, three parts of strict base64url, JSON without repeated members, depth at most 8;
//! 2. a pinned algorithm, and a key from the issuer's own set that is bound to it; nothing in the header that
//!    brings a key or must be understood;
//! 3. only then, of a genuine token: its type, exactly one audience, `exp`, `iat` and `nbf` in whole seconds, a
//!    bounded lifetime, `sub`, `jti`, and the claims that name the principal.
//!
//! A refusal before the third step says nothing about anyone; after it, it is known whose token it is
//! ([`Rejection::verified`]).

mod claim_map;
mod claims;
mod config;
mod endpoint;
mod json;
mod jwks;
mod keys;
mod rejection;
mod token;
mod verifier;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::{Clock, Digest, IssuerName};
use moka::sync::Cache;
use tokio::task::JoinSet;

pub use claim_map::{ClaimMap, ClaimPath};
pub use config::{Algorithm, ConfigFault, IssuerConfig, Kind};
pub use jwks::KeyStatus;
pub use rejection::{Known, Reason, Rejection};
pub use token::MAX_TOKEN;
pub use verifier::{Replay, Verified};

use keys::KeySet;
use rejection::Refused;
use token::Unverified;
use verifier::Issuer;

/// How many verified tokens are remembered. At midnight every DAG starts; each run asks a few times.
const CACHED_TOKENS: u64 = 10_000;

/// How long a connection to an issuer may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// The algorithms that Cortex signs its own tokens with.
const OWN_ALGORITHMS: [Algorithm; 1] = [Algorithm::RS256];

/// Cortex itself as an issuer. Its tokens are recognised so that they can be refused: a credential that it issued
/// must not be the proof that the next one is issued on.
pub struct OwnIssuer {
    /// What records call it.
    pub name: IssuerName,
    /// The exact `iss` of its tokens.
    pub iss: String,
    /// Its public keys now, as a JWK Set (RFC 7517, section 5) in JSON.
    pub jwks: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl fmt::Debug for OwnIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnIssuer({})", self.iss)
    }
}

/// Why there can be no verifier.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration of the issuers is not sound.
    #[error("the issuers are not configured soundly: {}", join(.0))]
    Config(Vec<ConfigFault>),
    /// The HTTP client cannot be built.
    #[error("the HTTP client for key sets cannot be built: {0}")]
    Http(#[from] reqwest::Error),
}

fn join(faults: &[ConfigFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is known of one issuer, for metrics, readiness and the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerStatus {
    /// Its name.
    pub issuer: IssuerName,
    /// What its tokens prove.
    pub kind: Kind,
    /// Its keys.
    pub keys: KeyStatus,
}

/// What was verified before, and under which keys.
#[derive(Clone)]
struct Remembered {
    verified: Arc<Verified>,
    issuer: Arc<Issuer>,
    under: Digest,
}

/// The verifier of every trusted issuer's tokens. A change of the configuration is a new one, so nothing that was
/// verified under the old one is remembered.
pub struct Identity {
    /// By `iss`.
    issuers: HashMap<String, Arc<Issuer>>,
    own: Option<OwnIssuer>,
    clock: Arc<dyn Clock>,
    remembered: Cache<Digest, Remembered>,
}

impl Identity {
    /// A verifier for `issuers`; it refuses the tokens of `own`. `http` brings certificate authorities and proxies;
    /// redirects, compression and deadlines are set here.
    pub fn new(
        issuers: &[IssuerConfig],
        own: Option<OwnIssuer>,
        clock: Arc<dyn Clock>,
        http: reqwest::ClientBuilder,
    ) -> Result<Self, SetupError> {
        let faults = faults(issuers, own.as_ref());
        if !faults.is_empty() {
            return Err(SetupError::Config(faults));
        }
        let http = http
            .redirect(reqwest::redirect::Policy::none())
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .referer(false)
            .connect_timeout(CONNECT_DEADLINE)
            .build()?;
        let mut by_iss = HashMap::new();
        for config in issuers {
            let fault = |why: &str| {
                let issuer = config.name.clone();
                SetupError::Config(vec![ConfigFault { issuer, option: "iss", message: why.into() }])
            };
            let issuer = Issuer::new(config, http.clone(), Arc::clone(&clock)).map_err(fault)?;
            by_iss.insert(config.iss.clone(), Arc::new(issuer));
        }
        Ok(Self { issuers: by_iss, own, clock, remembered: Cache::new(CACHED_TOKENS) })
    }

    /// Verifies `token`. It waits only when the issuer's keys have to be fetched, then at most 5 seconds.
    pub async fn verify(&self, token: &str) -> Result<Arc<Verified>, Rejection> {
        token::check_size(token).map_err(Refused::unverified)?;
        let digest = Digest::of(token.as_bytes());
        if let Some(verified) = self.recall(&digest) {
            return Ok(verified);
        }
        let token = Unverified::parse(token).map_err(Refused::unverified)?;
        let iss = token.iss().map_err(Refused::unverified)?;
        if let Some(own) = self.own.as_ref().filter(|own| own.iss == iss) {
            return Err(refuse_own(own, &token, digest));
        }
        let Some(issuer) = self.issuers.get(iss) else {
            return Err(Refused::new(Reason::Iss, "no such issuer is configured").unverified());
        };
        let (verified, under) = issuer.verify(&token, digest).await?;
        let verified = Arc::new(verified);
        let entry = Remembered { verified: Arc::clone(&verified), issuer: Arc::clone(issuer), under };
        self.remembered.insert(digest, entry);
        Ok(verified)
    }

    /// A token that was verified before, if it would be again: it has not expired, and the key set that it was
    /// verified under is still its issuer's.
    fn recall(&self, digest: &Digest) -> Option<Arc<Verified>> {
        let entry = self.remembered.get(digest)?;
        let alive = self.clock.now() < entry.verified.expires_at();
        let keys = entry.issuer.keys().current();
        (alive && keys.is_some_and(|keys| keys.digest() == entry.under)).then_some(entry.verified)
    }

    /// Keeps every issuer's keys fresh. It never ends by itself; the server spawns it and drops it at its own end.
    /// Without it, keys are fetched when a token needs them.
    pub async fn refresh_loop(&self) {
        let mut loops = JoinSet::new();
        for issuer in self.issuers.values() {
            loops.spawn(Arc::clone(issuer.keys()).keep_fresh());
        }
        while loops.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    }

    /// Fetches the keys of every issuer whose keys are due, all at once; at most 5 seconds.
    pub async fn refresh_due(&self) {
        let mut fetches = JoinSet::new();
        for issuer in self.issuers.values() {
            let keys = Arc::clone(issuer.keys());
            fetches.spawn(async move { keys.refresh_if_due().await });
        }
        while fetches.join_next().await.is_some() {}
    }

    /// What is known of every issuer, by name.
    pub fn status(&self) -> Vec<IssuerStatus> {
        let status = |issuer: &Arc<Issuer>| IssuerStatus {
            issuer: issuer.name().clone(),
            kind: issuer.kind(),
            keys: issuer.keys().status(),
        };
        let mut all: Vec<_> = self.issuers.values().map(status).collect();
        all.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        all
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("issuers", &self.status())
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the issuers. Cortex must not trust itself, nor an issuer that is called like it.
fn faults(issuers: &[IssuerConfig], own: Option<&OwnIssuer>) -> Vec<ConfigFault> {
    let mut faults = config::validate_all(issuers);
    let Some(own) = own else { return faults };
    for issuer in issuers {
        let shared = [("iss", issuer.iss == own.iss), ("name", issuer.name == own.name)];
        for (option, _) in shared.into_iter().filter(|(_, shared)| *shared) {
            let message = "is that of Cortex itself: it does not trust its own tokens".to_owned();
            faults.push(ConfigFault { issuer: issuer.name.clone(), option, message });
        }
    }
    faults
}

/// Refuses a token that says it is from Cortex; by name if it really is.
fn refuse_own(own: &OwnIssuer, token: &Unverified<'_>, digest: Digest) -> Rejection {
    let keys = KeySet::parse(&(own.jwks)(), &OWN_ALGORITHMS);
    let genuine =
        keys.map_err(|_| Refused::new(Reason::SelfIssuer, "no key of Cortex's own to check it with"));
    match genuine.and_then(|keys| verifier::signed_by(&keys, token)) {
        Ok(()) => {
            let known = verifier::known(&own.name, token, digest);
            Refused::new(Reason::SelfIssuer, "Cortex issued this token itself").verified(known)
        }
        Err(refused) => refused.unverified(),
    }
}
