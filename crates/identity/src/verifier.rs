//! The verifier of one issuer: the only place where a [`Verified`] is made.

use std::sync::Arc;

use cortex_core::{Clock, Digest, IssuerName, Principal, Run};
use jiff::{SignedDuration, Timestamp};

use crate::claims::{self, Lifetime, Mapping};
use crate::config::{Algorithm, IssuerConfig, Kind};
use crate::endpoint::Endpoint;
use crate::jwks::KeyCache;
use crate::keys::KeySet;
use crate::rejection::{Known, Reason, Refused, Rejection};
use crate::token::Unverified;

/// How much longer than a token lives its use is remembered: the replicas' clocks and the database's differ.
const REPLICA_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A proven principal. Its fields are private and it has no constructor: to hold one is to have had a token
/// verified.
///
/// ```compile_fail
/// fn forge(principal: cortex_core::Principal) -> cortex_identity::Verified {
///     cortex_identity::Verified { principal } // private fields
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    principal: Principal,
    kind: Kind,
    subject: String,
    expires_at: Timestamp,
    token_digest: Digest,
    replay: Option<Replay>,
    claimed_by: Option<String>,
}

impl Verified {
    /// Who a cluster vouches for; its token may be shown again.
    pub(crate) fn reviewed(run: Run, subject: &str, expires_at: Timestamp, token_digest: Digest) -> Self {
        Self {
            principal: Principal::Run(run),
            kind: Kind::Run,
            subject: subject.to_owned(),
            expires_at,
            token_digest,
            replay: None,
            claimed_by: None,
        }
    }

    /// The run that this service claimed, which an Airflow confirmed. The service's token is what is spent.
    pub(crate) fn with_claim(&self, run: Run) -> Self {
        Self {
            claimed_by: Some(self.principal.subject()),
            principal: Principal::Run(run),
            kind: Kind::Run,
            ..self.clone()
        }
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The name of the issuer that vouched for them.
    pub fn issuer(&self) -> &IssuerName {
        self.principal.issuer()
    }

    /// What the issuer vouches for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The token's `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The token's `exp`.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The token's SHA-256: what may be written down of it.
    pub fn token_digest(&self) -> &Digest {
        &self.token_digest
    }

    /// The service that claimed the run, as one string; none where the token itself says who it is.
    pub fn claimed_by(&self) -> Option<&str> {
        self.claimed_by.as_deref()
    }

    /// What has to be remembered so that the token is good for one exchange only; none if it is good for more.
    pub fn replay(&self) -> Option<Replay> {
        self.replay.clone()
    }
}

/// A token's one use. Whoever spends the token stores this, and refuses a second one with the same issuer and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The name of the issuer: a `jti` is unique within it.
    pub issuer: IssuerName,
    /// The SHA-256 of the `jti`.
    pub jti_hash: Digest,
    /// When it may be forgotten: by then the token is refused anyway, whatever a replica's clock says.
    pub expires_at: Timestamp,
}

/// What an ID token has to say beside who it is: that it is the answer to this sign-in.
#[derive(Debug, Clone, Copy)]
pub struct SignInClaims<'a> {
    /// The issuer that was asked.
    pub issuer: &'a IssuerName,
    /// The client that asked: the token's one `aud`.
    pub client_id: &'a str,
    /// The `nonce` that was sent along.
    pub nonce: &'a str,
}

/// One trusted issuer.
pub(crate) struct Issuer {
    name: IssuerName,
    kind: Kind,
    audience: String,
    algorithms: Vec<Algorithm>,
    types: Vec<String>,
    allow_missing_type: bool,
    single_use: bool,
    lifetime: Lifetime,
    mapping: Mapping,
    keys: Arc<KeyCache>,
    clock: Arc<dyn Clock>,
}

impl Issuer {
    /// An issuer whose configuration was found without fault.
    pub(crate) fn new(
        config: &IssuerConfig,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, &'static str> {
        let endpoint = Endpoint::issuer(&config.iss)?;
        Ok(Self {
            name: config.name.clone(),
            kind: config.kind,
            audience: config.audience.clone(),
            algorithms: config.algorithms.clone(),
            types: config.types.clone(),
            allow_missing_type: config.allow_missing_type,
            single_use: config.is_single_use(),
            lifetime: Lifetime::new(config.max_token_lifetime, config.leeway),
            mapping: Mapping::new(config),
            keys: Arc::new(KeyCache::new(config, endpoint, http, Arc::clone(&clock))?),
            clock,
        })
    }

    pub(crate) fn name(&self) -> &IssuerName {
        &self.name
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn keys(&self) -> &Arc<KeyCache> {
        &self.keys
    }

    /// Verifies a token that names this issuer. Beside the principal, the digest of the key set that it was
    /// verified under. `sign_in`: it is the ID token of that sign-in, and for its client instead of Cortex.
    pub(crate) async fn verify(
        &self,
        token: &Unverified<'_>,
        token_digest: Digest,
        sign_in: Option<&SignInClaims<'_>>,
    ) -> Result<(Verified, Digest), Rejection> {
        let under = self.check_signature(token).await.map_err(Refused::unverified)?;
        let verified = self.read(token, token_digest, sign_in);
        match verified {
            Ok(verified) => Ok((verified, under)),
            Err(refused) => Err(refused.verified(known(&self.name, token, token_digest))),
        }
    }

    async fn check_signature(&self, token: &Unverified<'_>) -> Result<Digest, Refused> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Refused::new(Reason::Alg, "the issuer is not pinned to this algorithm"));
        }
        let keys = self.keys.for_token(token.kid.as_deref()).await;
        let keys = keys.ok_or_else(|| Refused::new(Reason::JwksUnavailable, "no keys of the issuer"))?;
        signed_by(&keys, token)?;
        Ok(keys.digest())
    }

    /// What a token says whose signature is genuine.
    fn read(
        &self,
        token: &Unverified<'_>,
        token_digest: Digest,
        sign_in: Option<&SignInClaims<'_>>,
    ) -> Result<Verified, Refused> {
        self.check_type(token.typ.as_deref())?;
        claims::check_audience(&token.claims, sign_in.map_or(&self.audience, |sign_in| sign_in.client_id))?;
        if let Some(sign_in) = sign_in {
            claims::check_sign_in(&token.claims, sign_in.client_id, sign_in.nonce)?;
        }
        let expires_at = self.lifetime.check(&token.claims, self.clock.now())?;
        let subject = claims::subject(&token.claims)?;
        let replay = if self.single_use { Some(self.replay(token, expires_at)?) } else { None };
        Ok(Verified {
            principal: self.mapping.principal(&self.name, subject, &token.claims)?,
            kind: self.kind,
            subject: subject.to_owned(),
            expires_at,
            token_digest,
            replay,
            claimed_by: None,
        })
    }

    /// `typ` is a media type: case does not matter and `application/` may be left out (RFC 7515, section 4.1.9).
    fn check_type(&self, typ: Option<&str>) -> Result<(), Refused> {
        let accepted = match typ {
            None => self.allow_missing_type,
            Some(typ) => {
                let typ = typ.strip_prefix("application/").unwrap_or(typ);
                self.types.iter().any(|accepted| accepted.eq_ignore_ascii_case(typ))
            }
        };
        if accepted { Ok(()) } else { Err(Refused::new(Reason::Typ, "typ is not one of the accepted types")) }
    }

    fn replay(&self, token: &Unverified<'_>, expires_at: Timestamp) -> Result<Replay, Refused> {
        let jti_hash = Digest::of(claims::jti(&token.claims)?.as_bytes());
        let kept = self.lifetime.leeway() + REPLICA_SKEW;
        let expires_at = expires_at.saturating_add(kept).unwrap_or(Timestamp::MAX);
        Ok(Replay { issuer: self.name.clone(), jti_hash, expires_at })
    }
}

/// Whether one of `keys` signed `token`.
pub(crate) fn signed_by(keys: &KeySet, token: &Unverified<'_>) -> Result<(), Refused> {
    let key = keys.find(token.kid.as_deref());
    let key =
        key.ok_or_else(|| Refused::new(Reason::Kid, "the key set has no such key, or the token names none"))?;
    if !key.allows(token.algorithm) {
        return Err(Refused::new(Reason::Alg, "the key is not for this algorithm"));
    }
    if key.verifies(token.algorithm, token.message, &token.signature) {
        Ok(())
    } else {
        Err(Refused::new(Reason::Sig, "the signature is not the key's"))
    }
}

/// What may be recorded of a genuine token that is refused.
pub(crate) fn known(issuer: &IssuerName, token: &Unverified<'_>, token_digest: Digest) -> Known {
    let subject = claims::subject(&token.claims).ok().map(str::to_owned);
    Known { issuer: issuer.clone(), subject, token_digest }
}
