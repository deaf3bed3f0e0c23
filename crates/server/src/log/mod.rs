//! The log: every record is sealed when it is written, integrated into a tree, anchored outside the database, and
//! published under the log's key. See `docs/issuance-log.md`.

mod anchor;
pub mod archive;
pub mod chain;
mod export;
mod fault;
mod objects;
mod recovery;
pub mod sequencer;
mod shard;
mod witness;

use std::path::PathBuf;

use cortex_log::note::{NoteError, Signer};
use cortex_providers::kms::{KmsError, Purpose};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

pub use anchor::{Anchor, AnchorError};
pub use export::{ExportError, export};
pub use fault::{Fault, Health};
pub use objects::{ObjectError, ObjectStoreConfig, Place};
pub use recovery::{RecoverError, recover};
pub use shard::Recovered;
pub(crate) use witness::EVERY as WITNESSED_EVERY;
pub use witness::{WitnessConfig, Witnesses};

use self::objects::Address;
use crate::config::Config;
use crate::key_file::{KeyFileError, KeyFiles};
use crate::store::{self, StoreError};

/// What a receipt promises: how long after it was written a record is in a checkpoint at the latest.
pub const MERGE_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// How the log is kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What the log is called, in every checkpoint and receipt: a host name and a path, without a scheme. It cannot change
    /// once there is a log. Default: the host of `server.public_url` and `/log`.
    pub origin: Option<String>,
    /// The file with the key that checkpoints are signed with: 32 bytes as 64 hexadecimal digits, readable by its owner
    /// alone, or what `kms.key` made of them; the same for every replica. It is made where it is missing and there is no log
    /// yet. Default `cortex-log.key`.
    pub key_file: PathBuf,
    /// The file in which this replica keeps, outside the database, the newest state of the log that it has seen. What the
    /// database says has to continue it. Default `cortex-log.anchor`.
    pub anchor_file: PathBuf,
    /// The place of an anchor that all replicas share, instead of `anchor_file`: `s3://bucket/prefix` or
    /// `gs://bucket/prefix`, where it is replaced by compare-and-set, or `file:///path`. Default none.
    pub anchor_url: Option<String>,
    /// How often new records are integrated, in milliseconds. Default 250, 50 to 1,000.
    pub interval_ms: u64,
    /// How the object stores are reached that hold the anchor and archives.
    pub object_store: ObjectStoreConfig,
    /// How many whole months records stay in the database before `cortex log drop` may drop what is archived of them, 1 to
    /// 1,200. Default none: they stay for good.
    pub retention_months: Option<u32>,
    /// Others who remember how far the log had come, and cosign its checkpoints. Default none.
    pub witnesses: Vec<WitnessConfig>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            origin: None,
            key_file: "cortex-log.key".into(),
            anchor_file: "cortex-log.anchor".into(),
            anchor_url: None,
            interval_ms: 250,
            object_store: ObjectStoreConfig::default(),
            retention_months: None,
            witnesses: Vec::new(),
        }
    }
}

impl LogConfig {
    /// What a new log is called: as configured, or after the host of `public_url`.
    fn base(&self, public_url: Option<&str>) -> String {
        let host = public_url.and_then(|url| reqwest::Url::parse(url).ok());
        let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or("localhost");
        self.origin.clone().unwrap_or_else(|| format!("{host}/log"))
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(origin) = &self.origin {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-./_".contains(c);
            if !(3..=128).contains(&origin.len()) || !origin.chars().all(plain) || origin.ends_with('/') {
                faults.push(format!(
                    "log.origin: {origin:?} is no name of a log: write a host name and a path, such as \
                     cortex.acme.example/log"
                ));
            }
        }
        if !(50..=1_000).contains(&self.interval_ms) {
            faults.push(format!("log.interval_ms is {}: write 50 to 1,000", self.interval_ms));
        }
        if let Some(url) = &self.anchor_url
            && let Err(error) = Address::parse(url)
        {
            faults.push(format!("log.anchor_url: {error}"));
        }
        let in_google = self.anchor_url.as_ref().is_some_and(|url| url.starts_with("gs://"));
        if in_google && self.interval_ms < 1_000 {
            faults.push(format!(
                "log.interval_ms is {}: Cloud Storage takes one write of an object in a second, so write 1,000 with \
                 log.anchor_url at gs://",
                self.interval_ms
            ));
        }
        faults.extend(self.object_store.faults());
        if let Some(months) = self.retention_months.filter(|months| !(1..=1_200).contains(months)) {
            faults.push(format!("log.retention_months is {months}: write 1 to 1,200, or leave it out"));
        }
        faults.extend(self.witnesses.iter().flat_map(WitnessConfig::faults));
        faults
    }
}

/// Why the log's key cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogKeyError {
    /// The file.
    #[error("log.key_file {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        why: Box<KeyFileError>,
    },
    /// The KMS that wraps the file.
    #[error("kms: {0}")]
    Kms(#[from] KmsError),
    /// The log has another name.
    #[error("log.origin: the log in the database is called {kept:?}, and a log keeps its name")]
    Renamed {
        /// Its name.
        kept: String,
    },
    /// The log's name cannot be a key's name.
    #[error("log.origin: {0}")]
    Name(#[from] NoteError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The log's key, under the log's name. It is made where there is no log in the database yet. The first record begins the
/// log, whoever writes it: an operator's command that applies policies before the first start names it for good.
pub async fn key(config: &Config, files: &KeyFiles, pool: &PgPool) -> Result<Signer, LogKeyError> {
    let public_url = config.server.public_url.as_deref();
    let Some(kept) = store::log::base(pool).await? else {
        return load(&config.log, files, &config.log.base(public_url), true).await;
    };
    match &config.log.origin {
        Some(origin) if *origin != kept => Err(LogKeyError::Renamed { kept }),
        _ => load(&config.log, files, &kept, false).await,
    }
}

async fn load(
    config: &LogConfig,
    files: &KeyFiles,
    base: &str,
    may_create: bool,
) -> Result<Signer, LogKeyError> {
    let path = &config.key_file;
    let seed = files.load(path, Purpose::Log, may_create).await;
    let seed =
        seed.map_err(|why| LogKeyError::File { path: path.display().to_string(), why: Box::new(why) })?;
    Ok(Signer::from_seed(base, seed.as_array())?)
}
