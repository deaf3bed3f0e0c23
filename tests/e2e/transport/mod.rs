//! The door: TLS, clients that are slow or greedy, HTTP/2's ways of abuse, and how a replica leaves.

mod http2;
mod slow;
mod stopping;
mod tls;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long anything here may take, on a machine that is busy with everything else.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Reads until the other side closes, one way or the other; what came until then.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut found = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut found)).await;
    // A reset is an end as well.
    let _ = read.expect("it is closed in time");
    found
}

/// Sends a request and reads its head and body to the end of a short answer.
async fn healthy(stream: &mut TcpStream) -> bool {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    let mut found = Vec::new();
    while !found.ends_with(b"ok\n") {
        let mut piece = [0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer in time");
        match read {
            Ok(0) | Err(_) => return false,
            Ok(count) => found.extend_from_slice(&piece[..count]),
        }
    }
    found.starts_with(b"HTTP/1.1 200")
}

/// Waits until `seen` is.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut seen: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !seen().await {
        assert!(Instant::now() < deadline, "{what} never came");
        sleep(Duration::from_millis(20)).await;
    }
}
