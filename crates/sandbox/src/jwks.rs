//! An issuer's keys, and a token's signature. What the claims have to say is each cloud's own matter.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::Clock;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

/// How long a key set is believed without a look at the issuer.
const CACHED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// How long the issuer may take to answer; AWS gives it 5 seconds as well.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest discovery document or key set, in bytes.
const MAX_DOCUMENT: usize = 1 << 20;

/// Why a token's signature proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token has no key id")]
    NoKid,
    #[error("the token is signed with {0}")]
    Algorithm(String),
    #[error("no key of the issuer has the token's key id")]
    UnknownKey,
    #[error("the key may not be used for this signature: {0}")]
    Key(String),
    #[error("the signature does not fit")]
    Signature,
    #[error("the issuer cannot be asked for its keys: {0}")]
    Unreachable(String),
}

/// A token whose signature fits.
#[derive(Debug, Clone)]
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    #[cfg(test)]
    pub(crate) fn of(value: Value) -> Self {
        match value {
            Value::Object(map) => Self(map),
            _ => Self(Map::new()),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The claims whose names begin with `prefix`, by the rest of their names.
    pub(crate) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
    }

    /// A claim that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A claim that is a whole number of seconds since 1970; `None` where it is absent or anything else.
    pub(crate) fn instant(&self, name: &str) -> Option<Timestamp> {
        Timestamp::from_second(self.get(name)?.as_i64()?).ok()
    }

    /// The audiences: one text, or a list of them. Empty where there are none.
    pub(crate) fn audiences(&self) -> Vec<&str> {
        match self.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The claim at a dotted path, as Google's attribute mappings write it.
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        let mut steps = path.split('.');
        let first = self.0.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

struct Cached {
    keys: Vec<Value>,
    at: Timestamp,
}

/// An issuer that a cloud was told to trust.
pub(crate) struct TrustedIssuer {
    url: String,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    cached: Mutex<Option<Cached>>,
}

impl TrustedIssuer {
    pub(crate) fn new(url: String, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        // The issuer is on loopback: a proxy from the environment would only lose the way.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { url, http, clock, cached: Mutex::new(None) })
    }

    /// The exact `iss` of its tokens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Checks the signature of `token` with the issuer's published key of that `kid`.
    pub(crate) async fn verify(&self, token: &str, allowed: &[Algorithm]) -> Result<Claims, TokenFault> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Malformed)?;
        let kid = header.kid.filter(|kid| !kid.is_empty()).ok_or(TokenFault::NoKid)?;
        let jwk = self.key(&kid).await?;
        if jwk.get("use").is_some_and(|usage| usage == "enc") || jwk.get("key_ops").is_some() {
            return Err(TokenFault::Key("its JWK has key_ops or use=enc".to_owned()));
        }
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|e| TokenFault::Key(e.to_string()))?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|e| TokenFault::Key(e.to_string()))?;
        verify_with(token, &key, allowed)
    }

    /// Every key that the issuer publishes now.
    pub(crate) async fn keys(&self) -> Result<Vec<Value>, TokenFault> {
        self.fetch().await.map_err(TokenFault::Unreachable)
    }

    async fn key(&self, kid: &str) -> Result<Value, TokenFault> {
        let mut cached = self.cached.lock().await;
        let now = self.clock.now();
        if let Some(cached) = cached.as_ref().filter(|cached| now.duration_since(cached.at) < CACHED_FOR)
            && let Some(key) = find(&cached.keys, kid)
        {
            return Ok(key);
        }
        let keys = self.fetch().await.map_err(TokenFault::Unreachable)?;
        let found = find(&keys, kid);
        *cached = Some(Cached { keys, at: now });
        found.ok_or(TokenFault::UnknownKey)
    }

    async fn fetch(&self) -> Result<Vec<Value>, String> {
        let discovery = format!("{}/.well-known/openid-configuration", self.url);
        let discovery: Discovery = self.document(&discovery).await?;
        if discovery.issuer != self.url {
            return Err(format!("its discovery document names the issuer {:?}", discovery.issuer));
        }
        if !is_loopback(&discovery.jwks_uri) {
            return Err(format!("its jwks_uri {:?} is not on loopback", discovery.jwks_uri));
        }
        let set: KeySet = self.document(&discovery.jwks_uri).await?;
        Ok(set.keys)
    }

    async fn document<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, String> {
        let mut response = self.http.get(url).send().await.map_err(|e| e.without_url().to_string())?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| e.without_url().to_string())? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_DOCUMENT {
                return Err("its document is too large".to_owned());
            }
        }
        serde_json::from_slice(&body).map_err(|e| format!("its document does not read: {e}"))
    }
}

fn find(keys: &[Value], kid: &str) -> Option<Value> {
    keys.iter().find(|key| key.get("kid").and_then(Value::as_str) == Some(kid)).cloned()
}

/// Whether `url` is http on this machine: the sandbox speaks to nothing else.
pub(crate) fn is_loopback(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| {
        url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
    })
}

/// Checks the signature of `token` with `key`, and nothing else.
pub(crate) fn verify_with(
    token: &str,
    key: &DecodingKey,
    allowed: &[Algorithm],
) -> Result<Claims, TokenFault> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Malformed)?;
    if !allowed.contains(&header.alg) {
        return Err(TokenFault::Algorithm(format!("{:?}", header.alg)));
    }
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation);
    decoded.map(|data| Claims(data.claims)).map_err(|error| match error.kind() {
        jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenFault::Signature,
        jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => {
            TokenFault::Algorithm(format!("{:?}", header.alg))
        }
        _ => TokenFault::Malformed,
    })
}
