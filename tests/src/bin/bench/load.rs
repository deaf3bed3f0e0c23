//! The client: HTTP/1.1 over kept connections, requests that are bytes already, and nothing else; it shares the
//! cores with what it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cpu::Cpu;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// What one or more turns of a load measured.
#[derive(Debug, Default, Clone)]
pub(crate) struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
    /// What it cost.
    pub(crate) cpu: Cpu,
}

impl Measured {
    /// Adds another turn of the same load.
    pub(crate) fn add(&mut self, turn: Self) {
        self.latencies.extend(turn.latencies);
        self.elapsed += turn.elapsed;
        self.cpu = self.cpu + turn.cpu;
    }

    /// Processor time for each answer, in microseconds: of the server, of Postgres, of the client.
    pub(crate) fn cpu_us(&self) -> [f64; 3] {
        let answers = f64::from(u32::try_from(self.latencies.len()).expect("a count"));
        [self.cpu.server, self.cpu.postgres, self.cpu.client].map(|time| time.as_secs_f64() * 1e6 / answers)
    }

    /// Answers each second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.latencies.len()).expect("a count")) / self.elapsed.as_secs_f64()
    }

    /// The latency that `percent` of the answers stay within, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).expect("a latency").as_secs_f64() * 1_000.0
    }
}

/// Sends `total` of `requests`, from the first and around again, over `connections`, each of which sends its
/// next when it has its answer. Connecting is not measured. An answer other than 200 ends the benchmark.
pub(crate) async fn run(
    address: SocketAddr,
    connections: usize,
    requests: Arc<Vec<Vec<u8>>>,
    total: usize,
) -> Measured {
    let client = move || {
        // One thread: what the client takes is taken from the server.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(drive(address, connections, requests, total))
    };
    tokio::task::spawn_blocking(client).await.expect("the client")
}

async fn drive(
    address: SocketAddr,
    connections: usize,
    requests: Arc<Vec<Vec<u8>>>,
    total: usize,
) -> Measured {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        open.push(stream);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = open
        .into_iter()
        .map(|stream| tokio::spawn(connection(stream, Arc::clone(&requests), Arc::clone(&next), total)))
        .collect();
    let mut measured = Measured::default();
    for task in tasks {
        measured.latencies.extend(task.await.expect("a connection's task"));
    }
    measured.elapsed = started.elapsed();
    measured
}

async fn connection(
    mut stream: TcpStream,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    total: usize,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(4 * 1024);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return latencies;
        }
        let request = &requests[number % requests.len()];
        let started = Instant::now();
        stream.write_all(request).await.expect("to send");
        read(&mut stream, &mut answer).await;
        latencies.push(started.elapsed());
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Reads one answer; it has to say its length.
async fn read(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    answer.clear();
    let mut end = None;
    while end.is_none_or(|end| answer.len() < end) {
        assert_ne!(stream.read_buf(answer).await.expect("an answer"), 0, "the server hung up");
        assert!(answer.len() <= ANSWER_MAX, "an answer that does not end");
        end = end.or_else(|| whole(answer));
    }
}

/// How long the answer is, once its headers are there.
fn whole(answer: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let headers = answer.windows(END.len()).position(|window| window == END)?;
    let text = std::str::from_utf8(&answer[..headers]).expect("headers");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    Some(headers + END.len() + length.parse::<usize>().expect("a length"))
}
