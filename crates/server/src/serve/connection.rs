//! One connection, from its first byte to its end.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::Held;
use super::pulse::{Felt, Limits, Overdue, Pulse, Underway};
use super::tls::{ClientCertificate, Tls};
use crate::http::Peer;

/// How long a client has to hang up once it is told that the connection is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// What every connection of a listener is served with.
pub(super) struct Server {
    pub(super) builder: Builder<TokioExecutor>,
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) tls: Option<Arc<Tls>>,
    /// Cancelled when no further request is taken.
    pub(super) closing: CancellationToken,
}

impl Server {
    /// Serves one connection to its end. `held` is let go at its end.
    pub(super) async fn serve(&self, stream: TcpStream, peer: IpAddr, held: Held) {
        // Small answers should not wait for the next packet.
        let _ = stream.set_nodelay(true);
        let pulse = Pulse::new(self.limits);
        let stream = Felt::new(stream, pulse.clone());
        match &self.tls {
            None => self.speak(stream, peer, None, pulse).await,
            Some(tls) => {
                let shaken = tokio::select! {
                    shaken = timeout(tls.handshake_timeout(), tls.accept(stream)) => shaken,
                    () = self.closing.cancelled() => return,
                };
                match shaken {
                    Ok(Ok((stream, client))) => {
                        // The time for the first request begins here.
                        pulse.moved();
                        self.speak(stream, peer, client, pulse).await;
                    }
                    Ok(Err(error)) => {
                        metrics::counter!("cortex_tls_handshakes_failed_total", "reason" => "refused")
                            .increment(1);
                        tracing::debug!(%peer, %error, "a TLS handshake failed");
                    }
                    Err(_) => {
                        metrics::counter!("cortex_tls_handshakes_failed_total", "reason" => "slow")
                            .increment(1);
                    }
                }
            }
        }
        drop(held);
    }

    async fn speak<S>(&self, stream: S, peer: IpAddr, client: Option<ClientCertificate>, pulse: Pulse)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let felt = pulse.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let underway = felt.request(request.version() == Version::HTTP_2);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            if let Some(client) = &client {
                request.extensions_mut().insert(client.clone());
            }
            let answer = router.clone().call(request);
            async move { answer.await.map(|response| response.map(|body| Answered { body, underway })) }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut closing = false;
        loop {
            let ended = tokio::select! {
                ended = until_due(connection.as_mut(), &pulse) => ended,
                () = self.closing.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
            };
            match ended {
                Ended::Done(Ok(())) => return,
                Ended::Done(Err(error)) => {
                    tracing::debug!(%peer, %error, "a connection ended with an error");
                    return;
                }
                Ended::Overdue(why) => {
                    metrics::counter!("cortex_connections_ended_total", "reason" => why.as_str())
                        .increment(1);
                    tracing::debug!(%peer, reason = why.as_str(), "a connection is over");
                    if why == Overdue::Idle {
                        // What arrives at this very moment is still answered.
                        connection.as_mut().graceful_shutdown();
                        let _ = timeout(GOODBYE, connection).await;
                    }
                    return;
                }
            }
        }
    }
}

enum Ended<E> {
    Done(Result<(), E>),
    Overdue(Overdue),
}

/// Drives `connection` until it ends or is overdue. What is due is looked up again after each step of it.
async fn until_due<C, E>(mut connection: Pin<&mut C>, pulse: &Pulse) -> Ended<E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut timer = pin!(sleep_until(pulse.due().0));
    poll_fn(|cx| {
        if let Poll::Ready(done) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ended::Done(done));
        }
        let (due, why) = pulse.due();
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).map(|()| Ended::Overdue(why))
    })
    .await
}

/// An answer's body, which is under way until its end.
struct Answered {
    body: Body,
    underway: Underway,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.underway.moved();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
