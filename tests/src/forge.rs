//! Tokens that are wrong on purpose, and a listener that notices when somebody believes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_sandbox::RunClaims;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::TestWorld;

/// base64url without padding, as in a token.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One part of a token, 0 for its header and 1 for its claims.
pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// The token of `run` with other claims, signed by the trusted issuer itself.
pub fn near_miss(world: &TestWorld, run: &RunClaims, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = part(&world.token(run), 1);
    change(&mut claims);
    world.world.sandbox.forge(&claims).expect("a token")
}

/// Somebody with a key of their own, whom nobody trusts.
pub struct Attacker(KeyPair);

impl Default for Attacker {
    fn default() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }
}

impl Attacker {
    /// A token with exactly this header and payload.
    pub fn sign(&self, header: &Value, payload: &str) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(payload));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{message}.{}", encode(signature))
    }

    /// The public half as a JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        let public: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(self.0.public_key());
        json!({"kty": "RSA", "kid": kid, "n": encode(public.n), "e": encode(public.e)})
    }
}

/// A listener that a token names: whoever connects has believed the token.
pub struct Tripwire {
    /// Its URL.
    pub url: String,
    hits: Arc<AtomicUsize>,
}

impl Tripwire {
    /// Listens on loopback.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(connection);
            }
        });
        Self { url, hits }
    }

    /// How many connections there were.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}
