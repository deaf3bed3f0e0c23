//! Witnesses (C2SP tlog-witness): others who remember how far the log had come, and sign that it only grew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cortex_log::witness::{Answer, Cosigner, Request, WitnessError};
use futures_util::future::join_all;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};

use crate::notify::webhook::{self, destination};
use crate::store::StoreError;
use crate::store::log::read::{self, Shard};
use crate::store::log::{sequence, tiles};

/// How often checkpoints are shown to witnesses.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// The longest answer of a witness, in bytes.
const MAX_ANSWER: usize = 8 * 1024;
/// How many of the newest trees are shown: the one that grows, and the one before it, whose last checkpoint may be new.
const SHOWN: usize = 2;

/// A witness of the log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its address, below which `/add-checkpoint` is: https, or http to loopback. Required.
    pub url: String,
    /// Its public key, NAME+ID+BASE64 (C2SP tlog-cosignature). Required.
    pub key: String,
    /// How long it may take to answer, in seconds, 1 to 60. Default 5.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u32,
}

fn default_timeout_s() -> u32 {
    5
}

impl WitnessConfig {
    /// A witness with the defaults.
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Self {
        Self { url: url.into(), key: key.into(), timeout_s: default_timeout_s() }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(what) = destination(&self.url) {
            faults.push(format!("log.witnesses: {:?} {what}", self.url));
        }
        if let Err(error) = self.key.parse::<Cosigner>() {
            faults.push(format!("log.witnesses: {:?} is no witness's key: {error}", self.key));
        }
        if !(1..=60).contains(&self.timeout_s) {
            faults.push(format!("log.witnesses: timeout_s is {}: write 1 to 60", self.timeout_s));
        }
        faults
    }
}

/// Shows checkpoints to the witnesses.
pub struct Witnesses {
    http: Client,
    all: Vec<Witness>,
}

struct Witness {
    url: Url,
    cosigner: Cosigner,
    timeout: Duration,
    /// How far it has seen each tree, by origin.
    seen: Mutex<HashMap<String, u64>>,
}

/// Why a witness has not cosigned.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Witness(#[from] WitnessError),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it has seen {0} leaves, which is more than there are")]
    Ahead(u64),
    #[error("its answer is too long")]
    TooLong,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<reqwest::Error> for AskError {
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url().to_string())
    }
}

impl Witnesses {
    /// Those that are configured; what is not as it should be was refused with the configuration.
    pub fn new(configured: &[WitnessConfig]) -> Result<Self, reqwest::Error> {
        let all = configured.iter().filter_map(|one| {
            Some(Witness {
                url: destination(&format!("{}/add-checkpoint", one.url.trim_end_matches('/'))).ok()?,
                cosigner: one.key.parse().ok()?,
                timeout: Duration::from_secs(one.timeout_s.into()),
                seen: Mutex::default(),
            })
        });
        Ok(Self { http: webhook::client()?, all: all.collect() })
    }

    /// Works for as long as it is polled; not at all where no witness is configured.
    pub(crate) async fn work_forever(&self, pool: &PgPool, every: Duration) {
        if self.all.is_empty() {
            return std::future::pending().await;
        }
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.round(pool).await {
                tracing::warn!(%error, "checkpoints were not shown to witnesses; trying again");
            }
        }
    }

    /// Shows the newest checkpoints to whoever has not cosigned them, and publishes the cosignatures.
    pub async fn round(&self, pool: &PgPool) -> Result<(), StoreError> {
        for shard in read::shards(pool).await?.into_iter().rev().take(SHOWN) {
            let Some(note) = shard.checkpoint.clone() else { continue };
            let missing = self.all.iter().filter(|witness| witness.cosigner.open(&note).is_err());
            let (http, seen) = (&self.http, &note);
            let asked = missing.map(|witness| {
                let shard = &shard;
                async move { (witness, witness.ask(http, pool, shard, seen).await) }
            });
            let mut cosigned = note.clone();
            for (witness, answer) in join_all(asked).await {
                let name = witness.cosigner.name().to_owned();
                metrics::gauge!("cortex_log_witness_behind", "witness" => name.clone())
                    .set(f64::from(answer.is_err()));
                match answer {
                    Ok(line) => cosigned.push_str(&line),
                    Err(error) => tracing::warn!(%error, witness = name, "a witness has not cosigned"),
                }
            }
            if cosigned.len() > note.len() {
                sequence::publish(pool, shard.number, shard.published, &cosigned).await?;
            }
        }
        Ok(())
    }
}

impl Witness {
    /// Its cosignature. Where it has seen more or less than was thought, it says so and is asked once more.
    async fn ask(&self, http: &Client, pool: &PgPool, shard: &Shard, note: &str) -> Result<String, AskError> {
        let mut old = self.seen().get(&shard.origin).copied().unwrap_or_default();
        for _ in 0..2 {
            match self.show(http, pool, shard, note, old).await? {
                Answer::Cosigned(line) => {
                    self.seen().insert(shard.origin.clone(), shard.published);
                    return Ok(line);
                }
                Answer::Conflict(seen) if seen > shard.published => return Err(AskError::Ahead(seen)),
                Answer::Conflict(seen) => old = seen,
            }
        }
        Err(WitnessError::Refused(409).into())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn show(
        &self,
        http: &Client,
        pool: &PgPool,
        shard: &Shard,
        note: &str,
        old: u64,
    ) -> Result<Answer, AskError> {
        let proof = tiles::consistency(pool, shard, old).await?;
        let request = Request { old, proof, checkpoint: signed_by_the_log(note) };
        let body = request.to_string();
        let asked = http.post(self.url.clone()).header(CONTENT_TYPE, "text/plain").timeout(self.timeout);
        let mut answer = asked.body(body).send().await?;
        let status = answer.status().as_u16();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ANSWER {
                return Err(AskError::TooLong);
            }
        }
        Ok(Answer::read(status, &String::from_utf8_lossy(&text), &request.checkpoint, &self.cosigner)?)
    }
}

/// The note with its first signature alone: the log's.
fn signed_by_the_log(note: &str) -> String {
    let Some((text, signatures)) = note.split_once("\n\n") else { return note.to_owned() };
    let first = signatures.lines().next().unwrap_or_default();
    format!("{text}\n\n{first}\n")
}
