//! Putting a replica together, and taking it down without losing anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cortex_core::Clock;
use cortex_identity::SetupError;
use jiff::SignedDuration;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::barrier::Barriers;
use crate::broker::Broker;
use crate::config::Config;
use crate::http::{self, App, Shared};
use crate::key_file::KeyFiles;
use crate::keyring::{Keyring, KeyringError};
use crate::leases::Leases;
use crate::library::Library;
use crate::live::{self, Live, Origin, Reloaded};
use crate::log::chain::Chains;
use crate::log::sequencer::{RoundError, Sequencer};
use crate::log::{self, Health, LogKeyError, ObjectError, Witnesses};
use crate::noise::Noise;
use crate::notify::{Endpoints, Notifier};
use crate::random::Random;
use crate::serve::{Stopping, Tls, TlsError};
use crate::sign_in::SignIn;
use crate::store::{self, Author, Recorder, RecorderOptions, Stamp, StoreError};
use crate::streams::Streams;
use crate::{serve, supervisor, telemetry};

/// What a replica takes from the world.
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// Why a replica does not start; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cortex's own keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The log's key.
    #[error(transparent)]
    LogKey(#[from] LogKeyError),
    /// The log.
    #[error(transparent)]
    Log(#[from] RoundError),
    /// The log's anchor.
    #[error("log.anchor_url: {0}")]
    Anchor(#[from] ObjectError),
    /// The issuers.
    #[error(transparent)]
    Identity(#[from] SetupError),
    /// A client that notifies, or that asks the identity provider.
    #[error("an HTTP client cannot be built: {0}")]
    Http(#[from] reqwest::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket.
    #[error("listening: {0}")]
    Listen(#[from] std::io::Error),
}

/// A replica that serves.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it signs under.
    pub issuer_url: String,
    /// Its parts.
    pub broker: Arc<Broker>,
    tls: Option<Arc<Tls>>,
    told_to_stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    /// Takes over a configuration that was read again, whole or not at all, and the files of TLS. How that went is in the
    /// log, the measurements and `/readyz`; what is read at a start only is named there.
    pub async fn reload(&self, loaded: Result<Config, String>) {
        live::reload(&self.broker, loaded);
        if let Some(tls) = &self.tls {
            tls.look().await;
        }
    }

    /// Not ready, drained, everything terminal: returns when the last request and mint are done, or the time
    /// for it is over.
    pub async fn shut_down(self) {
        self.told_to_stop.cancel();
        // A panic in the accept loop has been logged; there is nothing left to wait for.
        let _ = self.serving.await;
    }
}

/// Starts a replica on `listener`. The schema has to be there already (see [`store::migrate`]).
pub async fn start(
    config: Config,
    listener: TcpListener,
    environment: Environment,
) -> Result<Running, StartError> {
    // Before anything is measured: what is measured without a recorder is lost.
    let _ = telemetry::recorder();
    telemetry::started(environment.clock.now());
    let address = listener.local_addr()?;
    let issuer_url = config.issuer_url(address);
    for warning in config.roles.warnings() {
        tracing::warn!("{warning}");
    }
    let clock = Arc::clone(&environment.clock);
    let tls = Tls::open(&config.server.tls, clock).await?;
    let broker = Arc::new(Box::pin(build(&config, &issuer_url, environment)).await?);
    let stopping = Stopping::default();
    let poll = Duration::from_millis(config.database.poll_ms.max(50));
    let log_every = Duration::from_millis(config.log.interval_ms);
    supervisor::start(&broker, poll, log_every, &stopping.tasks, &stopping.drained);
    if let Some(tls) = tls.clone() {
        let (every, drained) = (Duration::from_millis(config.server.tls.watch_ms), stopping.drained.clone());
        stopping.tasks.spawn(async move { drained.run_until_cancelled(tls.watch(every)).await });
    }
    let app = App::from(Shared {
        broker: Arc::clone(&broker),
        issuer_url: issuer_url.clone(),
        trusted_proxies: config.server.trusted_proxies.clone(),
        mints: TaskTracker::new(),
        tls: tls.clone(),
        stopping: stopping.told.clone(),
        replays: Arc::new(Semaphore::new(1)),
        reports: Arc::new(Semaphore::new(2)),
        max_clock_skew: match config.database.max_clock_skew_s {
            0 => None,
            seconds => Some(SignedDuration::from_secs(seconds.into())),
        },
        max_body_bytes: config.server.max_body_bytes,
        body_timeout: Duration::from_secs(config.server.body_timeout_s),
        request_timeout: Duration::from_secs(config.server.request_timeout_s),
    });
    let router = http::router(app.clone());
    let told_to_stop = stopping.told.clone();
    let serving = tokio::spawn(serve::run(listener, router, app, config.server, stopping));
    Ok(Running { address, issuer_url, broker, tls, told_to_stop, serving })
}

async fn build(config: &Config, issuer_url: &str, environment: Environment) -> Result<Broker, StartError> {
    let pool = store::connect(&config.database).await?;
    if config.database.require_durable {
        store::check_durable(&pool).await?;
    }
    let replica = replica(config);
    let stamp = stamp(config, &pool, replica, &environment).await?;
    let Environment { clock, random } = environment;
    let notifier = Notifier::new(stamp.endpoints.clone(), issuer_url.to_owned())?;
    let health = Health::default();
    let sequencer = Sequencer::new(&config.log, stamp.clone(), health.clone())?;
    // What the database says is compared with the anchor before anything is signed.
    match sequencer.round(&pool).await {
        Ok(()) | Err(RoundError::Fault(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let keyring = Keyring::open(&pool, config, issuer_url.to_owned(), stamp.clone()).await?;
    let origin = Origin { issuer_url: issuer_url.to_owned(), clock: Arc::clone(&clock) };
    let live = Live::new(config, None, &origin, &keyring)?;
    let options = RecorderOptions {
        max_batch: config.database.max_batch,
        commit_timeout: Duration::from_millis(config.database.commit_timeout_ms),
        intent_deadline: SignedDuration::from_secs(config.database.intent_deadline_s),
    };
    Ok(Broker {
        library: Library::open(&pool).await?,
        barriers: Barriers::open(&pool, Arc::clone(&clock)).await?,
        revocation: config.revocation.clone(),
        recorder: Recorder::start(pool.clone(), stamp, health, options),
        admission: Admission::new(&config.admission),
        turns: Arc::default(),
        leases: Leases::new(&config.leases),
        keyring,
        pool,
        clock,
        random,
        notifier,
        streams: Streams::new(&config.streams, issuer_url.to_owned())?,
        sign_in: SignIn::new(&config.sign_in, &config.issuers, issuer_url)?,
        noise: Noise::default(),
        log: sequencer,
        witnesses: Witnesses::new(&config.log.witnesses)?,
        started: config.clone(),
        origin,
        reloaded: Reloaded::default(),
        live: ArcSwap::from_pointee(live),
        exchanged: Notify::new(),
    })
}

/// What writes the record in the name of `replica`, and seals it.
pub async fn stamp(
    config: &Config,
    pool: &PgPool,
    replica: String,
    environment: &Environment,
) -> Result<Stamp, LogKeyError> {
    let Environment { clock, random } = environment;
    let files = KeyFiles::new(config, clock, random)?;
    let log_key = log::key(config, &files, pool).await?;
    Ok(Stamp {
        author: Author { replica, build: env!("CARGO_PKG_VERSION").to_owned() },
        clock: Arc::clone(clock),
        random: Arc::clone(random),
        endpoints: Endpoints::new(&config.notifications),
        chains: Arc::new(Chains::new(log_key, &**random)),
    })
}

/// What this replica is called on record and in traces.
pub(crate) fn replica(config: &Config) -> String {
    config.server.replica.clone().unwrap_or_else(host_name)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "cortex".to_owned() } else { name.to_owned() }
}
