//! Callers that proved nothing, counted per reason and network: a flood of them costs a bounded number of
//! rows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use cortex_core::record::What;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;

use crate::store::{RecordError, Recorder};

/// How many reasons and networks are told apart between two flushes; the rest is counted together.
const KEYS_MAX: usize = 1_000;

/// A reason and a network.
type Key = (&'static str, String);

/// The counts since the last flush, each with the time of its first.
#[derive(Default)]
pub struct Noise(Mutex<HashMap<Key, (u64, Timestamp)>>);

impl Noise {
    /// Counts one.
    pub fn count(&self, reason: &'static str, source: Option<IpAddr>, now: Timestamp) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (reason, network(source));
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            key = ("other", "other".to_owned());
        }
        counts.entry(key).or_insert((0, now)).0 += 1;
    }

    /// Writes the counts down; what cannot be written is kept for the next time.
    pub async fn flush(&self, recorder: &Recorder) -> Result<(), RecordError> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed = None;
        for ((reason, network), (count, since)) in counts {
            let what =
                What::Denials { reason: reason.to_owned(), network: network.clone(), count, since };
            if let Err(error) = recorder.note(what).await {
                failed = Some(error);
                let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let entry = kept.entry((reason, network)).or_insert((0, since));
                *entry = (entry.0 + count, entry.1.min(since));
            }
        }
        failed.map_or(Ok(()), Err)
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
