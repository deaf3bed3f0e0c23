//! Cortex's signing keys: made on first start, sealed at rest, rotated with overlap.
//!
//! A new key is published before it signs, for as long as a verifier may cache the key set, and an old one
//! stays published until what it signed has expired; so a verifier that caches never meets an unknown key.

mod config;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cortex_core::GrantId;
use cortex_core::jwt::{KeyError, OwnToken, SigningAlgorithm, SigningKey, TokenIssuer};
use cortex_providers::kms::{KmsError, Purpose};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};
use zeroize::Zeroizing;

pub use config::KeysConfig;

use crate::config::Config;
use crate::key_file::{KeyBytes, KeyFileError, KeyFiles};
use crate::store::keys::{self, KeyRow};
use crate::store::{Stamp, StoreError};

/// Why the keys cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file with the encryption key cannot be read or made.
    #[error("keys.encryption_key_file {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        why: Box<KeyFileError>,
    },
    /// The KMS that wraps the file.
    #[error("kms: {0}")]
    Kms(#[from] KmsError),
    /// A stored key does not open.
    #[error(
        "signing key {0} was sealed under another encryption key: give the file that this database was set up \
         with, or make new keys with `cortex keys rotate --now` after retiring the old ones"
    )]
    WrongKey(String),
    /// No key may sign yet.
    #[error("no signing key is active: run `cortex keys rotate --now`")]
    NoneActive,
    /// The cryptographic library failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate could not be made.
    #[error("making a certificate failed: {0}")]
    Certificate(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What every grant handle begins with, so that a leaked one is recognised.
const GRANT_HANDLE_PREFIX: &str = "cortex_grant_";

/// The key that signing keys are sealed under, AES-256-GCM, and those that come from it: one that grants' handles
/// are made with, one for what a browser keeps for Cortex during a sign-in.
pub struct SealingKey {
    seals: RandomizedNonceKey,
    handles: hmac::Key,
    sign_ins: RandomizedNonceKey,
}

impl SealingKey {
    fn new(bytes: &KeyBytes) -> Result<Self, KeyError> {
        let bytes = bytes.as_array();
        let seals = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| KeyError::Crypto)?;
        // A key of its own for each purpose: HMAC as the extraction of RFC 5869, section 2.2.
        let derive = |purpose: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, purpose), bytes);
        let handles = hmac::Key::new(hmac::HMAC_SHA256, derive(b"cortex grant handle v1").as_ref());
        let sign_ins = RandomizedNonceKey::new(&AES_256_GCM, derive(b"cortex sign-in v1").as_ref());
        Ok(Self { seals, handles, sign_ins: sign_ins.map_err(|_| KeyError::Crypto)? })
    }

    fn seal(&self, kid: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal_under(&self.seals, kid, plain)
    }

    fn open(&self, kid: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open_under(&self.seals, kid, sealed)
    }
}

/// AES-256-GCM, the nonce behind the rest.
fn seal_under(key: &RandomizedNonceKey, associated: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut sealed = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(associated.as_bytes()), &mut sealed)
        .map_err(|_| KeyError::Crypto)?;
    sealed.extend_from_slice(nonce.as_ref());
    Ok(sealed)
}

fn open_under(key: &RandomizedNonceKey, associated: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (body, nonce) = sealed.split_at_checked(sealed.len().checked_sub(12)?)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key.open_in_place(nonce, Aad::from(associated.as_bytes()), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

/// A key that was opened: nothing of it is believed that the sealed half does not say.
#[derive(Clone)]
struct Opened {
    key: Arc<SigningKey>,
    jwk: Value,
}

/// The keys of a running replica.
pub struct Keyring {
    issuer: Arc<TokenIssuer>,
    jwks: Arc<ArcSwap<Value>>,
    sealing: SealingKey,
    /// The published keys, by id; opened once.
    opened: Mutex<HashMap<String, Opened>>,
    stamp: Stamp,
}

impl Keyring {
    /// Opens the keys, making the first one where there is none. `url` is Cortex's `iss`.
    pub async fn open(
        pool: &PgPool,
        config: &Config,
        url: String,
        stamp: Stamp,
    ) -> Result<Self, KeyringError> {
        let mut connection = pool.acquire().await.map_err(StoreError::from)?;
        let sealing = sealing_key(&mut connection, config, &stamp).await?;
        make_missing(&mut connection, &sealing, &config.keys, &stamp).await?;
        let rows = keys::published(&mut *connection).await?;
        let signs =
            current(&rows, SigningAlgorithm::RS256, stamp.clock.now()).ok_or(KeyringError::NoneActive)?;
        let first = open(&sealing, signs)?;
        let keyring = Self {
            issuer: Arc::new(TokenIssuer::new(url, first.key)),
            jwks: Arc::new(ArcSwap::from_pointee(Value::Null)),
            sealing,
            opened: Mutex::default(),
            stamp,
        };
        keyring.take_over(&rows)?;
        Ok(keyring)
    }

    /// Cortex as an issuer.
    pub fn issuer(&self) -> &Arc<TokenIssuer> {
        &self.issuer
    }

    /// The published key set (RFC 7517).
    pub fn jwks(&self) -> Arc<Value> {
        self.jwks.load_full()
    }

    /// The published key set, as it will be whenever it is read.
    pub fn published(&self) -> Arc<ArcSwap<Value>> {
        Arc::clone(&self.jwks)
    }

    /// What the status of a grant can be asked with. It is derived, so that every replica knows it and none
    /// stores it.
    pub fn grant_handle(&self, id: GrantId) -> String {
        let tag = hmac::sign(&self.sealing.handles, id.uuid().as_bytes());
        format!("{GRANT_HANDLE_PREFIX}{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Whether `handle` is that of the grant `id`; in constant time.
    pub fn is_grant_handle(&self, id: GrantId, handle: &str) -> bool {
        let tag = handle.strip_prefix(GRANT_HANDLE_PREFIX).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        tag.is_some_and(|tag| hmac::verify(&self.sealing.handles, id.uuid().as_bytes(), &tag).is_ok())
    }

    /// The claims of a token that Cortex signed with a published key, as one of type `typ`. They may be over.
    pub fn read_own(&self, token: &str, typ: &str) -> Option<Map<String, Value>> {
        let token = OwnToken::parse(token).filter(|token| token.typ() == typ)?;
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        token.verified_with(&opened.get(token.kid())?.key)
    }

    /// Seals what a browser keeps for Cortex while its person is at the identity provider.
    pub(crate) fn seal_sign_in(&self, plain: &[u8]) -> Result<String, KeyError> {
        seal_under(&self.sealing.sign_ins, "", plain).map(|sealed| URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens what a browser kept; none if Cortex did not seal it.
    pub(crate) fn open_sign_in(&self, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        open_under(&self.sealing.sign_ins, "", &URL_SAFE_NO_PAD.decode(sealed).ok()?)
    }

    /// Takes over what changed: new keys, retired ones, and a key whose time to sign has come.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), KeyringError> {
        self.take_over(&keys::published(pool).await?)
    }

    fn take_over(&self, rows: &[KeyRow]) -> Result<(), KeyringError> {
        let opened = self.open_all(rows);
        let now = self.stamp.clock.now();
        if current(rows, SigningAlgorithm::RS256, now).is_none() {
            return Err(KeyringError::NoneActive);
        }
        for signs in SigningAlgorithm::ALL.into_iter().filter_map(|algorithm| current(rows, algorithm, now)) {
            let Some(Opened { key, .. }) = opened.get(&signs.kid) else {
                return Err(KeyringError::WrongKey(signs.kid.clone()));
            };
            let since = signs.active_from.as_duration().as_secs_f64();
            let labels = [("algorithm", signs.algorithm.to_string())];
            metrics::gauge!("cortex_signing_key_timestamp_seconds", &labels).set(since);
            let before = self.issuer.key_for(signs.algorithm);
            if before.is_none_or(|before| before.kid() != signs.kid) {
                self.issuer.rotate(Arc::clone(key));
                tracing::info!(kid = signs.kid, algorithm = %signs.algorithm, "signing with another key from now on");
            }
        }
        let keys: Vec<&Value> = rows.iter().filter_map(|row| Some(&opened.get(&row.kid)?.jwk)).collect();
        metrics::gauge!("cortex_signing_keys")
            .set(u32::try_from(keys.len()).map_or(f64::INFINITY, f64::from));
        let set = json!({ "keys": keys });
        if **self.jwks.load() != set {
            self.jwks.store(Arc::new(set));
        }
        Ok(())
    }

    /// Opens what is new. What does not open was not made by a Cortex that holds the encryption key: it is not
    /// published, whoever wrote it into the database.
    fn open_all(&self, rows: &[KeyRow]) -> HashMap<String, Opened> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|kid, _| rows.iter().any(|row| row.kid == *kid));
        for row in rows {
            if opened.contains_key(&row.kid) {
                continue;
            }
            match open(&self.sealing, row) {
                Ok(key) => drop(opened.insert(row.kid.clone(), key)),
                Err(error) => tracing::error!(%error, "a signing key is not used and not published"),
            }
        }
        opened.clone()
    }
}

/// Makes a key for `algorithm` that signs from `config.publish_ahead_s` on, or at once; answers it.
pub async fn rotate(
    connection: &mut PgConnection,
    config: &Config,
    algorithm: SigningAlgorithm,
    now: bool,
    by: &str,
    stamp: &Stamp,
) -> Result<KeyRow, KeyringError> {
    let sealing = sealing_key(connection, config, stamp).await?;
    let active_from = if now { stamp.clock.now() } else { published_for_long(&config.keys, stamp) };
    make(connection, &sealing, Wanted { algorithm, active_from, only_first: false }, by, stamp).await
}

/// When a key that is published now is known to every verifier.
fn published_for_long(config: &KeysConfig, stamp: &Stamp) -> Timestamp {
    let ahead = SignedDuration::from_secs(config.publish_ahead_s);
    stamp.clock.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
}

/// Makes the keys that are configured and not there. The first of all sign at once: nobody has cached anything yet.
async fn make_missing(
    connection: &mut PgConnection,
    sealing: &SealingKey,
    config: &KeysConfig,
    stamp: &Stamp,
) -> Result<(), KeyringError> {
    let rows = keys::published(&mut *connection).await?;
    let active_from = if rows.is_empty() { stamp.clock.now() } else { published_for_long(config, stamp) };
    let there = |algorithm| rows.iter().any(|row| row.algorithm == algorithm);
    for algorithm in config.all_algorithms().filter(|algorithm| !there(*algorithm)) {
        make(connection, sealing, Wanted { algorithm, active_from, only_first: true }, "system", stamp)
            .await?;
    }
    Ok(())
}

/// The keys that have signed their last token so long ago that nobody needs them any more.
pub fn retirable(rows: &[KeyRow], config: &KeysConfig, now: Timestamp) -> Vec<KeyRow> {
    let old = |row: &&KeyRow| {
        let Some(current) = current(rows, row.algorithm, now) else { return false };
        let over = current.active_from.saturating_add(SignedDuration::from_secs(config.retire_after_s));
        row.active_from < current.active_from && over.is_ok_and(|over| over <= now)
    };
    rows.iter().filter(old).cloned().collect()
}

/// The key that signs with `algorithm` at `now`: the newest whose time has come.
pub fn current(rows: &[KeyRow], algorithm: SigningAlgorithm, now: Timestamp) -> Option<&KeyRow> {
    rows.iter()
        .filter(|row| row.algorithm == algorithm && row.retired_at.is_none() && row.active_from <= now)
        .max_by_key(|row| row.active_from)
}

/// Whether `row` is the key that signs with its algorithm at `now`.
pub fn signs(rows: &[KeyRow], row: &KeyRow, now: Timestamp) -> bool {
    current(rows, row.algorithm, now).is_some_and(|current| current.kid == row.kid)
}

async fn sealing_key(
    connection: &mut PgConnection,
    config: &Config,
    stamp: &Stamp,
) -> Result<SealingKey, KeyringError> {
    let none = keys::all(connection).await?.is_empty();
    let path = &config.keys.encryption_key_file;
    let bytes =
        KeyFiles::new(config, &stamp.clock, &stamp.random)?.load(path, Purpose::SigningKeys, none).await;
    let bytes =
        bytes.map_err(|why| KeyringError::File { path: path.display().to_string(), why: Box::new(why) })?;
    Ok(SealingKey::new(&bytes)?)
}

/// A key to be made.
struct Wanted {
    algorithm: SigningAlgorithm,
    active_from: Timestamp,
    /// Only where there is none for its algorithm.
    only_first: bool,
}

async fn make(
    connection: &mut PgConnection,
    sealing: &SealingKey,
    Wanted { algorithm, active_from, only_first }: Wanted,
    by: &str,
    stamp: &Stamp,
) -> Result<KeyRow, KeyringError> {
    let key = SigningKey::generate(algorithm)?;
    let der = key.to_pkcs8()?;
    let row = KeyRow {
        kid: key.kid().to_owned(),
        algorithm,
        sealed: sealing.seal(key.kid(), &der)?,
        created_at: stamp.clock.now(),
        active_from,
        retired_at: None,
    };
    keys::add(connection, &row, only_first, by, stamp).await?;
    Ok(row)
}

fn open(sealing: &SealingKey, row: &KeyRow) -> Result<Opened, KeyringError> {
    let wrong = || KeyringError::WrongKey(row.kid.clone());
    let der = sealing.open(&row.kid, &row.sealed).ok_or_else(wrong)?;
    let key = SigningKey::from_pkcs8(row.algorithm, &der)?;
    if key.kid() != row.kid {
        return Err(wrong());
    }
    let jwk = public_jwk(&key, &der)?;
    Ok(Opened { key: Arc::new(key), jwk })
}

/// The public half as a JWK, with a self-signed certificate for verifiers that read only `x5c`.
fn public_jwk(key: &SigningKey, der: &[u8]) -> Result<Value, KeyringError> {
    let failed = |e: rcgen::Error| KeyringError::Certificate(e.to_string());
    let with = match key.algorithm() {
        SigningAlgorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
        SigningAlgorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
    };
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), with).map_err(failed)?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "cortex");
    let certificate = parameters.self_signed(&pair).map_err(failed)?;
    let mut jwk = key.public_jwk();
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(certificate.der())]));
    Ok(jwk.into())
}
