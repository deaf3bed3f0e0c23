//! What one connection is doing, and by when it has to do more: the clock of clients that send or read slowly.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::ServerConfig;

/// How much of an answer a client has to take in the time for it, in bytes.
const SENT_ENOUGH: usize = 16 * 1024;

/// How long a client may take for each thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    head: Duration,
    idle: Duration,
    send: Duration,
    /// A request, its body included, and the first piece of its answer.
    request: Duration,
}

impl From<&ServerConfig> for Limits {
    fn from(config: &ServerConfig) -> Self {
        let send = Duration::from_secs(config.send_timeout_s);
        Self {
            head: Duration::from_secs(config.header_timeout_s),
            idle: Duration::from_secs(config.idle_timeout_s),
            send,
            request: Duration::from_secs(config.body_timeout_s + config.request_timeout_s) + send,
        }
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has been asked yet.
    Opened,
    /// So many requests are under way.
    Busy(usize),
    /// Everything is answered.
    Idle,
    /// Everything is answered, and the first bytes of another request are there (HTTP/1).
    Head,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A request's head did not arrive.
    Head,
    /// Nothing was asked for a while: nothing is wrong.
    Idle,
    /// An answer is not taken.
    Send,
    /// Requests are under way, and nothing has moved.
    Stalled,
}

impl Overdue {
    /// The word for it in measurements.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Head => "slow_head",
            Self::Idle => "idle",
            Self::Send => "slow_read",
            Self::Stalled => "stalled",
        }
    }
}

/// What is being sent and not taken.
#[derive(Debug, Clone, Copy)]
struct Unsent {
    since: Instant,
    taken: usize,
}

struct Inner {
    state: State,
    since: Instant,
    /// Requests share the connection, so bytes between them need not be a head.
    multiplexed: bool,
    unsent: Option<Unsent>,
}

/// One connection's pulse; clones are the same.
#[derive(Clone)]
pub(super) struct Pulse {
    inner: Arc<Mutex<Inner>>,
    limits: Limits,
}

impl Pulse {
    /// A connection that was just opened.
    pub(super) fn new(limits: Limits) -> Self {
        let inner = Inner { state: State::Opened, since: Instant::now(), multiplexed: false, unsent: None };
        Self { inner: Arc::new(Mutex::new(inner)), limits }
    }

    /// A request has arrived; it is under way until what this answers is dropped.
    pub(super) fn request(&self, multiplexed: bool) -> Underway {
        let mut inner = self.inner();
        inner.multiplexed = multiplexed;
        inner.state = match inner.state {
            State::Busy(count) => State::Busy(count + 1),
            State::Opened | State::Idle | State::Head => State::Busy(1),
        };
        inner.since = Instant::now();
        Underway(self.clone())
    }

    /// When the connection is over unless something moves before, and why it is then.
    pub(super) fn due(&self) -> (Instant, Overdue) {
        let inner = self.inner();
        let by_state = match inner.state {
            State::Opened | State::Head => (inner.since + self.limits.head, Overdue::Head),
            State::Idle => (inner.since + self.limits.idle, Overdue::Idle),
            State::Busy(_) => (inner.since + self.limits.request, Overdue::Stalled),
        };
        let unsent = inner.unsent.map(|unsent| (unsent.since + self.limits.send, Overdue::Send));
        unsent.filter(|unsent| unsent.0 < by_state.0).unwrap_or(by_state)
    }

    /// Something moved: the time that the connection has begins anew.
    pub(super) fn moved(&self) {
        self.inner().since = Instant::now();
    }

    fn done(&self) {
        let mut inner = self.inner();
        inner.state = match inner.state {
            State::Busy(count) if count > 1 => State::Busy(count - 1),
            State::Busy(_) | State::Opened | State::Idle | State::Head => State::Idle,
        };
        inner.since = Instant::now();
    }

    fn received(&self) {
        let mut inner = self.inner();
        if inner.state == State::Idle && !inner.multiplexed {
            (inner.state, inner.since) = (State::Head, Instant::now());
        }
    }

    fn blocked(&self) {
        self.inner().unsent.get_or_insert_with(|| Unsent { since: Instant::now(), taken: 0 });
    }

    fn sent(&self, bytes: usize) {
        let mut inner = self.inner();
        if let Some(unsent) = &mut inner.unsent {
            unsent.taken += bytes;
            if unsent.taken >= SENT_ENOUGH {
                inner.unsent = None;
            }
        }
    }

    fn flushed(&self) {
        self.inner().unsent = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way, until the last piece of its answer is handed over.
pub(super) struct Underway(Pulse);

impl Underway {
    /// A piece of the answer was handed over.
    pub(super) fn moved(&self) {
        self.0.moved();
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// A socket whose traffic is felt in its connection's pulse.
pub(super) struct Felt<S> {
    stream: S,
    pulse: Pulse,
}

impl<S> Felt<S> {
    pub(super) fn new(stream: S, pulse: Pulse) -> Self {
        Self { stream, pulse }
    }

    fn feel(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.pulse.sent(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.pulse.blocked(),
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Felt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Felt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.feel(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.feel(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.pulse.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse() -> Pulse {
        Pulse::new(Limits::from(&ServerConfig::default()))
    }

    fn seconds(pulse: &Pulse) -> (u64, Overdue) {
        let (due, why) = pulse.due();
        (due.duration_since(Instant::now()).as_secs(), why)
    }

    #[tokio::test(start_paused = true)]
    async fn each_state_has_its_own_time() {
        let pulse = pulse();
        assert_eq!(seconds(&pulse), (10, Overdue::Head));
        let (one, two) = (pulse.request(false), pulse.request(false));
        assert_eq!(seconds(&pulse), (60, Overdue::Stalled));
        drop(one);
        assert_eq!(seconds(&pulse), (60, Overdue::Stalled), "another one is under way");
        drop(two);
        assert_eq!(seconds(&pulse), (75, Overdue::Idle));
        tokio::time::advance(Duration::from_secs(70)).await;
        pulse.received();
        assert_eq!(seconds(&pulse), (10, Overdue::Head));
        tokio::time::advance(Duration::from_secs(5)).await;
        pulse.received();
        assert_eq!(seconds(&pulse), (5, Overdue::Head), "more bytes are no more time");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_between_multiplexed_requests_are_no_head() {
        let pulse = pulse();
        drop(pulse.request(true));
        pulse.received();
        assert_eq!(seconds(&pulse), (75, Overdue::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_gets_no_more_time_than_one_that_sleeps() {
        let pulse = pulse();
        let underway = pulse.request(false);
        pulse.blocked();
        tokio::time::advance(Duration::from_secs(15)).await;
        pulse.sent(100);
        pulse.blocked();
        underway.moved();
        assert_eq!(seconds(&pulse), (5, Overdue::Send));
        pulse.sent(SENT_ENOUGH);
        assert_eq!(seconds(&pulse), (60, Overdue::Stalled));
        pulse.blocked();
        assert_eq!(seconds(&pulse), (20, Overdue::Send));
        pulse.flushed();
        assert_eq!(seconds(&pulse), (60, Overdue::Stalled));
    }
}
