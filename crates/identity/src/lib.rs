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
//! A run whose Airflow signs nothing is proven in one of two weaker ways: a service claims it and that Airflow's own
//! API confirms it ([`Identity::verify_claim`]), or its pod's token is reviewed by its cluster ([`ClusterConfig`]).
//!
//! A refusal before the third step says nothing about anyone; after it, it is known whose token it is
//! ([`Rejection::verified`]).

mod airflow;
mod claim_map;
mod claims;
mod cluster;
mod config;
mod endpoint;
mod fetch;
mod json;
mod jwks;
mod keys;
mod rejection;
mod token;
mod trust;
mod verifier;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cortex_core::{ClaimedRun, Clock, Digest, IssuerName, Principal};
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::task::JoinSet;

pub use airflow::{AirflowConfig, ApiVersion, ClaimReason, ClaimRefusal, Claimant};
pub use claim_map::{ClaimMap, ClaimPath};
pub use cluster::ClusterConfig;
pub use config::{Algorithm, ConfigFault, IssuerConfig, Kind, Section};
pub use jwks::KeyStatus;
pub use rejection::{Known, Reason, Rejection};
pub use token::MAX_TOKEN;
pub use trust::Trust;
pub use verifier::{Replay, SignInClaims, Verified};

use airflow::Airflow;
use cluster::Cluster;
use keys::KeySet;
use rejection::Refused;
use token::Unverified;
use verifier::Issuer;

/// How many verified tokens are remembered. At midnight every DAG starts; each run asks a few times.
const CACHED_TOKENS: u64 = 10_000;

/// The algorithms that Cortex signs its own tokens with.
const OWN_ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];

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
    /// The configuration of those whose word is taken is not sound.
    #[error("whose word is taken is not configured soundly: {}", join(.0))]
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

/// What was verified before, and what has to be so still.
#[derive(Clone)]
struct Remembered {
    verified: Arc<Verified>,
    proof: Proof,
}

/// What a verification rests on.
#[derive(Clone)]
enum Proof {
    /// The issuer's key set of this digest.
    Keys(Arc<Issuer>, Digest),
    /// A cluster's word, which is taken until then.
    Review(Timestamp),
}

/// The verifier of every trusted issuer's tokens. A change of the configuration is a new one, so nothing that was
/// verified under the old one is remembered.
pub struct Identity {
    /// By `iss`.
    issuers: HashMap<String, Arc<Issuer>>,
    /// By `iss`.
    clusters: HashMap<String, Cluster>,
    airflows: Vec<Airflow>,
    own: Option<OwnIssuer>,
    clock: Arc<dyn Clock>,
    remembered: Cache<Digest, Remembered>,
}

impl Identity {
    /// A verifier for whom `trust` names; it refuses the tokens of `own`. `http` makes clients that bring proxies
    /// and, for issuers, certificate authorities; redirects, compression and deadlines are set here.
    pub fn new(
        trust: Trust<'_>,
        own: Option<OwnIssuer>,
        clock: Arc<dyn Clock>,
        http: impl Fn() -> reqwest::ClientBuilder,
    ) -> Result<Self, SetupError> {
        let faults = faults(&trust, own.as_ref());
        if !faults.is_empty() {
            return Err(SetupError::Config(faults));
        }
        let client = fetch::client(http())?;
        let mut issuers = HashMap::new();
        for config in trust.issuers {
            let issuer = Issuer::new(config, client.clone(), Arc::clone(&clock));
            let issuer = issuer.map_err(|why| fault(Section::Issuer, &config.name, "iss", why))?;
            issuers.insert(config.iss.clone(), Arc::new(issuer));
        }
        let mut clusters = HashMap::new();
        for config in trust.clusters {
            let fault = |option, why: &str| fault(Section::Cluster, &config.name, option, why);
            let client = fetch::client_trusting(http(), config.ca_file.as_deref());
            let client = client.map_err(|why| fault("ca_file", &why))?;
            let cluster = Cluster::new(config, client).map_err(|why| fault("url", why))?;
            clusters.insert(config.iss.clone(), cluster);
        }
        let mut airflows = Vec::new();
        for config in trust.airflows {
            let fault = |option, why: &str| fault(Section::Airflow, &config.name, option, why);
            let client = fetch::client_trusting(http(), config.ca_file.as_deref());
            let client = client.map_err(|why| fault("ca_file", &why))?;
            airflows.push(Airflow::new(config, client).map_err(|why| fault("url", why))?);
        }
        Ok(Self { issuers, clusters, airflows, own, clock, remembered: Cache::new(CACHED_TOKENS) })
    }

    /// Verifies `token`. It waits only when the issuer's keys have to be fetched, then at most 5 seconds, or its
    /// cluster has to be asked, then at most as long as configured.
    pub async fn verify(&self, token: &str) -> Result<Arc<Verified>, Rejection> {
        token::check_size(token).map_err(Refused::unverified)?;
        let digest = Digest::of(token.as_bytes());
        if let Some(verified) = self.recall(&digest) {
            return Ok(verified);
        }
        let raw = token;
        let token = Unverified::parse(raw).map_err(Refused::unverified)?;
        let iss = token.iss().map_err(Refused::unverified)?;
        if let Some(own) = self.own.as_ref().filter(|own| own.iss == iss) {
            return Err(refuse_own(own, &token, digest));
        }
        let (verified, proof) = if let Some(issuer) = self.issuers.get(iss) {
            let (verified, under) = issuer.verify(&token, digest, None).await?;
            (verified, Proof::Keys(Arc::clone(issuer), under))
        } else if let Some(cluster) = self.clusters.get(iss) {
            let (verified, until) = cluster.verify(raw, &token, digest, &*self.clock).await?;
            (verified, Proof::Review(until))
        } else {
            return Err(Refused::new(Reason::Iss, "no such issuer is configured").unverified());
        };
        let verified = Arc::new(verified);
        // A token that is good for one exchange comes again only to be refused.
        if verified.replay().is_none() {
            self.remembered.insert(digest, Remembered { verified: Arc::clone(&verified), proof });
        }
        Ok(verified)
    }

    /// Verifies the ID token that a person's sign-in at an issuer ended with, by the same rules as any token of that
    /// issuer but for its audience, which is the client that asked. It is good for this sign-in and for nothing
    /// else, so it is not remembered. It waits at most 5 seconds, for the issuer's keys.
    pub async fn verify_sign_in(
        &self,
        token: &str,
        sign_in: &SignInClaims<'_>,
    ) -> Result<Verified, Rejection> {
        token::check_size(token).map_err(Refused::unverified)?;
        let digest = Digest::of(token.as_bytes());
        let token = Unverified::parse(token).map_err(Refused::unverified)?;
        let iss = token.iss().map_err(Refused::unverified)?;
        let issuer = self.issuers.get(iss).filter(|issuer| issuer.name() == sign_in.issuer);
        let other = || Refused::new(Reason::Iss, "the ID token is not of the issuer that was asked");
        let issuer = issuer.ok_or_else(|| other().unverified())?;
        issuer.verify(&token, digest, Some(sign_in)).await.map(|(verified, _)| verified)
    }

    /// The run that a service says it acts for, once that service's Airflow has confirmed that it is running. The
    /// Airflow is asked each time, and has as long as configured.
    pub async fn verify_claim(
        &self,
        service: &Verified,
        claim: &ClaimedRun,
    ) -> Result<Arc<Verified>, ClaimRefusal> {
        let refuse = |message: &str| Err(ClaimRefusal::new(ClaimReason::NotAllowed, message));
        let Principal::Service(claimant) = service.principal() else {
            return refuse("Only a service claims a run: this token says by itself who it is.");
        };
        match self.airflows.iter().find(|airflow| airflow.trusts(claimant)) {
            Some(airflow) => Ok(Arc::new(service.with_claim(airflow.check(claim, &*self.clock).await?))),
            None => refuse(
                "This service may not claim runs; an admin lists it among the claimants of an Airflow.",
            ),
        }
    }

    /// A token that was verified before, if it would be again: it has not expired, and what that rests on holds.
    fn recall(&self, digest: &Digest) -> Option<Arc<Verified>> {
        let entry = self.remembered.get(digest)?;
        let now = self.clock.now();
        let holds = match &entry.proof {
            Proof::Keys(issuer, under) => issuer.keys().current().is_some_and(|keys| keys.digest() == *under),
            Proof::Review(until) => now < *until,
        };
        (holds && now < entry.verified.expires_at()).then_some(entry.verified)
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

/// What is wrong with those whose word is taken. Cortex must not trust itself, nor an issuer that is called like it.
fn faults(trust: &Trust<'_>, own: Option<&OwnIssuer>) -> Vec<ConfigFault> {
    let mut faults = trust.validate();
    let Some(own) = own else { return faults };
    let issuers = trust.issuers.iter().map(|issuer| (Section::Issuer, &issuer.name, Some(&issuer.iss)));
    let clusters = trust.clusters.iter().map(|one| (Section::Cluster, &one.name, Some(&one.iss)));
    let airflows = trust.airflows.iter().map(|one| (Section::Airflow, &one.name, None));
    for (section, name, iss) in issuers.chain(clusters).chain(airflows) {
        let shared = [("iss", iss == Some(&own.iss)), ("name", *name == own.name)];
        for (option, _) in shared.into_iter().filter(|(_, shared)| *shared) {
            let message = "is that of Cortex itself: it does not trust its own tokens".to_owned();
            faults.push(ConfigFault { section, name: name.clone(), option, message });
        }
    }
    faults
}

fn fault(section: Section, name: &IssuerName, option: &'static str, why: &str) -> SetupError {
    SetupError::Config(vec![ConfigFault { section, name: name.clone(), option, message: why.to_owned() }])
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
