//! Callers that proved nothing, counted per reason and network, and callers that were turned away, counted by DAG
//! besides: a flood of them costs a bounded number of rows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cortex_core::record::What;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;

use crate::store::{RecordError, Recorder};

/// How many reasons and networks are told apart between two flushes; the rest is counted together.
const KEYS_MAX: usize = 1_000;

/// A reason, a network, and the DAG where that is known.
type Key = (&'static str, String, Option<String>);
/// How many, and the time of the first.
type Counts = HashMap<Key, (u64, Timestamp)>;

/// The counts that are not written down yet.
#[derive(Default)]
pub struct Noise {
    counts: Mutex<Counts>,
    /// Held while counts are written, so that none is written twice.
    flushing: tokio::sync::Mutex<()>,
}

impl Noise {
    /// Counts one.
    pub fn count(&self, reason: &'static str, source: Option<IpAddr>, now: Timestamp) {
        self.count_of(reason, source, None, now);
    }

    /// Counts one of a DAG, where that is known.
    pub(crate) fn count_of(
        &self,
        reason: &'static str,
        source: Option<IpAddr>,
        dag: Option<String>,
        now: Timestamp,
    ) {
        let mut counts = self.counts();
        let mut key = (reason, network(source), dag);
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            key = ("other", "other".to_owned(), None);
        }
        counts.entry(key).or_insert((0, now)).0 += 1;
    }

    /// Writes the counts down; what cannot be written is kept for the next time.
    pub async fn flush(&self, recorder: &Recorder) -> Result<(), RecordError> {
        let _one_at_a_time = self.flushing.lock().await;
        let counts = self.counts().clone();
        for (key, (count, since)) in counts {
            let (reason, network, dag) = (key.0.to_owned(), key.1.clone(), key.2.clone());
            recorder.note(What::Denials { reason, network, dag, count, since }).await?;
            self.written(&key, count);
        }
        Ok(())
    }

    /// Takes off what is on record. What was counted meanwhile stays, with the time of the first of them all.
    fn written(&self, key: &Key, count: u64) {
        let mut counts = self.counts();
        let left = counts.get(key).map_or(0, |(all, _)| all.saturating_sub(count));
        if left == 0 {
            counts.remove(key);
        } else if let Some(entry) = counts.get_mut(key) {
            entry.0 = left;
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller's network: enough to see where a flood comes from, too little to make one row for each address.
fn network(source: Option<IpAddr>) -> String {
    let net = source.and_then(|source| match source.to_canonical() {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 24).ok().map(IpNet::V4),
        IpAddr::V6(v6) => Ipv6Net::new(v6, 48).ok().map(IpNet::V6),
    });
    net.map_or_else(|| "unknown".to_owned(), |net| net.trunc().to_string())
}
