//! An issuer's key set: which of its keys may verify a token, and with which algorithm.
//!
//! Each key is parsed and checked once, when its set is loaded, and is bound to the algorithms that its issuer is
//! pinned to; so a verification is the signature's arithmetic and nothing else, and a key can never be used with
//! an algorithm that its type, its `alg` or the configuration rules out.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::config::Algorithm;
use crate::json::{self, Limits};
use crate::token::well_formed_kid;

/// Certificate chains nest and repeat, so a key set may be larger than a token.
const DOCUMENT: Limits = Limits { depth: 10, values: 10_000 };

/// The most keys that a set may have.
const MAX_KEYS: usize = 100;

/// Why a document is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKeySet {
    /// It is not a JWK Set (RFC 7517, section 5).
    #[error("the key set is not a plain JSON object with an array `keys`")]
    Malformed,
    /// It has more than [`MAX_KEYS`] keys.
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
    /// None of its keys can verify a token.
    #[error("the key set has no key that can be used")]
    Empty,
}

/// Why a key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Dropped {
    #[error("it is not a JWK")]
    Malformed,
    #[error("it is symmetric or of an unknown type")]
    Type,
    #[error("it is not for signatures")]
    Use,
    #[error("its algorithm or its curve is not one that the issuer is pinned to")]
    Algorithm,
    #[error(
        "its numbers are malformed or weak: an RSA modulus has 2048 to 8192 bits, its exponent is odd and above 2^16"
    )]
    Material,
    #[error("its private part is published")]
    Private,
    #[error("its id is not printable, or too long")]
    Id,
    #[error("its id is that of another key too")]
    Duplicate,
}

/// A JWK (RFC 7517, section 4), as far as it matters here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
}

/// A key, ready to verify with each algorithm that it may be used with.
pub(crate) struct Key(Vec<(Algorithm, ParsedPublicKey)>);

impl Key {
    /// Whether the key may be used with `algorithm`.
    pub(crate) fn allows(&self, algorithm: Algorithm) -> bool {
        self.0.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether `signature` is this key's signature of `message` under `algorithm`.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let key = self.0.iter().find(|(own, _)| *own == algorithm);
        key.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}

/// The usable keys of one issuer.
pub(crate) struct KeySet {
    digest: Digest,
    keys: Vec<(Option<String>, Key)>,
    dropped: Vec<Dropped>,
}

impl KeySet {
    /// Reads a JWK Set and keeps the keys that may verify with one of `pinned`.
    pub(crate) fn parse(document: &[u8], pinned: &[Algorithm]) -> Result<Self, BadKeySet> {
        let mut object = json::object(document, DOCUMENT).map_err(|_| BadKeySet::Malformed)?;
        let Some(Value::Array(jwks)) = object.remove("keys") else {
            return Err(BadKeySet::Malformed);
        };
        if jwks.len() > MAX_KEYS {
            return Err(BadKeySet::TooMany);
        }
        let mut dropped = Vec::new();
        let mut groups: BTreeMap<Option<String>, Vec<Key>> = BTreeMap::new();
        for jwk in jwks {
            match usable(jwk, pinned) {
                Ok((kid, key)) => groups.entry(kid).or_default().push(key),
                Err(why) => dropped.push(why),
            }
        }
        let mut keys = Vec::new();
        for (kid, mut group) in groups {
            if group.len() > 1 {
                dropped.extend(group.drain(..).map(|_| Dropped::Duplicate));
            }
            keys.extend(group.pop().map(|key| (kid, key)));
        }
        if keys.is_empty() {
            return Err(BadKeySet::Empty);
        }
        Ok(Self { digest: Digest::of(document), keys, dropped })
    }

    /// The key that a token's header means: the one with this id, or the only one if the header has no id.
    pub(crate) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|(own, _)| own.as_deref() == Some(kid)).map(|(_, key)| key),
            (None, [(_, only)]) => Some(only),
            (None, _) => None,
        }
    }

    /// The document's digest: what was verified under another set has to be verified again.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Why each of the document's other keys is not used.
    pub(crate) fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys, {:?})", self.keys.len(), self.dropped)
    }
}

fn usable(jwk: Value, pinned: &[Algorithm]) -> Result<(Option<String>, Key), Dropped> {
    let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| Dropped::Malformed)?;
    if jwk.d.is_some() {
        return Err(Dropped::Private);
    }
    let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let for_verifying = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !for_signatures || !for_verifying {
        return Err(Dropped::Use);
    }
    if jwk.kid.as_deref().is_some_and(|kid| !well_formed_kid(kid)) {
        return Err(Dropped::Id);
    }
    let possible: &[Algorithm] = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => &[Algorithm::RS256, Algorithm::PS256],
        ("EC", Some("P-256")) => &[Algorithm::ES256],
        ("EC", Some("P-384")) => &[Algorithm::ES384],
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDSA],
        ("EC" | "OKP", _) => return Err(Dropped::Algorithm),
        _ => return Err(Dropped::Type),
    };
    let stated = |algorithm: &Algorithm| match jwk.alg.as_deref() {
        Some(name) => Algorithm::from_name(name) == Some(*algorithm),
        None => true,
    };
    let mut verifiers = Vec::new();
    for algorithm in possible.iter().filter(|alg| pinned.contains(alg) && stated(alg)) {
        verifiers.push((*algorithm, parse_key(*algorithm, &jwk).ok_or(Dropped::Material)?));
    }
    if verifiers.is_empty() {
        return Err(Dropped::Algorithm);
    }
    Ok((jwk.kid, Key(verifiers)))
}

fn parse_key(algorithm: Algorithm, jwk: &Jwk) -> Option<ParsedPublicKey> {
    match algorithm {
        Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256, jwk),
        Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256, jwk),
        Algorithm::ES256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(jwk, 32)?).ok(),
        Algorithm::ES384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point(jwk, 48)?).ok(),
        Algorithm::EdDSA => ParsedPublicKey::new(&ED25519, bytes(jwk.x.as_deref(), Some(32))?).ok(),
    }
}

/// The library checks the modulus only when it verifies, and takes any exponent; a weak key should not even be
/// kept. An exponent is odd and above 2^16 (FIPS 186-5, section 5.1); one that does not fit 32 bits is nobody's.
fn rsa(parameters: &'static RsaParameters, jwk: &Jwk) -> Option<ParsedPublicKey> {
    let n = bytes(jwk.n.as_deref(), None)?;
    let e = bytes(jwk.e.as_deref(), None)?;
    let first = n.iter().position(|byte| *byte != 0)?;
    let n = n.get(first..)?;
    let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
    let exponent = e.iter().try_fold(0_u32, |sum, byte| Some(sum.checked_mul(256)? | u32::from(*byte)))?;
    if !(2048..=8192).contains(&bits) || exponent <= 1 << 16 || exponent % 2 == 0 {
        return None;
    }
    RsaPublicKeyComponents { n, e: &e }.to_parsed_public_key(parameters).ok()
}

/// The uncompressed point (SEC 1, section 2.3.3) whose coordinates have `length` bytes each.
fn point(jwk: &Jwk, length: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    point.extend(bytes(jwk.x.as_deref(), Some(length))?);
    point.extend(bytes(jwk.y.as_deref(), Some(length))?);
    Some(point)
}

fn bytes(text: Option<&str>, length: Option<usize>) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text?).ok()?;
    length.is_none_or(|length| bytes.len() == length).then_some(bytes)
}
