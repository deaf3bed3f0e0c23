//! One listener on loopback, and the two things that a plain HTTP server cannot do: close a connection
//! instead of answering, and note that an answer was handed over.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::gate::{Carries, Sever};
use crate::ledger::Ledger;

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections of one listener; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// The fault struck: hyper closes the connection on a service's error.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Severed;

/// Listens on loopback; port 0 takes a free one.
pub(crate) async fn bind(port: u16) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until it is dropped; its connections end with it.
pub(crate) async fn serve(listener: TcpListener, router: Router, ledger: Arc<Ledger>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: the next accept may do better, but not at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (router, ledger) = (router.clone(), Arc::clone(&ledger));
        connections.spawn(async move {
            connection(stream, router, ledger).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, router: Router, ledger: Arc<Ledger>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, ledger) = (router.clone(), Arc::clone(&ledger));
        async move {
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            hand_over(response, &ledger)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

fn hand_over(response: Response, ledger: &Ledger) -> Result<Response, Severed> {
    if response.extensions().get::<Sever>().is_some() {
        return Err(Severed);
    }
    if let Some(Carries(mint)) = response.extensions().get::<Carries>() {
        ledger.delivered(*mint);
    }
    Ok(response)
}
