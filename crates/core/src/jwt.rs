//! JWTs that Cortex signs: RS256 with a key that is parsed once.
//!
//! Every cloud accepts RS256; not every one accepts anything else. Parsing the key at each signature, as
//! general-purpose JWT crates do, more than halves the rate.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::ids::Digest;

/// A key that cannot be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a PKCS#8 RSA key of 2048 bits or more.
    #[error("not a PKCS#8 RSA private key of at least 2048 bits")]
    Malformed,
    /// The cryptographic library failed.
    #[error("the cryptographic library refused to work")]
    Crypto,
}

/// An RSA key of 2048 bits that signs with RS256.
pub struct SigningKey {
    kid: String,
    pair: KeyPair,
    rng: SystemRandom,
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::new(KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Crypto)?)
    }

    /// Reads a key from PKCS#8 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(KeyPair::from_pkcs8(der).map_err(|_| KeyError::Malformed)?)
    }

    fn new(pair: KeyPair) -> Result<Self, KeyError> {
        let mut key = Self { kid: String::new(), pair, rng: SystemRandom::new() };
        key.kid = key.thumbprint()?;
        Ok(key)
    }

    /// The key as PKCS#8 DER, to be encrypted and stored.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&self.pair).map_err(|_| KeyError::Crypto)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The key's id: its JWK thumbprint (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The modulus and the exponent in base64url: the members `n` and `e` of its JWK (RFC 7518, 6.3.1).
    pub fn public_components(&self) -> (String, String) {
        let parts: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(self.pair.public_key());
        (URL_SAFE_NO_PAD.encode(parts.n), URL_SAFE_NO_PAD.encode(parts.e))
    }

    fn thumbprint(&self) -> Result<String, KeyError> {
        let (n, e) = self.public_components();
        let canonical = serde_json::to_vec(&serde_json::json!({"e": e, "kty": "RSA", "n": n}));
        let canonical = canonical.map_err(|_| KeyError::Crypto)?;
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
        let header = serde_json::to_vec(&Header { alg: "RS256", kid: &self.kid, typ });
        let header = header.map_err(|_| KeyError::Crypto)?;
        let claims = Zeroizing::new(serde_json::to_vec(claims).map_err(|_| KeyError::Crypto)?);
        let mut token = Zeroizing::new(String::with_capacity((header.len() + claims.len()) * 4 / 3 + 360));
        URL_SAFE_NO_PAD.encode_string(&header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.as_slice(), &mut token);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &self.rng, token.as_bytes(), &mut signature)
            .map_err(|_| KeyError::Crypto)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(token)
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

#[derive(serde::Deserialize)]
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
        (header.alg == "RS256").then_some(Self { signed, claims, signature, header })
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
    pub fn verified_with(&self, key: &SigningKey) -> Option<serde_json::Map<String, serde_json::Value>> {
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public_key().as_ref());
        public.verify(self.signed.as_bytes(), &self.signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(self.claims).ok()?).ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// Cortex as an issuer: its URL and the key that signs now. Rotation swaps the key under those who hold this.
#[derive(Debug)]
pub struct TokenIssuer {
    url: String,
    current: ArcSwap<SigningKey>,
}

impl TokenIssuer {
    /// An issuer at `url` (the exact `iss`) that signs with `key`.
    pub fn new(url: String, key: Arc<SigningKey>) -> Self {
        Self { url, current: ArcSwap::new(key) }
    }

    /// The exact `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key that signs now.
    pub fn key(&self) -> Arc<SigningKey> {
        self.current.load_full()
    }

    /// Signs with `key` from now on.
    pub fn rotate(&self, key: Arc<SigningKey>) {
        self.current.store(key);
    }
}
