//! Telling people: what happened is written into an outbox with its record, and delivered from there by whichever
//! replica is free, at least once.

mod config;
mod message;
pub(crate) mod webhook;

use std::sync::Arc;
use std::time::Duration;

use cortex_core::NotificationId;
use cortex_core::record::What;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::broker::Broker;
use crate::random::Random;
use crate::store::StoreError;
use crate::store::notifications::{self, Due, Failure};
use message::Message;

pub(crate) use config::faults;
pub use config::{EVENTS, Format, NotificationConfig};
pub(crate) use message::person;

/// How many notifications one replica sends side by side.
const AT_ONCE: i64 = 16;
/// How much longer than a try may take it belongs to the replica that makes it.
const SLACK: SignedDuration = SignedDuration::from_secs(15);

/// The endpoints that are told of records; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Endpoints(Arc<[NotificationConfig]>);

/// One notification to be.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) id: NotificationId,
    pub(crate) endpoint: String,
}

impl Endpoints {
    /// The configured ones.
    pub fn new(all: &[NotificationConfig]) -> Self {
        Self(all.into())
    }

    /// Who is to be told of this, if anybody. Nothing is looked at where nobody is.
    pub(crate) fn notices(&self, what: &What, at: Timestamp, random: &dyn Random) -> Vec<Notice> {
        let event = what.kind();
        if self.0.is_empty() || !EVENTS.contains(&event) {
            return Vec::new();
        }
        let everybody = matches!(
            what,
            What::GrantRequested { break_glass: true, .. } | What::GrantDecided { break_glass: true, .. }
        );
        let told = self.0.iter().filter(|endpoint| everybody || endpoint.wants(event));
        told.map(|endpoint| Notice {
            id: NotificationId::new(at, random.id_bits()),
            endpoint: endpoint.name.clone(),
        })
        .collect()
    }

    fn get(&self, name: &str) -> Option<&NotificationConfig> {
        self.0.iter().find(|endpoint| endpoint.name == name)
    }
}

/// Delivers what is in the outbox.
pub struct Notifier {
    endpoints: Endpoints,
    http: reqwest::Client,
    public_url: String,
}

impl Notifier {
    /// One for these endpoints. `public_url` is where people reach Cortex.
    pub fn new(endpoints: Endpoints, public_url: String) -> Result<Self, reqwest::Error> {
        let http = webhook::client()?;
        Ok(Self { endpoints, http, public_url })
    }

    /// The endpoints' configured names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.endpoints.0.iter().map(|endpoint| endpoint.name.as_str())
    }

    /// Delivers for as long as it is polled; not at all where no endpoint is configured.
    pub(crate) async fn deliver_forever(&self, broker: &Broker, poll: Duration) {
        if self.endpoints.0.is_empty() {
            return std::future::pending().await;
        }
        loop {
            match self.deliver_due(broker).await {
                Ok(0) => tokio::time::sleep(poll).await,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "notifications could not be read; trying again");
                    tokio::time::sleep(poll).await;
                }
            }
        }
    }

    /// Sends what is due, and writes down how it went; answers how many.
    pub async fn deliver_due(&self, broker: &Broker) -> Result<usize, StoreError> {
        let now = broker.clock.now();
        let names: Vec<&str> = self.names().collect();
        let longest = self.endpoints.0.iter().map(|endpoint| endpoint.timeout_s).max().unwrap_or_default();
        let mine_until = now.saturating_add(SignedDuration::from_secs(i64::from(longest)) + SLACK);
        let mine_until = mine_until.unwrap_or(Timestamp::MAX);
        let due = notifications::claim(&broker.pool, &names, now, mine_until, AT_ONCE).await?;
        let count = due.len();
        for settled in join_all(due.into_iter().map(|due| self.deliver(broker, due))).await {
            settled?;
        }
        Ok(count)
    }

    async fn deliver(&self, broker: &Broker, due: Due) -> Result<(), StoreError> {
        let Some(endpoint) = self.endpoints.get(&due.endpoint) else { return Ok(()) };
        let sent = self.send(broker.clock.now(), endpoint, &due).await;
        let outcome = if sent.is_ok() { "delivered" } else { "failed" };
        let labels = [("endpoint", endpoint.name.clone()), ("outcome", outcome.to_owned())];
        metrics::counter!("cortex_notifications_total", &labels).increment(1);
        let Err(error) = sent else { return notifications::delivered(&broker.pool, due.id).await };
        tracing::warn!(
            endpoint = endpoint.name,
            event = due.event,
            attempts = due.attempts,
            error,
            "not notified"
        );
        let again = u32::try_from(due.attempts).is_ok_and(|attempts| attempts < endpoint.max_attempts);
        let failure = if again {
            let pause = webhook::pause(due.attempts, &*broker.random);
            Failure::Again { at: broker.clock.now().saturating_add(pause).unwrap_or(Timestamp::MAX) }
        } else {
            metrics::counter!("cortex_notifications_dead_total", "endpoint" => endpoint.name.clone())
                .increment(1);
            Failure::Dead
        };
        notifications::failed(&broker.pool, &due, &error, failure, broker.recorder.stamp()).await
    }

    async fn send(&self, now: Timestamp, endpoint: &NotificationConfig, due: &Due) -> Result<(), String> {
        let leaf = serde_json::from_slice(&due.leaf).map_err(|_| "the record cannot be read".to_owned())?;
        let message =
            Message { id: due.id.to_string(), event: &due.event, leaf, public_url: &self.public_url };
        let body = message.body(endpoint.format);
        let headers = headers(endpoint, due, now, &body).await?;
        let destination = endpoint.destination().await?;
        let sending = self
            .http
            .post(destination)
            .headers(headers)
            .timeout(Duration::from_secs(endpoint.timeout_s.into()))
            .body(body);
        webhook::send(sending).await
    }
}

/// The id tells a second delivery; the signature, over the time and the body, that it is from here and recent.
async fn headers(
    endpoint: &NotificationConfig,
    due: &Due,
    now: Timestamp,
    body: &[u8],
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("cortex-notification-id", webhook::header(&due.id.to_string())?);
    headers.insert("cortex-event", webhook::header(&due.event)?);
    if let Some(file) = &endpoint.secret_file {
        headers.insert(webhook::SIGNATURE, webhook::signature(file, now, body).await?);
    }
    Ok(headers)
}
