//! Keys of issuers and of attackers, and tokens of every shape.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A private key.
pub(crate) enum Signer {
    Rsa(KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Making an RSA key takes a while, so there are three for the whole suite.
pub(crate) static RSA: LazyLock<Signer> = LazyLock::new(rsa);
pub(crate) static NEXT_RSA: LazyLock<Signer> = LazyLock::new(rsa);
pub(crate) static EVIL_RSA: LazyLock<Signer> = LazyLock::new(rsa);
pub(crate) static P256: LazyLock<Signer> =
    LazyLock::new(|| Signer::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()));
pub(crate) static P384: LazyLock<Signer> =
    LazyLock::new(|| Signer::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()));
pub(crate) static ED25519: LazyLock<Signer> =
    LazyLock::new(|| Signer::Ed25519(Ed25519KeyPair::generate().unwrap()));

fn rsa() -> Signer {
    Signer::Rsa(KeyPair::generate(KeySize::Rsa2048).unwrap())
}

impl Signer {
    /// The signature of `message`; RSA with PSS padding for `PS256`.
    pub(crate) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                if alg == "PS256" {
                    pair.sign(&RSA_PSS_SHA256, &rng, message, &mut signature).unwrap();
                } else {
                    pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).unwrap();
                }
                signature
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&rng, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as a JWK without `alg` and `use`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = |crv: &str, bytes: &[u8]| {
            let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
            json!({"kty": "EC", "crv": crv, "kid": kid, "x": b64(x), "y": b64(y)})
        };
        match self {
            Self::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(pair.public_key());
                json!({"kty": "RSA", "kid": kid, "n": b64(&public.n), "e": b64(&public.e)})
            }
            Self::P256(pair) => point("P-256", pair.public_key().as_ref()),
            Self::P384(pair) => point("P-384", pair.public_key().as_ref()),
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(pair.public_key().as_ref())})
            }
        }
    }
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with this header and this payload, whatever they are.
pub(crate) fn token_of(header: &str, payload: &str, signer: &Signer) -> String {
    let alg = serde_json::from_str::<Value>(header).ok();
    let alg = alg.as_ref().and_then(|header| header["alg"].as_str()).unwrap_or("RS256").to_owned();
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = signer.sign(&alg, message.as_bytes());
    format!("{message}.{}", b64(signature))
}

/// A token as an issuer makes it.
pub(crate) fn token(alg: &str, kid: &str, claims: &Value, signer: &Signer) -> String {
    let header = json!({"alg": alg, "kid": kid, "typ": "JWT"});
    token_of(&header.to_string(), &claims.to_string(), signer)
}

/// A JWK Set.
pub(crate) fn jwks(keys: &[Value]) -> Value {
    json!({"keys": keys})
}
