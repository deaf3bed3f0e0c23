//! JWTs that Cortex signs: with keys that are parsed once.
//!
//! Every cloud accepts RS256; not every one accepts ES256, which costs a tenth of the time. Parsing the key at each
//! signature, as general-purpose JWT crates do, more than halves the rate.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::ids::Digest;

/// What Cortex signs with (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 and a key of 2048 bits: everybody takes it.
    #[default]
    RS256,
    /// ECDSA with P-256 and SHA-256: a tenth of the time, where the receiver takes it.
    ES256,
}

impl SigningAlgorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::RS256, Self::ES256];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
        }
    }

    /// Reads its registered name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key that cannot be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a PKCS#8 key of the algorithm.
    #[error("not a PKCS#8 private key for {0}")]
    Malformed(SigningAlgorithm),
    /// The cryptographic library failed.
    #[error("the cryptographic library refused to work")]
    Crypto,
}

enum Pair {
    Rsa(rsa::KeyPair),
    P256(EcdsaKeyPair),
}

/// A key that signs.
pub struct SigningKey {
    kid: String,
    pair: Pair,
    rng: SystemRandom,
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto;
        Self::new(match algorithm {
            SigningAlgorithm::RS256 => Pair::Rsa(rsa::KeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
            SigningAlgorithm::ES256 => {
                Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?)
            }
        })
    }

    /// Reads a key from PKCS#8 DER.
    pub fn from_pkcs8(algorithm: SigningAlgorithm, der: &[u8]) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Malformed(algorithm);
        Self::new(match algorithm {
            SigningAlgorithm::RS256 => Pair::Rsa(rsa::KeyPair::from_pkcs8(der).map_err(failed)?),
            SigningAlgorithm::ES256 => {
                Pair::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(failed)?)
            }
        })
    }

    fn new(pair: Pair) -> Result<Self, KeyError> {
        let mut key = Self { kid: String::new(), pair, rng: SystemRandom::new() };
        key.kid = key.thumbprint()?;
        Ok(key)
    }

    /// What it signs with.
    pub fn algorithm(&self) -> SigningAlgorithm {
        match self.pair {
            Pair::Rsa(_) => SigningAlgorithm::RS256,
            Pair::P256(_) => SigningAlgorithm::ES256,
        }
    }

    /// The key as PKCS#8 DER, to be encrypted and stored.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der = match &self.pair {
            Pair::Rsa(pair) => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map_err(|_| KeyError::Crypto)?.as_ref().to_vec()
            }
            Pair::P256(pair) => pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?.as_ref().to_vec(),
        };
        Ok(Zeroizing::new(der))
    }

    /// The key's id: its JWK thumbprint (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK (RFC 7517), for signatures.
    pub fn public_jwk(&self) -> Map<String, Value> {
        let mut jwk = self.public_members();
        for (name, value) in [("use", "sig"), ("alg", self.algorithm().name()), ("kid", &self.kid)] {
            jwk.insert(name.to_owned(), value.into());
        }
        jwk
    }

    /// The members that make the key (RFC 7518, section 6), in the order of their names.
    fn public_members(&self) -> Map<String, Value> {
        let encoded = |bytes: &[u8]| Value::String(URL_SAFE_NO_PAD.encode(bytes));
        let members = match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents { n, e }: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                vec![("e", encoded(&e)), ("kty", json!("RSA")), ("n", encoded(&n))]
            }
            Pair::P256(pair) => {
                // An uncompressed point: 4, x, y (SEC 1, section 2.3.3).
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                vec![("crv", json!("P-256")), ("kty", json!("EC")), ("x", encoded(x)), ("y", encoded(y))]
            }
        };
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The public half as DER, an X.509 `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
    pub fn public_der(&self) -> Result<Vec<u8>, KeyError> {
        let der = match &self.pair {
            Pair::Rsa(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()),
            Pair::P256(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()),
        };
        Ok(der.map_err(|_| KeyError::Crypto)?.as_ref().to_vec())
    }

    fn thumbprint(&self) -> Result<String, KeyError> {
        let canonical = serde_json::to_vec(&self.public_members()).map_err(|_| KeyError::Crypto)?;
        Ok(URL_SAFE_NO_PAD.encode(Digest::of(&canonical).as_bytes()))
    }

    /// Signs `claims` as a compact JWS; `typ` is the header's type: `JWT`, or `at+jwt` (RFC 9068).
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<Zeroizing<String>, KeyError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'a str,
            kid: &'a str,
            typ: &'a str,
        }
        let header = serde_json::to_vec(&Header { alg: self.algorithm().name(), kid: &self.kid, typ });
        let header = header.map_err(|_| KeyError::Crypto)?;
        let claims = Zeroizing::new(serde_json::to_vec(claims).map_err(|_| KeyError::Crypto)?);
        let mut token = Zeroizing::new(String::with_capacity((header.len() + claims.len()) * 4 / 3 + 360));
        URL_SAFE_NO_PAD.encode_string(&header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.as_slice(), &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(token)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.rng, message, &mut signature)
                    .map_err(|_| KeyError::Crypto)?;
                Ok(signature)
            }
            Pair::P256(pair) => {
                let signature = pair.sign(&self.rng, message).map_err(|_| KeyError::Crypto)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, key): (&'static dyn VerificationAlgorithm, &[u8]) = match &self.pair {
            Pair::Rsa(pair) => (&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref()),
            Pair::P256(pair) => (&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()),
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}

/// The longest token of Cortex's own that is read, in bytes.
const MAX_OWN: usize = 16 * 1024;

/// A token that says that Cortex signed it, read and not believed.
pub struct OwnToken<'a> {
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
    header: Header,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

impl<'a> OwnToken<'a> {
    /// Reads a compact JWS of the shape that [`SigningKey::sign`] makes; none of any other.
    pub fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = Some(token).filter(|token| token.len() <= MAX_OWN)?.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { signed, claims, signature, header })
    }

    /// The id of the key that it says it was signed with.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// The type that it says it is of.
    pub fn typ(&self) -> &str {
        &self.header.typ
    }

    /// The claims, if `key` signed them.
    pub fn verified_with(&self, key: &SigningKey) -> Option<Map<String, Value>> {
        // The key says how it is verified; a token that says otherwise is not of this key.
        let genuine = self.header.alg == key.algorithm().name()
            && key.verifies(self.signed.as_bytes(), &self.signature);
        if !genuine {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(self.claims).ok()?).ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// Cortex as an issuer: its URL and the keys that sign now. Rotation swaps a key under those who hold this.
#[derive(Debug)]
pub struct TokenIssuer {
    url: String,
    rs256: ArcSwap<SigningKey>,
    es256: ArcSwapOption<SigningKey>,
}

impl TokenIssuer {
    /// An issuer at `url` (the exact `iss`) that signs with `key`, which is for RS256.
    pub fn new(url: String, key: Arc<SigningKey>) -> Self {
        Self { url, rs256: ArcSwap::new(key), es256: ArcSwapOption::empty() }
    }

    /// The exact `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key that signs with RS256 now.
    pub fn key(&self) -> Arc<SigningKey> {
        self.rs256.load_full()
    }

    /// The key that signs with `algorithm` now, if there is one: of RS256 there always is.
    pub fn key_for(&self, algorithm: SigningAlgorithm) -> Option<Arc<SigningKey>> {
        match algorithm {
            SigningAlgorithm::RS256 => Some(self.key()),
            SigningAlgorithm::ES256 => self.es256.load_full(),
        }
    }

    /// Signs with `key` from now on, where its algorithm is asked for.
    pub fn rotate(&self, key: Arc<SigningKey>) {
        match key.algorithm() {
            SigningAlgorithm::RS256 => self.rs256.store(key),
            SigningAlgorithm::ES256 => self.es256.store(Some(key)),
        }
    }
}
