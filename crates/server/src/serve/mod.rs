//! The accept loop: bounded connections, all together and for each address, TLS, deadlines for whatever a client may
//! be slow at, and a shutdown that drains.

mod certificate;
mod config;
mod connection;
mod peers;
mod pulse;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::App;
use crate::supervisor;
use connection::Server;
use peers::{Peers, Seat};

pub use config::{ClientAuth, ServerConfig, TlsConfig};
pub use tls::TlsError;
pub(crate) use tls::{ClientCertificate, Tls};

/// The window of a request's body over HTTP/2, in bytes: as long as a body may be, by default.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The window of all bodies of a connection together, in bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of an answer is kept for a client that is slow to take it, in bytes.
const SEND_BUFFER: usize = 128 * 1024;
/// How many requests a client may take back before they were looked at, until its connection ends ("rapid reset",
/// CVE-2023-44487).
const TAKEN_BACK: usize = 32;
/// How many requests of a connection may be at fault until it ends.
const AT_FAULT: usize = 128;

/// When a replica stops, step by step.
#[derive(Clone, Default)]
pub(crate) struct Stopping {
    /// It says that it is not ready; it still takes requests.
    pub(crate) told: CancellationToken,
    /// What it does by itself ends: everything that was asked is answered.
    pub(crate) drained: CancellationToken,
    /// What it does by itself.
    pub(crate) tasks: TaskTracker,
}

/// Serves until it is told to stop, goes on for the configured delay while it is not ready, and then drains for at
/// most the configured time.
pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    app: App,
    config: ServerConfig,
    stopping: Stopping,
) {
    let closing = CancellationToken::new();
    let server = Arc::new(Server {
        builder: builder(&config),
        router,
        limits: (&config).into(),
        tls: app.tls.clone(),
        closing: closing.clone(),
    });
    let connections = TaskTracker::new();
    let delayed = async {
        stopping.told.cancelled().await;
        sleep(Duration::from_secs(config.shutdown_delay_s)).await;
    };
    tokio::select! {
        () = delayed => {}
        () = accept(&listener, &config, &server, &connections) => {}
    }
    drop(listener);
    closing.cancel();
    let deadline = Instant::now() + Duration::from_secs(config.drain_timeout_s);
    let drained = async {
        connections.close();
        connections.wait().await;
        app.mints.close();
        app.mints.wait().await;
        supervisor::flush(&app.broker).await;
    };
    let in_time = timeout_at(deadline, drained).await.is_ok();
    stopping.drained.cancel();
    stopping.tasks.close();
    if !in_time || timeout_at(deadline, stopping.tasks.wait()).await.is_err() {
        tracing::warn!("not everything ended in time; other replicas will end what is open on record");
    }
}

/// Takes in connections for as long as it is polled.
async fn accept(
    listener: &TcpListener,
    config: &ServerConfig,
    server: &Arc<Server>,
    connections: &TaskTracker,
) {
    let places = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let peers = Peers::new(config.max_connections_per_peer, config.trusted_proxies.clone());
    // A place first: connections beyond the limit wait in the kernel's queue.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(seat) = peers.seat(peer.ip()) else {
                    metrics::counter!("cortex_connections_refused_total", "reason" => "peer").increment(1);
                    tracing::debug!(peer = %peer.ip(), "one address holds as many connections as it may");
                    continue;
                };
                let (server, held) = (Arc::clone(server), Held::new(place, seat));
                connections.spawn(async move { server.serve(stream, peer.ip(), held).await });
            }
            // Out of file descriptors, most likely: existing connections have to end first.
            Err(error) => {
                metrics::counter!("cortex_connections_refused_total", "reason" => "accept").increment(1);
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What a connection takes from others while it lives.
struct Held {
    _place: OwnedSemaphorePermit,
    _seat: Seat,
}

impl Held {
    fn new(place: OwnedSemaphorePermit, seat: Seat) -> Self {
        metrics::gauge!("cortex_connections").increment(1.0);
        Self { _place: place, _seat: seat }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        metrics::gauge!("cortex_connections").decrement(1.0);
    }
}

fn builder(config: &ServerConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // A connection's own pulse knows when a head is late, and when it is merely idle.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(32 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(32 * 1024)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .max_local_error_reset_streams(AT_FAULT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
