//! Streams: every published record, in the order of the log, to a SIEM or whatever else collects events, at least
//! once. Where a stream is in the log is kept in the database, so that any replica goes on with it after a restart.

mod cef;
mod config;
mod event;
mod format;
mod ocsf;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::broker::Broker;
use crate::notify::webhook;
use crate::store::streams::{self as store, Claimed, Leaf, Pause, Progress};
use crate::store::{StoreError, personal};
use event::Event;
use format::From;
use sink::Body;

pub(crate) use config::faults;
pub use config::{Destination, StreamConfig, StreamFormat};

/// The most records of one batch.
const BATCH: u64 = 256;
/// The most bytes of one batch, of records and seals: what most receivers take in one POST. One record goes in any case.
const BATCH_BYTES: usize = 768 << 10;
/// How much longer than a try may take a stream belongs to the replica that makes it.
const SLACK: SignedDuration = SignedDuration::from_secs(15);

/// The configured streams.
pub struct Streams {
    all: Arc<[StreamConfig]>,
    http: reqwest::Client,
    public_url: String,
}

impl Streams {
    /// These streams. `public_url` is where people reach Cortex.
    pub fn new(all: &[StreamConfig], public_url: String) -> Result<Self, reqwest::Error> {
        Ok(Self { all: all.into(), http: webhook::client()?, public_url })
    }

    fn names(&self) -> Vec<&str> {
        self.all.iter().map(|stream| stream.name.as_str()).collect()
    }

    /// How far each of them has come.
    pub(crate) async fn progress(&self, broker: &Broker) -> Result<Vec<Progress>, StoreError> {
        store::progress(&broker.pool, &self.names()).await
    }

    /// Sends for as long as it is polled; nothing where no stream is configured.
    pub(crate) async fn send_forever(&self, broker: &Broker, poll: Duration) {
        if self.all.is_empty() {
            return std::future::pending().await;
        }
        let mut begun = false;
        loop {
            match self.round(broker, &mut begun).await {
                Ok(0) => tokio::time::sleep(poll).await,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "streams could not be read; trying again");
                    tokio::time::sleep(poll).await;
                }
            }
        }
    }

    async fn round(&self, broker: &Broker, begun: &mut bool) -> Result<usize, StoreError> {
        if !*begun {
            store::begin(&broker.pool, &self.names(), broker.clock.now()).await?;
            *begun = true;
        }
        self.send_due(broker).await
    }

    /// Sends the next batch of each stream that is free, and writes down how it went; answers how many there were.
    async fn send_due(&self, broker: &Broker) -> Result<usize, StoreError> {
        let now = broker.clock.now();
        let longest = self.all.iter().map(|stream| stream.timeout_s).max().unwrap_or_default();
        let mine_until = now.saturating_add(SignedDuration::from_secs(i64::from(longest)) + SLACK);
        let mine_until = mine_until.unwrap_or(Timestamp::MAX);
        let due = store::claim(&broker.pool, &self.names(), now, mine_until).await?;
        let count = due.len();
        for settled in join_all(due.into_iter().map(|claimed| self.settle(broker, claimed))).await {
            settled?;
        }
        self.measure(broker).await?;
        Ok(count)
    }

    async fn settle(&self, broker: &Broker, claimed: Claimed) -> Result<(), StoreError> {
        let Some(stream) = self.all.iter().find(|stream| stream.name == claimed.name) else { return Ok(()) };
        let sent = match store::next(&broker.pool, &claimed, BATCH).await {
            Ok(next) => {
                let next = next.within(BATCH_BYTES);
                self.show(broker, stream, &next.leaves).await.map(|count| (next.then, count))
            }
            Err(error) => Err(error.to_string()),
        };
        let outcome = if sent.is_ok() { "arrived" } else { "failed" };
        let labels = [("stream", stream.name.clone()), ("outcome", outcome.to_owned())];
        metrics::counter!("cortex_stream_batches_total", &labels).increment(1);
        let now = broker.clock.now();
        match sent {
            Ok((then, count)) => {
                metrics::counter!("cortex_stream_records_total", "stream" => stream.name.clone())
                    .increment(count);
                store::arrived(&broker.pool, &claimed, then, now).await
            }
            Err(error) => {
                tracing::warn!(stream = stream.name, failures = claimed.failures + 1, error, "not streamed");
                let pause = webhook::pause(claimed.failures.saturating_add(1), &*broker.random);
                let until = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
                store::failed(&broker.pool, &claimed, &Pause { error, until }).await
            }
        }
    }

    /// Sends records with the names that are known at this moment; answers how many went, when all of them have arrived.
    async fn show(&self, broker: &Broker, stream: &StreamConfig, leaves: &[Leaf]) -> Result<u64, String> {
        let records = leaves.iter().map(|leaf| leaf.record.as_slice());
        let shown = personal::open_leaves(&broker.pool, records).await.map_err(|error| error.to_string())?;
        let events = leaves.iter().zip(&shown).map(|(leaf, shown)| Event::read(leaf, shown));
        self.send(stream, events.collect::<Result<_, _>>()?, broker.clock.now()).await
    }

    async fn send(
        &self,
        stream: &StreamConfig,
        events: Vec<Event<'_>>,
        now: Timestamp,
    ) -> Result<u64, String> {
        let wanted: Vec<Event<'_>> = events.into_iter().filter(|event| stream.wants(&event.kind)).collect();
        if wanted.is_empty() {
            return Ok(0);
        }
        let from = From { public_url: &self.public_url };
        let sending = async {
            match &stream.to {
                Destination::Stdout => sink::print(&from.lines(stream.format, &wanted)).await,
                Destination::File(path) => {
                    sink::append(path.clone(), from.lines(stream.format, &wanted)).await
                }
                Destination::Url(url) => {
                    let (bytes, content_type) = from.body(stream.format, &wanted);
                    sink::post(&self.http, stream, url, Body { bytes, content_type }, now).await
                }
            }
        };
        let most = Duration::from_secs(stream.timeout_s.into());
        let sent = timeout(most, sending).await;
        sent.unwrap_or_else(|_| Err(format!("it took longer than {} s", stream.timeout_s)))?;
        Ok(wanted.len().try_into().unwrap_or(u64::MAX))
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and nobody counts to 2^53")]
    async fn measure(&self, broker: &Broker) -> Result<(), StoreError> {
        for Progress { name, behind, .. } in self.progress(broker).await? {
            metrics::gauge!("cortex_stream_behind_records", "stream" => name).set(behind as f64);
        }
        Ok(())
    }
}
