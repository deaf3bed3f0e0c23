//! The accept loop: bounded connections, a deadline for headers, and a shutdown that drains.

mod config;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::http::{App, Peer};
use crate::supervisor;

pub use config::ServerConfig;

/// Serves until `stop`, then drains for at most the configured time.
pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    app: App,
    config: ServerConfig,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let graceful = GracefulShutdown::new();
    let builder = builder(&config);
    let places = Arc::new(Semaphore::new(config.max_connections));
    loop {
        let next = async {
            // A place first: connections beyond the limit wait in the kernel's queue.
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        tokio::select! {
            () = stop.cancelled() => break,
            next = next => match next {
                Some((Ok((stream, _)), place)) => connection(stream, place, &builder, &router, &graceful),
                // Out of file descriptors, most likely: existing connections have to end first.
                Some((Err(error), _)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                None => break,
            },
        }
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        app.mints.close();
        app.mints.wait().await;
        supervisor::flush(&app.broker).await;
        tasks.close();
        tasks.wait().await;
    };
    if tokio::time::timeout(Duration::from_secs(config.drain_timeout_s), drained).await.is_err() {
        tracing::warn!("not everything ended in time; other replicas will end what is open on record");
    }
}

fn builder(config: &ServerConfig) -> Arc<Builder<TokioExecutor>> {
    let mut builder = Builder::new(TokioExecutor::new());
    let headers = Duration::from_secs(config.header_timeout_s);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(headers).max_buf_size(32 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    Arc::new(builder)
}

fn connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    builder: &Arc<Builder<TokioExecutor>>,
    router: &Router,
    graceful: &GracefulShutdown,
) {
    let Ok(peer) = stream.peer_addr() else { return };
    // Small answers should not wait for the next packet.
    let _ = stream.set_nodelay(true);
    let router = router.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer.ip()));
        router.clone().call(request)
    });
    let builder = Arc::clone(builder);
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended with an error");
        }
        drop(place);
    });
}
